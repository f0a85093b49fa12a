"""Checkpoints in Hugging Face's layout: opened, checked, and loaded from safetensors only."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from tokenizers import Tokenizer
from transformers import AutoConfig, PreTrainedTokenizerFast

from ..errors import InvalidRequest

__all__ = ["Checkpoint", "Loaded", "drawn", "load_model", "open_checkpoint", "open_config", "open_scratch"]

WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
# What a special token is called where the tokenizer's files do not say: BERT's names, then RoBERTa's.
SPECIAL = {
    "pad_token": ("[PAD]", "<pad>"),
    "unk_token": ("[UNK]", "<unk>"),
    "cls_token": ("[CLS]", "<s>"),
    "sep_token": ("[SEP]", "</s>"),
    "mask_token": ("[MASK]", "<mask>"),
    "bos_token": ("<s>", "<|endoftext|>"),
    "eos_token": ("</s>", "<|endoftext|>"),
}
# Model types whose positions start after the padding id, so that fewer tokens fit than there are positions.
OFFSET_POSITIONS = frozenset({"camembert", "longformer", "mpnet", "roberta", "xlm-roberta"})
FAILURES = (OSError, ValueError, KeyError, TypeError, RuntimeError, AttributeError, SafetensorError)


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checked checkpoint. `max_length` is the most tokens the model takes, special ones included.

    `scratch`: only its configuration counts, the weights are drawn.
    """

    folder: Path
    config: Any
    tokenizer: Any
    max_length: int
    digest: str
    scratch: bool = False


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A model with its weights; `fresh` names the parameters that the checkpoint did not hold."""

    model: Any
    fresh: frozenset[str]


def open_config(folder: Path) -> Any:
    """The configuration in `folder`. Raises InvalidRequest if it cannot be used."""
    if not (folder / "config.json").is_file():
        raise InvalidRequest("the model has no config.json", field="model.path", remedy="Give a folder with a model's config.json.")
    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except FAILURES:
        raise InvalidRequest(
            "the model's config.json cannot be used",
            field="model.path",
            remedy="Give a checkpoint of an architecture that transformers knows; code in a checkpoint is never run.",
        ) from None


def open_scratch(folder: Path, tokenizer_folder: Path | None = None, *, own_vocabulary: bool = False) -> Checkpoint:
    """The configuration in `folder` for a model with random weights; a tokenizer as for `open_checkpoint`.

    The configuration follows the tokenizer: its special tokens, and with `own_vocabulary` the number of its tokens.
    """
    config = open_config(folder)
    tokenizer = _tokenizer(tokenizer_folder or folder, "tokenizer.path" if tokenizer_folder else "model.path")
    if own_vocabulary:
        config.vocab_size = len(tokenizer)
    _check_size(tokenizer, config, tokenizer_folder)
    for name in ("pad", "bos", "eos", "sep", "cls", "mask"):
        if (token := getattr(tokenizer, f"{name}_token_id", None)) is not None and hasattr(config, f"{name}_token_id"):
            setattr(config, f"{name}_token_id", token)
    digest, length = _digest([folder / "config.json"]), _max_length(tokenizer_folder or folder, config)
    return Checkpoint(folder=folder, config=config, tokenizer=tokenizer, max_length=length, digest=digest, scratch=True)


def open_checkpoint(folder: Path, tokenizer_folder: Path | None = None) -> Checkpoint:
    """The checkpoint in `folder`, with its own tokenizer or that of `tokenizer_folder`. Raises InvalidRequest if it cannot be used."""
    weights = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    if weights is None or not (folder / "config.json").is_file():
        raise InvalidRequest(
            "the model is not a checkpoint with config.json and model.safetensors",
            field="model.path",
            remedy="Convert pickled weights (*.bin, *.pt) to safetensors; pickles are never loaded. Without weights, "
            "set `model_train.from_scratch`.",
        )
    config = open_config(folder)
    tokenizer = _tokenizer(tokenizer_folder or folder, "tokenizer.path" if tokenizer_folder else "model.path")
    _check_size(tokenizer, config, tokenizer_folder)
    digest = _digest([weights, folder / "config.json"])
    return Checkpoint(folder=folder, config=config, tokenizer=tokenizer, max_length=_max_length(folder, config), digest=digest)


def load_model(auto: Any, checkpoint: Checkpoint, **options: Any) -> Loaded:
    """The checkpoint as a model of `auto`, in float32. Only the head may be missing: raises InvalidRequest otherwise."""
    if checkpoint.scratch:
        return Loaded(model=drawn(auto, checkpoint.config), fresh=frozenset())  # nothing in it is newer than the rest
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


def drawn(auto: Any, config: Any) -> Any:
    """A model of `auto` with weights drawn by torch's generator. Raises InvalidRequest where `config` makes none."""
    try:
        return auto.from_config(config).float()
    except (*FAILURES, AssertionError, ZeroDivisionError):
        raise InvalidRequest(
            "no model for this objective can be made from the config.json",
            field="model.path",
            remedy="Check its sizes, e.g. that `hidden_size` is a multiple of `num_attention_heads`.",
        ) from None


def _check_size(tokenizer: Any, config: Any, tokenizer_folder: Path | None) -> None:
    if len(tokenizer) > config.vocab_size:
        raise InvalidRequest(
            f"the tokenizer has {len(tokenizer)} tokens and the model {config.vocab_size}",
            field="tokenizer.path" if tokenizer_folder else "model.path",
            remedy="Give the tokenizer that belongs to the model.",
        )


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
    if tokenizer.pad_token is None and tokenizer.eos_token is not None:  # GPT-2 has none; what is padded is never looked at
        tokenizer.pad_token = tokenizer.eos_token
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


def _digest(files: Sequence[Path]) -> str:
    total = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            total.update(hashlib.file_digest(stream, "sha256").digest())
    return total.hexdigest()
