"""A search for settings by Katib: an Experiment whose trials are Jobs that train with the values which Katib suggests."""

from __future__ import annotations

import json
from typing import Any

from ..contracts import ParameterSearch, ParameterSpace, TrainRequest
from ..errors import InvalidRequest
from ..training.searchable import SEARCHABLE, check_search, direction_of
from .pod import EVENT_FOLDER, Wanted, event_map, labels, mount

__all__ = ["experiment"]


def experiment(request: TrainRequest, wanted: Wanted, spec: dict[str, Any]) -> list[dict[str, Any]]:
    """The request and the Experiment that searches as its `search` says, from the `spec` of a training's Job.

    Raises InvalidRequest where there is no search, or one that Katib cannot do.
    """
    search = request.search
    if search is None:
        raise InvalidRequest("an Experiment is for a search", field="search", remedy="Give `search.parameters`: ranges or choices.")
    if search.timeout_minutes is not None:
        raise InvalidRequest(
            "Katib ends no Experiment by time", field="search.timeout_minutes", remedy="Leave it out and limit `search.trials`."
        )
    check_search(request)
    body: dict[str, Any] = {
        "objective": {
            "type": direction_of(search),
            "objectiveMetricName": search.metric,
            # The last figure is that of the weights with which the run ends, which need not be those of its best epoch.
            "metricStrategies": [{"name": search.metric, "value": "latest"}],
        },
        "algorithm": {"algorithmName": "tpe", "algorithmSettings": [{"name": "random_state", "value": str(request.model_train.seed)}]},
        "maxTrialCount": search.trials,
        "parallelTrialCount": search.parallel,
        "maxFailedTrialCount": search.trials,  # a trial that fails is a bad choice of settings, and the search goes on
        "parameters": [_parameter(name, space) for name, space in search.parameters.items()],
        "metricsCollectorSpec": {"collector": {"kind": "StdOut"}},
        "trialTemplate": _template(search, wanted, spec),
    }
    if search.prune:
        body["earlyStopping"] = {"algorithmName": "medianstop"}
    metadata = {"name": wanted.name, "namespace": wanted.namespace, "labels": labels()}
    asked = request.model_dump(mode="json", exclude_none=True)
    return [
        event_map(wanted, json.dumps(asked, ensure_ascii=False)),
        {"apiVersion": "kubeflow.org/v1beta1", "kind": "Experiment", "metadata": metadata, "spec": body},
    ]


def _parameter(name: str, space: ParameterSpace) -> dict[str, Any]:
    if space.choices is not None:
        numbers = all(type(choice) in (int, float) for choice in space.choices)
        listed = [_text(choice) for choice in space.choices]
        return {"name": name, "parameterType": "discrete" if numbers else "categorical", "feasibleSpace": {"list": listed}}
    whole = SEARCHABLE[name] == "integer"
    assert space.low is not None, "a space has a range or choices"
    assert space.high is not None, "a space has a range or choices"
    ends = {"min": _text(int(space.low) if whole else space.low), "max": _text(int(space.high) if whole else space.high)}
    return {
        "name": name,
        "parameterType": "int" if whole else "double",
        "feasibleSpace": {**ends, "distribution": "logUniform" if space.log else "uniform"},
    }


def _template(search: ParameterSearch, wanted: Wanted, spec: dict[str, Any]) -> dict[str, Any]:
    """The Job of one trial. Katib puts values where `${trialParameters.NAME}` stands, and its name where `trialSpec.Name` is asked for."""
    pod = spec["template"]["spec"]
    mount(pod, wanted)
    (container,) = pod["containers"]
    short = {name: name.rpartition(".")[2] for name in search.parameters}  # no dots where Katib looks for a name
    values = [f"{name}=${{trialParameters.{short[name]}}}" for name in search.parameters]
    container["command"] = ["python", "-m", "mlaas.training.katib_trial"]
    container["args"] = [f"{EVENT_FOLDER}/event", "--trial", "${trialParameters.trial}", *values]
    spec["template"]["metadata"]["labels"] = labels(component="job")
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"labels": wanted.metadata(component="job")["labels"]}, "spec": spec}
    return {
        "primaryContainerName": container["name"],
        "trialParameters": [
            {"name": "trial", "reference": "${trialSpec.Name}"},
            *({"name": short[name], "reference": name} for name in search.parameters),
        ],
        "trialSpec": job,
    }


def _text(value: bool | int | float | str) -> str:
    return value if isinstance(value, str) else json.dumps(value)
