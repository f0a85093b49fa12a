"""The contract: exact names, unknown fields refused with the nearest known one."""

from __future__ import annotations

from typing import Any

import pytest

from mlaas.contracts import ClassifyRequest, IndexRequest, SearchRequest, TrainRequest, parse
from mlaas.errors import InvalidRequest

CLASSIFY: dict[str, Any] = {
    "model": {"path": "models/m", "storage_type": "s3", "objective": "text-classification"},
    "predict_input": {"input_text": ["x"]},
}
TRAIN: dict[str, Any] = {
    "tokenizer": {"path": "t", "storage_type": "hugging_face_hub"},
    "model": {"path": "m", "storage_type": "hugging_face_hub", "objective": "masked-lm"},
    "model_train": {
        "epochs": 2,
        "batch_size": 8,
        "optimizer": {"name": "adamw", "init_lr": 1e-4, "num_warm_steps": 10, "weight_decay_rate": 0.01},
    },
    "dataset": {"path": "d.csv", "storage_type": "s3", "train_test_split": 0.2},
    "model_save": {"path": "out", "storage_type": "s3"},
}
INDEX: dict[str, Any] = {
    "model": {"path": "m", "objective": "no-objective"},
    "dataset": {"path": "d.csv", "storage_type": "local", "loader_kwargs": {"page_content_column": "abstract"}},
    "vector_store_save": {"path": "i", "format": "vector_store", "storage_type": "local"},
}
SEARCH: dict[str, Any] = {"dataset": {"path": "i", "format": "vector_store", "storage_type": "s3"}, "search_input": {"input_text": ["x"]}}


@pytest.mark.parametrize(
    ("contract", "data"), [(ClassifyRequest, CLASSIFY), (TrainRequest, TRAIN), (IndexRequest, INDEX), (SearchRequest, SEARCH)]
)
def test_the_published_field_names_are_understood_and_kept(contract: Any, data: dict[str, Any]) -> None:
    assert parse(contract, data).model_dump(exclude_unset=True) == data


@pytest.mark.parametrize(
    ("contract", "data", "field", "near"),
    [
        (ClassifyRequest, CLASSIFY | {"predict_inputs": {}}, "predict_inputs", "predict_input"),
        (ClassifyRequest, CLASSIFY | {"model": {"path": "m", "storage": "s3"}}, "model.storage", "storage_type"),
        (TrainRequest, TRAIN | {"model_train": {"optimiser": {}}}, "model_train.optimiser", "optimizer"),
        (TrainRequest, TRAIN | {"model_train": {"optimizer": {"lr": 1}}}, "model_train.optimizer.lr", "init_lr"),
        (
            TrainRequest,
            TRAIN | {"index_after": [{"dataset": {"path": "d"}, "vector_store_save": {"pathh": "i"}}]},
            "index_after.0.vector_store_save.pathh",
            "path",
        ),
        (IndexRequest, INDEX | {"dataset": {"path": "d", "loader_kwarg": {}}}, "dataset.loader_kwarg", "loader_kwargs"),
    ],
)
def test_an_unknown_field_is_refused_with_the_nearest_known_name(contract: Any, data: dict[str, Any], field: str, near: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse(contract, data)
    assert caught.value.field == field
    assert caught.value.remedy == f"Did you mean `{near}`?"


def test_an_unknown_field_far_from_all_is_refused_with_the_list() -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse(ClassifyRequest, CLASSIFY | {"zzzzzz": 1})
    assert caught.value.remedy == "Known fields here: tokenizer, model, predict_input, top_k, score_threshold, output."


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"model": {}}, "model"),
        ({"model": {"path": "a", "name": "b"}}, "model"),
        ({"model": {"path": ""}}, "model.path"),
        ({"model": {"name": "Bad Name"}}, "model.name"),
        ({"predict_input": {"input_text": []}}, "predict_input.input_text"),
        ({"predict_input": {"input_text": "x"}}, "predict_input.input_text"),
        ({"predict_input": {"input_text": [1]}}, "predict_input.input_text.0"),
        ({"predict_input": {"input_text": ["x" * 100_001]}}, "predict_input.input_text.0"),
        ({"top_k": 0}, "top_k"),
        ({"model": None}, "model"),
    ],
)
def test_a_wrong_value_names_its_field(change: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse(ClassifyRequest, CLASSIFY | change)
    assert caught.value.field == field
    assert caught.value.remedy


@pytest.mark.parametrize("data", [None, [], "x", 3])
def test_data_that_is_no_object_is_refused_with_the_fields_it_needs(data: object) -> None:
    with pytest.raises(InvalidRequest, match="JSON object") as caught:
        parse(ClassifyRequest, data)
    assert "predict_input" in caught.value.remedy


@pytest.mark.parametrize("objective", [None, "no-objective"])
def test_a_training_says_what_it_trains_for(objective: str | None) -> None:
    with pytest.raises(InvalidRequest, match="objective"):
        parse(TrainRequest, TRAIN | {"model": {"path": "m", "objective": objective}})


def test_a_refusal_repeats_nothing_of_the_input() -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse(ClassifyRequest, CLASSIFY | {"top_k": "a private text"})
    assert "private" not in caught.value.detail + caught.value.remedy
