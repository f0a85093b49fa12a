"""How a text names a model or a vector store."""

from __future__ import annotations

from typing import Any

import pytest

from mlaas.client.names import model_ref, place, store_ref
from mlaas.contracts import ModelRef
from mlaas.errors import InvalidRequest


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("birds", {"name": "birds"}),
        ("birds@production", {"name": "birds", "alias": "production"}),
        ("birds:3", {"name": "birds", "revision": "3"}),
        ("local:models/birds", {"path": "models/birds", "storage_type": "local"}),
        ("s3:bucket/birds", {"path": "bucket/birds", "storage_type": "s3"}),
    ],
)
def test_a_model_and_an_index_are_named_alike(text: str, named: dict[str, Any]) -> None:
    assert model_ref(text).model_dump(exclude_none=True, exclude_unset=True) == named
    assert store_ref(text).model_dump(exclude_none=True, exclude_unset=True) == named


def test_a_model_of_the_hub_and_what_is_a_reference_already() -> None:
    assert model_ref("hub:org/repo").storage_type == "hugging_face_hub"
    asked = ModelRef(name="birds", variant="int8")
    assert model_ref(asked) is asked
    assert place("data/a.csv") == {"path": "data/a.csv", "storage_type": "local"}
    for text in ("", "Birds!", "@production"):
        with pytest.raises(InvalidRequest):
            model_ref(text)
