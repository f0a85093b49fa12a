"""What the configuration files of a Hugging Face repository say about its model; sentence-transformers' files included.

Only the standard library: this is read while a serving process starts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from .errors import InvalidRequest
from .storage import manifests
from .storage.paths import is_safe_name

__all__ = ["Description", "describe", "files", "mask_token", "sha256_of"]

_OBJECTIVES = {
    "ForSequenceClassification": "text-classification",
    "ForMaskedLM": "masked-lm",
    "ForTokenClassification": "token-classification",
    "ForQuestionAnswering": "question-answering",
    "ForCausalLM": "causal-lm",
    "LMHeadModel": "causal-lm",
    "ForNextSentencePrediction": "next-sentence-prediction",
}
_OPTIONAL = ("tokenizer_config.json", "special_tokens_map.json", "modules.json", "sentence_bert_config.json")
# Their position embeddings begin after the padding index, 1: the first two rows hold no position
# (create_position_ids_from_input_ids in transformers' modeling_roberta.py).
_OFFSET_TYPES = {
    "camembert",
    "data2vec-text",
    "ibert",
    "longformer",
    "mpnet",
    "roberta",
    "roberta-prelayernorm",
    "xlm-roberta",
    "xlm-roberta-xl",
}
_OFFSET = 2
_ABSURD = 10_000_000  # tokenizers without a maximum say 1e30
_DEFAULT_LENGTH = 512
_MASKS = ("[MASK]", "<mask>")
_REMEDY = "Correct the file, or export the model again."


@dataclass(frozen=True, kw_only=True)
class Description:
    """What a repository is for; the fields are those of a bundle."""

    objective: str
    labels: tuple[str, ...]
    pooling: str | None
    normalize: bool
    max_length: int
    mask_token: str | None
    config: dict[str, Any]


def describe(folder: Path) -> Description:
    """The repository's description. Raises InvalidRequest where a file is malformed or asks for what is not served."""
    config = manifests.read_json(folder / "config.json")
    objective = _objective(config)
    pooling, normalize = _pooling(folder)
    return Description(
        objective=objective,
        labels=_labels(config) if objective in {"text-classification", "token-classification"} else (),
        pooling=pooling,
        normalize=normalize,
        max_length=_max_length(folder, config),
        mask_token=mask_token(folder),
        config=config,
    )


def files(folder: Path, graph: str) -> list[str]:
    """The names of the files that the model consists of: the graph with its external data, tokenizer and configuration."""
    parent, _, stem = graph.rpartition("/")
    graphs = sorted(f"{parent}/{one.name}".lstrip("/") for one in (folder / parent).iterdir() if one.is_file() and _belongs(one.name, stem))
    optional = [*_OPTIONAL, *(f"{path}/config.json" for kind, path in _modules(folder) if kind == "Pooling")]
    return sorted([*graphs, "tokenizer.json", "config.json", *(name for name in optional if (folder / name).is_file())])


def mask_token(folder: Path) -> str | None:
    """The token that stands for a gap, None where the tokenizer has none."""
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        token = _optional(folder, name).get("mask_token")
        token = token.get("content") if isinstance(token, dict) else token
        if isinstance(token, str) and token:
            return token
    added = _optional(folder, "tokenizer.json").get("added_tokens")
    known = [token.get("content") for token in added if isinstance(token, dict)] if isinstance(added, list) else []
    return next((mask for mask in _MASKS if mask in known), None)


def sha256_of(path: Path) -> str:
    """The sha256 of a file, computed once for each path, size and time of modification."""
    status = path.stat()
    return _sha256(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=1024)
def _sha256(path: Path, _size: int, _mtime: int) -> str:
    return manifests.sha256_of(path)


def _belongs(name: str, stem: str) -> bool:
    return name == stem or name.startswith((f"{stem}_data", f"{stem}.data"))


def _optional(folder: Path, name: str) -> dict[str, Any]:
    return manifests.read_json(folder / name) if (folder / name).is_file() else {}


def _objective(config: dict[str, Any]) -> str:
    architectures = config.get("architectures")
    names = [name for name in architectures if isinstance(name, str)] if isinstance(architectures, list) else []
    return next((objective for name in names for ending, objective in _OBJECTIVES.items() if name.endswith(ending)), "no-objective")


def _labels(config: dict[str, Any]) -> tuple[str, ...]:
    """In the order of their indices; transformers leaves `id2label` out where there are two nameless ones."""
    named = config.get("id2label")
    if named is None:
        return tuple(f"LABEL_{index}" for index in range(2))
    labels = [named.get(str(index)) for index in range(len(named))] if isinstance(named, dict) else [None]
    if not all(isinstance(label, str) for label in labels):
        raise InvalidRequest("`id2label` of config.json must name every index from 0 on", field="path", remedy=_REMEDY)
    return tuple(str(label) for label in labels)


def _modules(folder: Path) -> Iterator[tuple[str, str]]:
    """Kind and path of sentence-transformers' modules, in order. Raises InvalidRequest for a path that leaves the folder."""
    if not (folder / "modules.json").is_file():
        return
    for module in manifests.read_json_list(folder / "modules.json"):
        kind, path = str(module.get("type", "")).rpartition(".")[2], module.get("path", "")
        if path and not is_safe_name(path):
            raise InvalidRequest("`modules.json` names a folder outside the model's", field="path", remedy=_REMEDY)
        yield kind, str(path)


def _pooling(folder: Path) -> tuple[str | None, bool]:
    """Pooling and normalisation; what is not served is refused rather than left out, for it would change every vector."""
    pooling, normalize = None, False
    for kind, path in _modules(folder):
        if kind == "Pooling":
            pooling = _pooling_mode(manifests.read_json(folder / path / "config.json"))
        elif kind == "Normalize":
            normalize = True
        elif kind != "Transformer":
            raise InvalidRequest(f"the module `{kind}` of modules.json is not served", field="path", remedy="Use a model without it.")
    return pooling, normalize


def _pooling_mode(config: dict[str, Any]) -> str:
    modes = {name.removeprefix("pooling_mode_") for name, on in config.items() if name.startswith("pooling_mode_") and on is True}
    if isinstance(mode := config.get("pooling_mode"), str):
        modes.add(mode)
    known = {"cls_token": "cls", "cls": "cls", "mean_tokens": "mean", "mean": "mean"}
    served = {known.get(mode) for mode in modes}
    if len(served) != 1 or (pooling := served.pop()) is None:
        raise InvalidRequest(
            "the model's pooling is not served", field="path", remedy="Use a model that pools by mean or by its first token."
        )
    return pooling


def _max_length(folder: Path, config: dict[str, Any]) -> int:
    """The smallest of the maxima that tokenizer, sentence-transformers and model name, in tokens."""
    offset = _OFFSET if config.get("model_type") in _OFFSET_TYPES else 0
    named = (
        _length(_optional(folder, "tokenizer_config.json").get("model_max_length")),
        _length(_optional(folder, "sentence_bert_config.json").get("max_seq_length")),
        _length(config.get("max_position_embeddings", config.get("n_positions")), offset),
    )
    return min((length for length in named if length is not None), default=_DEFAULT_LENGTH)


def _length(value: Any, offset: int = 0) -> int | None:
    usable = isinstance(value, int | float) and not isinstance(value, bool) and offset < value < _ABSURD
    return int(value) - offset if usable else None
