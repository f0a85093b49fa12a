"""Tiny ONNX bundles that are made in milliseconds and give known answers, for tests without torch and without a download.

The answers follow by construction. A classifier counts words that are evidence for a label; a mask filler knows which word
stood between which two in a few sentences; an embedder gives each known word a random, seeded vector. Building needs the
`onnx` package; running needs what every serving process has.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import tokenizers

    from ..bundles import Bundle

__all__ = [
    "PLACES",
    "SENTENCES",
    "STRUCTURES",
    "classifier",
    "embedder",
    "language_model",
    "mask_filler",
    "reader",
    "save_graph",
    "tagger",
    "wordpiece",
]

# What each label's words are; a text without any is [NoSite].
STRUCTURES: Mapping[str, Sequence[str]] = {
    "[NoSite]": (),
    "LNF": ("frascati", "lnf"),
    "CNAF": ("cnaf", "bologna"),
    "FI": ("firenze", "florence", "sesto"),
}
SENTENCES: Sequence[str] = (
    "the higgs boson was found at the large hadron collider",
    "the top quark is the heaviest known particle",
    "dark matter interacts through gravity",
    "neutrino oscillations show that neutrinos have mass",
    "istituto nazionale di fisica nucleare infn university of italy",
)
# What the tagger knows: a tag for each word; all others are O.
TAGS: Mapping[str, Sequence[str]] = {
    "O": (),
    "B-PARTICLE": ("higgs", "top"),
    "I-PARTICLE": ("boson", "quark"),
    "B-FACILITY": ("large",),
    "I-FACILITY": ("hadron", "collider"),
}
PLACES: Sequence[str] = ("frascati", "bologna", "geneva")  # what the reader takes for an answer
Node = tuple[str, list[str], list[str], dict[str, Any]]
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def classifier(
    folder: Path, words: Mapping[str, Sequence[str]] = STRUCTURES, *, max_length: int = 64, inputs: Sequence[str] = INPUTS
) -> Bundle:
    """A classifier whose logits are 4 for each word of a label that occurs, and 1 for the first label whatever occurs."""
    labels = list(words)
    tokens = wordpiece([*SENTENCES, *(" ".join(known) for known in words.values())])
    evidence = np.zeros((tokens.get_vocab_size(), len(labels)), dtype=np.float32)
    for column, label in enumerate(labels):
        for word in words[label]:
            evidence[_id(tokens, word), column] = 4.0
    bias = np.eye(1, len(labels), dtype=np.float32)[0]
    nodes: list[Node] = [
        ("Gather", ["evidence", "input_ids"], ["found"], {}),
        *_masked("found", "kept"),
        ("ReduceSum", ["kept", "axis"], ["total"], {"keepdims": 0}),
        ("Add", ["total", "bias"], ["logits"], {}),
    ]
    folder.mkdir(parents=True, exist_ok=True)
    save_graph(
        folder / "model.onnx",
        nodes,
        {"evidence": evidence, "bias": bias, "axis": np.array([1]), "last_axis": np.array([2])},
        {"logits": ["batch", len(labels)]},
        inputs,
    )
    return _finish(folder, tokens, "text-classification", max_length, labels=tuple(labels))


def mask_filler(
    folder: Path,
    sentences: Sequence[str] = SENTENCES,
    *,
    vocabulary: Sequence[str] | None = None,
    max_length: int = 64,
    byte_level: bool = False,
    inputs: Sequence[str] = INPUTS,
) -> Bundle:
    """A masked language model: a token's logit is 4 where it followed the token before the mask, and 4 where it preceded the one after it.

    The tokenizer knows the words of `vocabulary`, by default those of the sentences; it spells out the others. `byte_level`
    makes it a byte-level BPE tokenizer whose mask token is `<mask>`; WordPiece and `[MASK]` otherwise.
    """
    tokens = (_byte_level if byte_level else wordpiece)(vocabulary or sentences)
    size = tokens.get_vocab_size()
    after, before = np.zeros((size, size), dtype=np.float32), np.zeros((size, size), dtype=np.float32)
    for sentence in sentences:
        ids = tokens.encode(sentence).ids
        for left, right in pairwise(ids):
            after[left, right] = before[right, left] = 4.0
    nodes: list[Node] = [
        ("Slice", ["input_ids", "zero", "minus_one", "one"], ["but_last"], {}),
        ("Slice", ["input_ids", "one", "end", "one"], ["but_first"], {}),
        ("Pad", ["but_last", "pad_left"], ["previous"], {}),
        ("Pad", ["but_first", "pad_right"], ["next"], {}),
        ("Gather", ["after", "previous"], ["from_left"], {}),
        ("Gather", ["before", "next"], ["from_right"], {}),
        ("Add", ["from_left", "from_right"], ["logits"], {}),
    ]
    numbers = {"zero": [0], "one": [1], "minus_one": [-1], "end": [2**31], "pad_left": [0, 1, 0, 0], "pad_right": [0, 0, 0, 1]}
    constants = {"after": after, "before": before, **{name: np.array(value) for name, value in numbers.items()}}
    folder.mkdir(parents=True, exist_ok=True)
    save_graph(folder / "model.onnx", nodes, constants, {"logits": ["batch", "length", size]}, inputs)
    return _finish(folder, tokens, "masked-lm", max_length)


def embedder(
    folder: Path,
    sentences: Sequence[str] = SENTENCES,
    *,
    hidden: int = 16,
    seed: int = 0,
    max_length: int = 64,
    pooling: str = "mean",
    normalize: bool = True,
    sentence_level: bool = False,
    inputs: Sequence[str] = INPUTS,
) -> Bundle:
    """An encoder that gives each token a seeded random vector of `hidden` numbers: texts that share words are near each other.

    `sentence_level` makes a graph whose one output is the sum over the tokens, `sentence_embedding`.
    """
    tokens = wordpiece(sentences)
    vectors = np.random.default_rng(seed).standard_normal((tokens.get_vocab_size(), hidden)).astype(np.float32)
    vectors[_id(tokens, "[UNK]")] = 0.0
    nodes: list[Node] = [("Gather", ["vectors", "input_ids"], ["found"], {}), *_masked("found", "last_hidden_state")]
    constants: dict[str, NDArray[Any]] = {"vectors": vectors, "last_axis": np.array([2])}
    outputs: dict[str, list[int | str]] = {"last_hidden_state": ["batch", "length", hidden]}
    if sentence_level:
        nodes.append(("ReduceSum", ["last_hidden_state", "axis"], ["sentence_embedding"], {"keepdims": 0}))
        constants["axis"], outputs = np.array([1]), {"sentence_embedding": ["batch", hidden]}
    folder.mkdir(parents=True, exist_ok=True)
    save_graph(folder / "model.onnx", nodes, constants, outputs, inputs)
    return _finish(folder, tokens, "no-objective", max_length, pooling=pooling, normalize=normalize)


def tagger(folder: Path, tags: Mapping[str, Sequence[str]] = TAGS, *, max_length: int = 64) -> Bundle:
    """A token classifier that gives each word of `tags` its tag with a logit of 4, and 1 for the first tag to all words."""
    tokens = wordpiece([*SENTENCES, *(" ".join(known) for known in tags.values())])
    evidence = np.zeros((tokens.get_vocab_size(), len(tags)), dtype=np.float32)
    evidence[:, 0] = 1.0
    for column, known in enumerate(tags.values()):
        for word in known:
            evidence[_id(tokens, word), column] = 4.0
    folder.mkdir(parents=True, exist_ok=True)
    nodes: list[Node] = [("Gather", ["evidence", "input_ids"], ["logits"], {})]
    save_graph(folder / "model.onnx", nodes, {"evidence": evidence}, {"logits": ["batch", "length", len(tags)]})
    return _finish(folder, tokens, "token-classification", max_length, labels=tuple(tags))


def reader(folder: Path, places: Sequence[str] = PLACES, *, max_length: int = 64) -> Bundle:
    """A question answering model that takes a word of `places` for the answer, the first of them most of all; -4 for all others."""
    tokens = wordpiece([*SENTENCES, *places, "where is the laboratory"])
    evidence = np.full(tokens.get_vocab_size(), -4.0, dtype=np.float32)
    for rank, word in enumerate(places):
        evidence[_id(tokens, word)] = 4.0 - rank
    folder.mkdir(parents=True, exist_ok=True)
    nodes: list[Node] = [("Gather", ["evidence", "input_ids"], [name], {}) for name in ("start_logits", "end_logits")]
    shape: dict[str, list[int | str]] = {"start_logits": ["batch", "length"], "end_logits": ["batch", "length"]}
    save_graph(folder / "model.onnx", nodes, {"evidence": evidence}, shape)
    return _finish(folder, tokens, "question-answering", max_length)


def language_model(folder: Path, sentences: Sequence[str] = SENTENCES, *, max_length: int = 64) -> Bundle:
    """A causal language model that has read `sentences`: a token's logit is 4 where it followed the one before, and [SEP] ends a text."""
    tokens = wordpiece(sentences)
    size = tokens.get_vocab_size()
    after = np.zeros((size, size), dtype=np.float32)
    for sentence in sentences:
        for left, right in pairwise(tokens.encode(sentence).ids):
            after[left, right] += 4.0
    folder.mkdir(parents=True, exist_ok=True)
    nodes: list[Node] = [("Gather", ["after", "input_ids"], ["logits"], {})]
    save_graph(folder / "model.onnx", nodes, {"after": after}, {"logits": ["batch", "length", size]})
    return _finish(folder, tokens, "causal-lm", max_length, eos_token_id=_id(tokens, "[SEP]"))


def wordpiece(sentences: Iterable[str]) -> tokenizers.Tokenizer:
    """A lower-casing BERT tokenizer that knows the words of `sentences`, and each of their letters as `x` and `##x`."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    splitter, normalizer = pre_tokenizers.BertPreTokenizer(), normalizers.BertNormalizer(lowercase=True)
    words = {word for text in sentences for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text))}
    letters = set("".join(words)) | set("abcdefghijklmnopqrstuvwxyz0123456789.,;:-()")
    entries = [*SPECIALS, *sorted(letters), *sorted(f"##{letter}" for letter in letters), *sorted(words - letters)]
    tokens = Tokenizer(models.WordPiece({entry: index for index, entry in enumerate(entries)}, unk_token="[UNK]"))  # noqa: S106 - a word, no password
    tokens.normalizer, tokens.pre_tokenizer, tokens.decoder = normalizer, splitter, decoders.WordPiece()
    tokens.add_special_tokens(list(SPECIALS))
    marks = [(token, _id(tokens, token)) for token in ("[CLS]", "[SEP]")]
    tokens.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=marks)
    return tokens


def save_graph(
    path: Path,
    nodes: Sequence[Node],
    constants: Mapping[str, NDArray[Any]],
    outputs: Mapping[str, Sequence[int | str]],
    inputs: Sequence[str] = INPUTS,
) -> None:
    """Write an ONNX graph with the integer inputs (batch, length) `inputs` and the float32 `outputs`."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    graph = helper.make_graph(
        [helper.make_node(kind, taken, given, **attributes) for kind, taken, given, attributes in nodes],
        "tiny",
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "length"]) for name in inputs],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    # Old enough for every ONNX Runtime that is in use.
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())


def _masked(name: str, result: str) -> list[Node]:
    """Nodes that set to 0 what stands at padding: `name` (batch, length, x) times the attention mask."""
    return [
        ("Unsqueeze", ["attention_mask", "last_axis"], ["mask"], {}),
        ("Cast", ["mask"], ["weights"], {"to": 1}),
        ("Mul", [name, "weights"], [result], {}),
    ]


def _byte_level(sentences: Sequence[str]) -> tokenizers.Tokenizer:
    """A RoBERTa-like tokenizer: byte-level BPE with a token for each word of `sentences`; its mask takes the space before it."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokens = Tokenizer(models.BPE())
    tokens.pre_tokenizer, tokens.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    specials = [*("<s>", "<pad>", "</s>", "<unk>"), AddedToken("<mask>", lstrip=True)]
    trainer = trainers.BpeTrainer(
        vocab_size=2000, special_tokens=specials, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokens.train_from_iterator(sentences, trainer)
    marks = [(token, _id(tokens, token)) for token in ("<s>", "</s>")]
    tokens.post_processor = processors.TemplateProcessing(single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=marks)
    return tokens


def _id(tokens: tokenizers.Tokenizer, token: str) -> int:
    found = tokens.token_to_id(token)
    if found is None:
        raise ValueError(f"{token!r} must be one word, in lower case")
    return int(found)


def _finish(
    folder: Path,
    tokens: tokenizers.Tokenizer,
    objective: str,
    max_length: int,
    *,
    labels: tuple[str, ...] = (),
    pooling: str | None = None,
    normalize: bool = False,
    **more: int,
) -> Bundle:
    from ..bundles import write_manifest

    padding = next(index for token in ("[PAD]", "<pad>") if (index := tokens.token_to_id(token)) is not None)
    config = {
        "model_type": "bert",
        "vocab_size": tokens.get_vocab_size(),
        "pad_token_id": padding,
        "max_position_embeddings": max_length,
        "id2label": {str(index): label for index, label in enumerate(labels)},
        **more,
    }
    tokens.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return write_manifest(
        folder,
        objective=objective,
        labels=labels,
        pooling=pooling,
        normalize=normalize,
        max_length=max_length,
        provenance={"made_by": "tiny_models"},
    )
