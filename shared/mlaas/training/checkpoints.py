"""Checkpoints in Hugging Face's layout: opened, checked, and loaded from safetensors only."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from tokenizers import Tokenizer
from transformers import AutoConfig, PreTrainedTokenizerFast

from ..errors import InvalidRequest

__all__ = ["Checkpoint", "Loaded", "load_model", "open_checkpoint"]

WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
# What a special token is called where the tokenizer's files do not say: BERT's names, then RoBERTa's.
SPECIAL = {
    "pad_token": ("[PAD]", "<pad>"),
    "unk_token": ("[UNK]", "<unk>"),
    "cls_token": ("[CLS]", "<s>"),
    "sep_token": ("[SEP]", "</s>"),
    "mask_token": ("[MASK]", "<mask>"),
}
# Model types whose positions start after the padding id, so that fewer tokens fit than there are positions.
OFFSET_POSITIONS = frozenset({"camembert", "longformer", "mpnet", "roberta", "xlm-roberta"})
FAILURES = (OSError, ValueError, KeyError, TypeError, RuntimeError, AttributeError, SafetensorError)


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checked checkpoint. `max_length` is the most tokens the model takes, special ones included."""

    folder: Path
    config: Any
    tokenizer: Any
    max_length: int
    digest: str


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A model with its weights; `fresh` names the parameters that the checkpoint did not hold."""

    model: Any
    fresh: frozenset[str]


def open_checkpoint(folder: Path, tokenizer_folder: Path | None = None) -> Checkpoint:
    """The checkpoint in `folder`, with its own tokenizer or that of `tokenizer_folder`. Raises InvalidRequest if it cannot be used."""
    weights = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    if weights is None or not (folder / "config.json").is_file():
        raise InvalidRequest(
            "the model is not a checkpoint with config.json and model.safetensors",
            field="model.path",
            remedy="Convert pickled weights (*.bin, *.pt) to safetensors; pickles are never loaded.",
        )
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except FAILURES:
        raise InvalidRequest(
            "the model's config.json cannot be used",
            field="model.path",
            remedy="Give a checkpoint of an architecture that transformers knows; code in a checkpoint is never run.",
        ) from None
    tokenizer = _tokenizer(tokenizer_folder or folder, "tokenizer.path" if tokenizer_folder else "model.path")
    if len(tokenizer) > config.vocab_size:
        raise InvalidRequest(
            f"the tokenizer has {len(tokenizer)} tokens and the model {config.vocab_size}",
            field="tokenizer.path" if tokenizer_folder else "model.path",
            remedy="Give the tokenizer that belongs to the model.",
        )
    return Checkpoint(
        folder=folder, config=config, tokenizer=tokenizer, max_length=_max_length(folder, config), digest=_digest(folder, weights)
    )


def load_model(auto: Any, checkpoint: Checkpoint, **options: Any) -> Loaded:
    """The checkpoint as a model of `auto`, in float32. Only the head may be missing: raises InvalidRequest otherwise."""
    try:
        model, info = auto.from_pretrained(
            checkpoint.folder,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            dtype="float32",
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **options,
        )
    except FAILURES:
        raise InvalidRequest(
            "the model's weights cannot be loaded for this objective",
            field="model.path",
            remedy="Give a complete safetensors checkpoint of an encoder such as BERT.",
        ) from None
    fresh = frozenset(info["missing_keys"]) | {entry[0] for entry in info["mismatched_keys"]}
    lost = sorted(name for name in fresh if name.startswith(f"{model.base_model_prefix}.") and ".pooler." not in name)
    if lost:
        raise InvalidRequest(
            f"the checkpoint lacks {len(lost)} of the model's weights, the first is `{lost[0]}`",
            field="model.path",
            remedy="Give a complete checkpoint: only the head may be new.",
        )
    model.config._name_or_path = ""  # else the exported config.json names a local path
    return Loaded(model=model, fresh=fresh)


def _tokenizer(folder: Path, field: str) -> Any:
    file = folder / "tokenizer.json"
    if not file.is_file():
        raise InvalidRequest("there is no tokenizer.json", field=field, remedy="Save the tokenizer as a fast one: tokenizer.json.")
    try:
        backend = Tokenizer.from_file(str(file))
    except Exception:  # tokenizers raises bare Exception for a file it cannot read
        raise InvalidRequest(
            "tokenizer.json cannot be read", field=field, remedy="Save the tokenizer again with a current tokenizers."
        ) from None
    backend.no_padding()
    backend.no_truncation()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, clean_up_tokenization_spaces=False)
    vocabulary = tokenizer.get_vocab()
    stated = _stated(folder)
    for name, usual in SPECIAL.items():
        token = next((each for each in (stated.get(name), *usual) if each in vocabulary), None)
        if token is not None:
            setattr(tokenizer, name, token)
    if tokenizer.pad_token is None:
        raise InvalidRequest("the tokenizer has no padding token", field=field, remedy="Set `pad_token` in tokenizer_config.json.")
    return tokenizer


def _stated(folder: Path) -> dict[str, str]:
    stated: dict[str, str] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        for key, value in _json(folder / name).items():
            token = value.get("content") if isinstance(value, dict) else value
            if key in SPECIAL and isinstance(token, str):
                stated[key] = token
    return stated


def _max_length(folder: Path, config: Any) -> int:
    positions = int(getattr(config, "max_position_embeddings", 0) or 512)
    if config.model_type in OFFSET_POSITIONS:
        positions -= int(config.pad_token_id or 0) + 1
    stated = _json(folder / "tokenizer_config.json").get("model_max_length")
    return min(positions, stated) if isinstance(stated, int) and stated > 0 else positions


def _json(file: Path) -> dict[str, Any]:
    try:
        loaded = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    return loaded if isinstance(loaded, dict) else {}


def _digest(folder: Path, weights: Path) -> str:
    total = hashlib.sha256()
    for file in (weights, folder / "config.json"):
        with file.open("rb") as stream:
            total.update(hashlib.file_digest(stream, "sha256").digest())
    return total.hexdigest()
