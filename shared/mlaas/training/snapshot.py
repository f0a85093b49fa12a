"""The state of a run as files, and back: tensors in safetensors, all else in JSON, nothing pickled.

weights.safetensors     the parameters that are trained, and the buffers
optimizer.safetensors   the optimizer's tensors, `<parameter>.<name>`, and the states of the random generators
state.json              position, history, what was best so far, and whatever else is no tensor
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

__all__ = ["OPTIMIZER", "STATE", "WEIGHTS", "Tensors", "load_weights", "read_state", "restore", "trained", "write"]

WEIGHTS, OPTIMIZER, STATE = "weights.safetensors", "optimizer.safetensors", "state.json"
_GENERATOR = "generator."  # begins the names of the random generators' states
Tensors = dict[str, torch.Tensor]


def trained(model: torch.nn.Module) -> Tensors:
    """What training changes, by name, shared with the model: parameters that learn (tied ones once) and persistent buffers."""
    kept = {name: parameter.detach() for name, parameter in model.named_parameters() if parameter.requires_grad}
    stored = model.state_dict().keys()
    return kept | {name: buffer for name, buffer in model.named_buffers() if name in stored}


def write(folder: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Write all files of a run into `folder`. `state` is JSON serialisable; floats come back exactly as they were."""
    save_file(_plain(trained(model)), folder / WEIGHTS)
    tensors: Tensors = {}
    others: dict[str, Any] = {}
    for parameter, values in optimizer.state_dict()["state"].items():
        for name, value in values.items():
            (tensors if isinstance(value, torch.Tensor) else others)[f"{parameter}.{name}"] = value
    save_file(_plain(tensors | _generators()), folder / OPTIMIZER)
    content = {"optimizer": others, "numpy": _numpy_state(), **state}
    (folder / STATE).write_text(json.dumps(content), "utf-8")


def restore(files: Mapping[str, Path], model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Put `model`, `optimizer` and the random generators into the state of `files`; the `state` that was written.

    Raises ValueError if the files are those of another model.
    """
    state = read_state(files)
    load_weights(model, load_file(files[WEIGHTS]))
    stored = load_file(files[OPTIMIZER])
    values: dict[int, dict[str, Any]] = {}
    for name, value in [*stored.items(), *state["optimizer"].items()]:
        if not name.startswith(_GENERATOR):
            parameter, _, part = name.partition(".")
            values.setdefault(int(parameter), {})[part] = value
    optimizer.load_state_dict({"state": values, "param_groups": optimizer.state_dict()["param_groups"]})
    _restore_generators(stored, state["numpy"])
    return state


def read_state(files: Mapping[str, Path]) -> dict[str, Any]:
    """What `state.json` holds."""
    loaded: dict[str, Any] = json.loads(files[STATE].read_bytes())
    return loaded


def load_weights(model: torch.nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    """Copy `weights` into what of `model` is trained. Raises ValueError if they are those of another model."""
    kept = trained(model)
    if {name: tensor.shape for name, tensor in kept.items()} != {name: tensor.shape for name, tensor in weights.items()}:
        raise ValueError("the weights are those of another model")
    with torch.no_grad():
        for name, tensor in kept.items():
            tensor.copy_(weights[name])


def _plain(tensors: Mapping[str, torch.Tensor]) -> Tensors:
    return {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}


def _generators() -> Tensors:
    states = {f"{_GENERATOR}cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states |= {f"{_GENERATOR}cuda.{number}": state for number, state in enumerate(torch.cuda.get_rng_state_all())}
    return states


def _restore_generators(stored: Mapping[str, torch.Tensor], numpy_state: Mapping[str, Any]) -> None:
    torch.set_rng_state(stored[f"{_GENERATOR}cpu"])
    for number in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        if (state := stored.get(f"{_GENERATOR}cuda.{number}")) is not None:
            torch.cuda.set_rng_state(state, number)
    restored = {**numpy_state, "state": {**numpy_state["state"], "key": np.asarray(numpy_state["state"]["key"], dtype=np.uint32)}}
    np.random.set_state(restored)


def _numpy_state() -> dict[str, Any]:
    state: dict[str, Any] = dict(np.random.get_state(legacy=False))
    return {**state, "state": {**state["state"], "key": state["state"]["key"].tolist()}}
