"""Requests that can never be served, and the documented answer to each. The reference page is written from this list."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..events import event_type

__all__ = ["CASES", "Case"]

CLASSIFY: dict[str, Any] = {"model": {"name": "infn-structures"}, "predict_input": {"input_text": ["INFN Frascati"]}}
FILL: dict[str, Any] = {"model": {"name": "physics-lm"}, "predict_input": {"input_text": ["the [MASK] boson"]}}
SEARCH: dict[str, Any] = {"dataset": {"name": "abstracts"}, "search_input": {"input_text": ["neutrino"]}}
NER: dict[str, Any] = {"model": {"name": "physics-ner"}, "predict_input": {"input_text": ["the higgs boson"]}}
ANSWER: dict[str, Any] = {"model": {"name": "laboratories"}, "predict_input": {"question": ["where?"], "context": ["frascati"]}}
EMBED: dict[str, Any] = {"model": {"name": "minilm"}, "predict_input": {"input_text": ["neutrino"]}}
GENERATE: dict[str, Any] = {"model": {"name": "physics-writer"}, "predict_input": {"input_text": ["dark matter"]}}
INDEX: dict[str, Any] = {"model": {"name": "minilm"}, "dataset": {"path": "affiliations.tsv"}, "vector_store_save": {"path": "indexes/new"}}
ROWS: dict[str, Any] = {"path": "affiliations.tsv", "loader_kwargs": {"page_content_column": "affiliation"}}
TRAIN: dict[str, Any] = {
    "model": {"path": "checkpoints/tiny", "objective": "text-classification"},
    "dataset": {"path": "affiliations.tsv"},
    "model_save": {"path": "models/new"},
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """One bad request: what it is, to which function, its body, and what comes back.

    As an event it gets `failed` with the same problem as data and HTTP 200, unless `event_status` says that the request
    is no event that could be answered: then a 4xx, which a broker does not retry and dead-letters with the reason.
    """

    what: str
    function: str
    body: bytes
    status: int
    where: str | None
    headers: Mapping[str, str] = field(default_factory=dict)
    event_status: int = 200

    @property
    def binary(self) -> dict[str, str]:
        """The headers that make it a CloudEvent."""
        return {
            "Content-Type": "application/json",
            "ce-specversion": "1.0",
            "ce-id": "bad-1",
            "ce-source": "/bad",
            "ce-type": event_type(self.function, "requested"),
            **self.headers,
        }


def _json(what: str, function: str, request: Any, status: int, where: str | None) -> Case:
    return Case(what=what, function=function, body=json.dumps(request).encode(), status=status, where=where)


def _event(what: str, function: str, body: bytes, where: str | None, **headers: str) -> Case:
    """A case that only an event can be."""
    return Case(
        what=what,
        function=function,
        body=body,
        status=400,
        where=where,
        headers={name.replace("_", "-"): value for name, value in headers.items()},
        event_status=400,
    )


def _of_rows(request: Mapping[str, Any] = CLASSIFY, **change: Any) -> dict[str, Any]:
    """`request` for a data set instead of texts."""
    return {**request, "predict_input": {"dataset": {**ROWS, **change}}}


_STRUCTURED = "application/cloudevents+json"

CASES: tuple[Case, ...] = (
    Case(what="not JSON", function="classify", body=b"{not json", status=400, where="$"),
    Case(what="no body", function="classify", body=b"", status=422, where="$"),
    Case(what="bytes that are no text", function="search", body=b"\xff\xfe\x00\x80", status=400, where="$"),
    _json("a JSON array", "classify", [CLASSIFY], 422, "$"),
    _json("a JSON string", "fill_mask", "INFN Frascati", 422, "$"),
    _json("no model", "classify", {"predict_input": {"input_text": ["x"]}}, 422, "model"),
    _json("no texts", "classify", {"model": {"name": "infn-structures"}}, 422, "predict_input"),
    _json("a misspelt field", "classify", {**CLASSIFY, "topk": 3}, 422, "topk"),
    _json("a misspelt field inside", "train", {**TRAIN, "model_train": {"epoch": 3}}, 422, "model_train.epoch"),
    _json("an empty list of texts", "classify", {**CLASSIFY, "predict_input": {"input_text": []}}, 422, "predict_input.input_text"),
    _json("a text instead of a list", "classify", {**CLASSIFY, "predict_input": {"input_text": "x"}}, 422, "predict_input.input_text"),
    _json("a number among the texts", "search", {**SEARCH, "search_input": {"input_text": ["x", 3]}}, 422, "search_input.input_text.1"),
    _json("null among the texts", "fill_mask", {**FILL, "predict_input": {"input_text": [None]}}, 422, "predict_input.input_text.0"),
    _json("top_k of 0", "search", {**SEARCH, "top_k": 0}, 422, "top_k"),
    _json("top_k that is no number", "fill_mask", {**FILL, "top_k": "many"}, 422, "top_k"),
    _json("both a path and a name", "classify", {**CLASSIFY, "model": {"name": "a", "path": "b"}}, 422, "model"),
    _json("an unknown storage", "classify", {**CLASSIFY, "model": {"path": "a", "storage_type": "ftp"}}, 422, "model.storage_type"),
    _json("a path that leaves the root", "classify", {**CLASSIFY, "model": {"path": "../../etc"}}, 422, "model.path"),
    _json("an absolute path", "search", {**SEARCH, "dataset": {"path": "/etc"}}, 422, "dataset.path"),
    _json("a path with a NUL", "train", {**TRAIN, "dataset": {"path": "a\u0000b"}}, 422, "dataset.path"),
    _json("a path that holds nothing", "classify", {**CLASSIFY, "model": {"path": "models/absent"}}, 404, "model.path"),
    _json("a file that is no model", "classify", {**CLASSIFY, "model": {"path": "checkpoints"}}, 422, "model.path"),
    _json("an unknown model", "classify", {**CLASSIFY, "model": {"name": "infn-structure"}}, 404, "model.name"),
    _json("an unknown alias", "fill_mask", {**FILL, "model": {"name": "physics-lm", "alias": "production"}}, 404, "model.alias"),
    _json("an unknown version", "classify", {**CLASSIFY, "model": {"name": "infn-structures", "revision": "9"}}, 404, "model.name"),
    _json("an unknown index", "search", {**SEARCH, "dataset": {"name": "abstract"}}, 404, "dataset.name"),
    _json("a model with another objective", "classify", {**CLASSIFY, "model": {"name": "physics-lm"}}, 422, "model.objective"),
    _json(
        "two texts and one pair",
        "classify",
        {**CLASSIFY, "predict_input": {"input_text": ["a", "b"], "text_pair": ["c"]}},
        422,
        "predict_input",
    ),
    _json("a classifier asked to fill masks", "fill_mask", {**FILL, "model": {"name": "infn-structures"}}, 422, "model.objective"),
    _json(
        "a text without a mask", "fill_mask", {**FILL, "predict_input": {"input_text": ["the boson"]}}, 422, "predict_input.input_text.0"
    ),
    _json("a classifier asked for entities", "ner", {**NER, "model": {"name": "infn-structures"}}, 422, "model.objective"),
    _json("a threshold of 2", "ner", {**NER, "score_threshold": 2}, 422, "score_threshold"),
    _json("a classifier asked to answer", "answer", {**ANSWER, "model": {"name": "infn-structures"}}, 422, "model.objective"),
    _json("a question without a text", "answer", {**ANSWER, "predict_input": {"question": ["where?"]}}, 422, "predict_input.context"),
    _json(
        "three questions and two texts",
        "answer",
        {**ANSWER, "predict_input": {"question": ["where?"] * 3, "context": ["here", "there"]}},
        422,
        "predict_input",
    ),
    _json(
        "a question longer than the model reads",
        "answer",
        {**ANSWER, "predict_input": {"question": ["where?", "where " * 99], "context": ["frascati"]}},
        422,
        "predict_input.question.1",
    ),
    _json("a classifier asked for vectors", "embed", {**EMBED, "model": {"name": "infn-structures"}}, 422, "model.objective"),
    _json("vectors of no text", "embed", {**EMBED, "predict_input": {"input_text": []}}, 422, "predict_input.input_text"),
    _json("a classifier asked to write", "generate", {**GENERATE, "model": {"name": "infn-structures"}}, 422, "model.objective"),
    _json("no token to write", "generate", {**GENERATE, "generate": {"max_new_tokens": 0}}, 422, "generate.max_new_tokens"),
    _json(
        "a text that fills the model's length",
        "generate",
        {**GENERATE, "predict_input": {"input_text": ["matter " * 99]}},
        422,
        "predict_input.input_text.0",
    ),
    _json("an index searched with another model", "search", {**SEARCH, "model": {"name": "infn-structures"}}, 422, "model"),
    _json(
        "an objective that does not exist",
        "train",
        {**TRAIN, "model": {"path": "checkpoints/tiny", "objective": "classification"}},
        422,
        "model.objective",
    ),
    _json(
        "pairs to train on without their second column",
        "train",
        {**TRAIN, "model": {"path": "checkpoints/tiny", "objective": "sentence-embedding"}},
        422,
        "dataset.pair_column",
    ),
    _json(
        "epochs for a model without a neural network",
        "train",
        {**TRAIN, "model": {"architecture": "tfidf-linear", "objective": "text-classification"}, "model_train": {"epochs": 3}},
        422,
        "model_train.epochs",
    ),
    _json("no objective", "train", {**TRAIN, "model": {"path": "checkpoints/tiny"}}, 422, "$"),
    _json(
        "a split of 1.5",
        "train",
        {**TRAIN, "dataset": {"path": "affiliations.tsv", "train_test_split": 1.5}},
        422,
        "dataset.train_test_split",
    ),
    _json(
        "a negative learning rate", "train", {**TRAIN, "model_train": {"optimizer": {"init_lr": -1}}}, 422, "model_train.optimizer.init_lr"
    ),
    _json(
        "a search of a setting that cannot be searched",
        "train",
        {**TRAIN, "search": {"parameters": {"model_train.sed": {"low": 1, "high": 9}}}},
        422,
        "search.parameters.model_train.sed",
    ),
    _json("a data set that is not there", "train", {**TRAIN, "dataset": {"path": "absent.csv"}}, 404, "dataset.path"),
    _json(
        "a data set on the hub",
        "train",
        {**TRAIN, "dataset": {"path": "org/name", "storage_type": "hugging_face_hub"}},
        422,
        "dataset.storage_type",
    ),
    _json("documents that are not there", "index", {**INDEX, "dataset": {"path": "absent.csv"}}, 404, "dataset.path"),
    _json("neither texts nor a data set", "classify", {**CLASSIFY, "predict_input": {}}, 422, "predict_input"),
    _json("texts and a data set", "search", {**SEARCH, "search_input": {"input_text": ["x"], "dataset": ROWS}}, 422, "search_input"),
    _json("texts with an output", "classify", {**CLASSIFY, "output": {"format": "jsonl"}}, 422, "$"),
    _json("a data set of texts that is not there", "classify", _of_rows(path="absent.csv"), 404, "predict_input.dataset.path"),
    _json("texts in a path that leaves the root", "fill_mask", _of_rows(FILL, path="../x.csv"), 422, "predict_input.dataset.path"),
    _json("texts on the hub", "classify", _of_rows(storage_type="hugging_face_hub"), 422, "predict_input.dataset.storage_type"),
    _json("a sha256 that is none", "classify", _of_rows(sha256="abc"), 422, "predict_input.dataset.sha256"),
    _json("a negative size", "index", {**INDEX, "dataset": {"path": "affiliations.tsv", "size": -1}}, 422, "dataset.size"),
    _json("an unknown model for a data set", "classify", {**_of_rows(), "model": {"name": "absent"}}, 404, "model.name"),
    _json("a data set for a model of another objective", "fill_mask", _of_rows(), 422, "model.objective"),
    _json("a data set for an unknown index", "search", {"dataset": {"name": "no"}, "search_input": {"dataset": ROWS}}, 404, "dataset.name"),
    _json("an unknown format of the output", "classify", {**_of_rows(), "output": {"format": "csv"}}, 422, "output.format"),
    _json("an output outside the root", "classify", {**_of_rows(), "output": {"path": "../out"}}, 422, "output.path"),
    _json("10 MB of text", "classify", {**CLASSIFY, "predict_input": {"input_text": ["x" * 10_000_000]}}, 413, "$"),
    _event("an event without an id", "classify", b"{}", "id", ce_id=""),
    _event("an event without a source", "classify", b"{}", "source", ce_source=""),
    _event("an event without a type", "classify", b"{}", "type", ce_type=""),
    _event("an event of CloudEvents 0.3", "classify", b"{}", "specversion", ce_specversion="0.3"),
    _event("a Kafka record that is no event", "classify", b"{}", "type", ce_type="dev.knative.kafka.event"),
    _event("an event that no function takes", "classify", b"{}", "type", ce_type="it.infn.mlaas.clasify.requested.v1"),
    _event(
        "a structured event that is no JSON",
        "classify",
        b"{",
        "specversion",
        Content_Type=_STRUCTURED,
        ce_id="",
        ce_type="",
        ce_source="",
        ce_specversion="",
    ),
    _event(
        "a structured event without a type",
        "train",
        b'{"specversion": "1.0", "id": "1", "source": "/s"}',
        "type",
        Content_Type=_STRUCTURED,
        ce_id="",
        ce_type="",
        ce_source="",
        ce_specversion="",
    ),
)
