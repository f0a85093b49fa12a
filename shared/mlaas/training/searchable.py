"""Which settings a search may vary, and the request of one trial. Imports no torch: the train function asks before anything is recorded."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from ..contracts import ParameterSearch, ParameterSpace, TrainRequest, parse
from ..errors import InvalidRequest
from .judge import LOWER_IS_BETTER
from .supported import FIGURES

__all__ = ["SEARCHABLE", "check_search", "direction_of", "with_values"]

Kind = Literal["integer", "real", "choice"]

# What decides how well a model trains. Not among them: `seed`, because trials must differ by their settings alone and share the rows held
# out; what says when a run is written down or ended; and what chooses another model altogether.
SEARCHABLE: dict[str, Kind] = {
    "model_train.epochs": "integer",
    "model_train.batch_size": "integer",
    "model_train.gradient_accumulation": "integer",
    "model_train.max_length": "integer",
    "model_train.optimizer.init_lr": "real",
    "model_train.optimizer.num_warm_steps": "integer",
    "model_train.optimizer.weight_decay_rate": "real",
    "model_train.precision": "choice",
    "model_train.lora.rank": "integer",
    "model_train.lora.alpha": "real",
    "model_train.lora.dropout": "real",
}
EPOCHS = "model_train.epochs"
NOTED = 20_000  # evaluations of all trials that one task document holds with ease


def check_search(request: TrainRequest) -> None:
    """Raise InvalidRequest for a search that cannot work, before hours are spent."""
    search = request.search
    if search is None:
        return
    if request.model.architecture:
        raise InvalidRequest(f"`{request.model.architecture}` has no settings to search", field="search", remedy="Leave it out.")
    for name, space in search.parameters.items():
        _check_space(name, space)
        for end, value in _ends(name, space):
            _check_value(request, name, end, value)
    _check_metric(request, search)
    if search.trials * _most_epochs(request, search) > NOTED:
        raise InvalidRequest(
            f"the search would note more than {NOTED} evaluations", field="search.trials", remedy="Lower `trials` or the number of epochs."
        )


def with_values(request: TrainRequest, values: Mapping[str, Any]) -> TrainRequest:
    """The request of the one training with `values`, by the settings' names. Raises InvalidRequest where the contract refuses them."""
    asked = request.model_dump(exclude_none=True, exclude={"search"})
    for name, value in values.items():
        *parts, last = name.split(".")
        place = asked
        for part in parts:
            place = place.setdefault(part, {})
        place[last] = value
    return parse(TrainRequest, asked)


def direction_of(search: ParameterSearch) -> Literal["minimize", "maximize"]:
    """Whether less or more of the metric is better."""
    return search.direction or ("minimize" if search.metric in LOWER_IS_BETTER else "maximize")


def _check_space(name: str, space: ParameterSpace) -> None:
    kind, where = SEARCHABLE.get(name), f"search.parameters.{name}"
    if kind is None:
        near = difflib.get_close_matches(name, SEARCHABLE, n=1, cutoff=0.6) or [one for one in SEARCHABLE if one.endswith(f".{name}")]
        remedy = f"Did you mean `{near[0]}`?" if near else f"Use one of: {', '.join(SEARCHABLE)}."
        raise InvalidRequest(f"`{name}` is not a setting that can be searched", field=where, remedy=remedy)
    if space.choices is not None:
        if len({(type(choice), choice) for choice in space.choices}) < len(space.choices):
            raise InvalidRequest("a choice is given twice", field=f"{where}.choices", remedy="Name each choice once.")
    elif kind == "choice":
        raise InvalidRequest(f"`{name}` has no range", field=where, remedy="Give `choices`.")
    elif kind == "integer" and any(end != int(end) for end in (space.low or 0.0, space.high or 0.0)):
        raise InvalidRequest(f"`{name}` is a whole number", field=where, remedy="Give `low` and `high` as whole numbers.")


def _ends(name: str, space: ParameterSpace) -> Iterator[tuple[str, Any]]:
    """Field of the space and value, of all values that have to be allowed for the whole space to be."""
    if space.choices is not None:
        yield from ((f"choices.{number}", choice) for number, choice in enumerate(space.choices))
    else:
        whole = SEARCHABLE[name] == "integer"
        yield from ((end, int(value) if whole else value) for end, value in (("low", space.low), ("high", space.high)) if value is not None)


def _check_value(request: TrainRequest, name: str, end: str, value: Any) -> None:
    try:
        allowed = with_values(request, {name: value})
    except InvalidRequest as error:
        where = f"search.parameters.{name}.{end}"
        raise InvalidRequest(error.detail, field=where, remedy=f"Give what `{name}` may be.") from None
    found: Any = allowed
    for part in name.split("."):
        found = getattr(found, part)
    if type(found) is not type(value) and not (isinstance(found, float) and type(value) is int):  # a text or a boolean that was read as one
        where = f"search.parameters.{name}.{end}"
        raise InvalidRequest(f"`{name}` is a number", field=where, remedy="Give numbers, without quotes.")


def _check_metric(request: TrainRequest, search: ParameterSearch) -> None:
    known = ("loss", "accuracy", *FIGURES.get(str(request.model.objective), ()))
    if search.metric not in known:
        raise InvalidRequest(
            f"the evaluation of `{request.model.objective}` has no figure `{search.metric}`",
            field="search.metric",
            remedy=f"Use one of: {', '.join(known)}.",
        )


def _most_epochs(request: TrainRequest, search: ParameterSearch) -> int:
    space = search.parameters.get(EPOCHS)
    if space is None:
        return request.model_train.epochs
    return int(max(float(value) for _, value in _ends(EPOCHS, space)))
