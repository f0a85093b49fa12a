"""A form that writes a request of the contract: its fields, the request that they make, and each problem beside its field.

A field's name is the path of what it fills, such as `model_train.epochs`. What is left empty is left out of the request, so that
the contract's own default holds. The same request can be written as JSON instead.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..contracts import SCHEMA, Contract, problems
from ..errors import Malformed, MlaasError

__all__ = ["Field", "Form", "Group", "Written"]


@dataclass(frozen=True, kw_only=True)
class Field:
    """One field. `options` are value and label; `suggestions` are values that are offered and others are taken as well.

    `accept` is which files are offered, of a field for one.
    """

    path: str
    label: str
    hint: str = ""
    number: bool = False
    options: Sequence[tuple[str, str]] = ()
    suggestions: Sequence[str] = ()
    placeholder: str = ""
    accept: str = ""
    start: str = ""


@dataclass(frozen=True, kw_only=True)
class Group:
    """Fields under one heading. `advanced` ones are folded away until one of them is used."""

    title: str
    fields: Sequence[Field]
    advanced: bool = False


@dataclass(frozen=True, kw_only=True)
class Form:
    """The form of a capability."""

    contract: type[Contract]
    groups: Sequence[Group]

    @property
    def fields(self) -> list[Field]:
        """All fields."""
        return [one for group in self.groups for one in group.fields]

    def started(self) -> dict[str, str]:
        """What an empty form shows."""
        return {one.path: one.start for one in self.fields if one.start}

    def request(self, given: Mapping[str, str]) -> dict[str, Any]:
        """The request that the fields make."""
        made: dict[str, Any] = {}
        for one in self.fields:
            if text := given.get(one.path, "").strip():
                _put(made, one.path, _value(text) if one.number else text)
        return made

    def given(self, request: Mapping[str, Any]) -> tuple[dict[str, str], bool]:
        """What the fields hold for a request, and whether they can say all of it."""
        flat = dict(_flat(request))
        known = {one.path for one in self.fields}
        return {path: str(value) for path, value in flat.items() if path in known}, set(flat) <= known

    def owner(self, path: str) -> str | None:
        """The field that a problem at `path` stands beside: the one of that path, or the first below or above it."""
        paths = [one.path for one in self.fields]
        below = [one for one in paths if one.startswith(f"{path}.")]
        named = [one for one in below if one.endswith((".path", ".name"))]
        above = [one for one in paths if path.startswith(f"{one}.") or one.rpartition(".")[0] == path.rpartition(".")[0] != ""]
        return path if path in paths else next(iter((*named, *below, *above)), None)


@dataclass(kw_only=True)
class Written:
    """What was written into a form: `text` is the request as JSON, `as_json` whether that is what was written."""

    form: Form
    given: dict[str, str]
    as_json: bool = False
    text: str = ""
    request: dict[str, Any] = field(default_factory=dict)
    found: list[MlaasError] = field(default_factory=list)

    @classmethod
    def of_fields(cls, form: Form, given: Mapping[str, str]) -> Written:
        """From the fields."""
        request = form.request(given)
        filled = {name: text for name, text in given.items() if text.strip()}
        return cls(form=form, given=filled, request=request, text=json.dumps(request, indent=2, ensure_ascii=False))

    @classmethod
    def of_json(cls, form: Form, text: str) -> Written:
        """From JSON."""
        written = cls(form=form, given={}, as_json=True, text=text)
        try:
            request = json.loads(text)
            if not isinstance(request, dict):
                raise ValueError
            written.request, written.given = request, form.given(request)[0]
        except (ValueError, RecursionError):
            written.found.append(Malformed("this is no JSON object", field="$", remedy="Correct it, e.g. a missing comma or quote."))
        return written

    def check(self) -> None:
        """Find the contract's problems."""
        if self.found:
            return
        for one in problems(self.form.contract, self.request):
            if one.remedy == SCHEMA:  # for who has the schema; here the field is in sight
                one.remedy = None
            self.found.append(one)

    def beside(self) -> dict[str, list[MlaasError]]:
        """The problems by the field that each stands beside; by an empty name those of no field here."""
        sorted_: dict[str, list[MlaasError]] = {}
        for one in self.found:
            owner = None if self.as_json else self.form.owner(one.field or "")
            sorted_.setdefault(owner or "", []).append(one)
        return sorted_


def _put(made: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = path.split(".")
    for name in parents:
        made = made.setdefault(name, {})
    made[last] = value


def _value(text: str) -> Any:
    """A number, or the text itself, which the contract then refuses by name."""
    for cast in (int, float):
        try:
            return cast(text)
        except ValueError:
            continue
    return text


def _flat(request: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in request.items():
        if isinstance(value, Mapping) and value:
            found += _flat(value, f"{prefix}{name}.")
        elif value is not None:
            found.append((prefix + name, value))
    return found
