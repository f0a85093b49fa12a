"""Hybrid search: words and vectors, fused by their ranks."""

import numpy as np
import pytest

from mlaas import vector_store
from mlaas.contracts import SearchRequest, parse
from mlaas.vector_store import Document, VectorStore

TEXTS = {
    "higgs": "the higgs boson was found at the large hadron collider",
    "neutrino": "oscillations show that neutrinos have mass",
    "dark": "dark matter interacts through gravity",
    "code": "detector XENON1T sets a limit",
    "accent": "l'università di Padova misura i neutrini",
    **{f"other-{number}": f"the measurement of something number{number}" for number in range(20)},
}
VECTORS = {key: np.eye(len(TEXTS), dtype=np.float32)[number] for number, key in enumerate(TEXTS)}
KEYS = {text: key for key, text in TEXTS.items()}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hybrid") / "store"
    docs = [Document(key, text, {"long": len(text) > 40}) for key, text in TEXTS.items()]
    embed = lambda texts: np.stack([VECTORS[KEYS[text]] for text in texts])  # noqa: E731
    vector_store.build(folder, docs, embed, model_digest="a", model={}, provenance={})
    opened = VectorStore.open(folder)
    yield opened
    opened.close()


def found(store, text, near, **fields):
    """The documents for `text`, whose embedding is that of the document `near`."""
    request = parse(SearchRequest, {"dataset": {"name": "a"}, "search_input": {"input_text": [text]}, "top_k": 3, "hybrid": {}, **fields})
    (results,) = store.answer(request, [text], VECTORS[near][None])
    return results


def test_a_word_that_the_vectors_miss_is_found(store):
    results = found(store, "XENON1T", near="dark")
    assert {one.id for one in results[:2]} == {"dark", "code"}
    assert results[0].fusion_score == results[1].fusion_score == pytest.approx(1 / 61) or results[0].fusion_score > results[1].fusion_score


def test_the_order_is_the_fusions_and_the_score_stays_the_distance(store):
    results = found(store, "gravity", near="dark")
    assert results[0].id == "dark"
    assert results[0].score == 0.0
    assert results[0].fusion_score == pytest.approx(2 / 61)
    fusion = [one.fusion_score for one in results]
    assert fusion == sorted(fusion, reverse=True)
    code = next(one for one in found(store, "XENON1T", near="dark") if one.id == "code")
    assert code.score == pytest.approx(2**0.5)


def test_the_weight_of_words_decides(store):
    assert found(store, "XENON1T", near="dark", hybrid={"lexical_weight": 5, "candidates": 1})[0].id == "code"
    assert found(store, "XENON1T", near="dark", hybrid={"lexical_weight": 0.1, "candidates": 1})[0].id == "dark"


def test_case_and_accents_do_not_matter(store):
    assert found(store, "UNIVERSITA", near="dark", hybrid={"lexical_weight": 5})[0].id == "accent"


@pytest.mark.parametrize("text", ['" OR "', "AND NOT NEAR(", "*", "", "text:x", "it's", "日本語", "a_b __"])
def test_no_text_is_taken_for_the_syntax_of_a_query(store, text):
    assert found(store, text, near="dark", hybrid={"candidates": 1})[0].id == "dark"


def test_words_that_most_documents_have_do_not_count_beside_others(store):
    results = found(store, "the measurement of the gravity", near="higgs", hybrid={"lexical_weight": 5})
    assert results[0].id == "dark"


def test_a_filter_and_a_threshold_hold_for_what_words_find_too(store):
    assert all(one.metadata["long"] for one in found(store, "gravity XENON1T higgs", near="higgs", filter={"long": True}))
    assert [one.id for one in found(store, "XENON1T", near="dark", score_threshold=1.0)] == ["dark"]


def test_without_hybrid_words_play_no_part_and_there_is_no_fusion_score(store):
    results = found(store, "XENON1T", near="dark", hybrid=None)
    assert results[0].id == "dark"
    assert [one.fusion_score for one in results] == [None] * 3
