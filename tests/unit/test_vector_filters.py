"""Filters on metadata, against the same tests written in Python."""

import numpy as np
import pytest

from mlaas import vector_store
from mlaas.contracts import SearchRequest, parse
from mlaas.errors import InvalidRequest
from mlaas.vector_store import Choice, Document, VectorStore

DIMENSION, COUNT = 8, 1500
RANDOM = np.random.default_rng(0)
VECTORS = RANDOM.standard_normal((COUNT, DIMENSION)).astype(np.float32)
METADATA = [
    {
        "year": int(year),
        "as_text": str(year),
        "field": ["hep-ph", "hep-ex", "astro-ph"][number % 3],
        "keywords": [f"k{number % 5}", f"k{number % 7}"],
        "open": number % 4 == 0,
        "place": {"town": "Frascati" if number % 10 == 0 else "Bologna"},
        "score": number / 10,
        **({"note": "x" * 300 + str(number)} if number % 6 == 0 else {"nothing": None}),
    }
    for number, year in enumerate(RANDOM.integers(1990, 2026, COUNT))
]


@pytest.fixture(scope="module", params=["flat", "hnsw", "ivf_pq"])
def store(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("filters") / "store"
    docs = [Document(str(row), f"text {row}", metadata) for row, metadata in enumerate(METADATA)]
    vector_store.build(
        folder,
        docs,
        lambda texts: VECTORS[[int(text.split()[1]) for text in texts]],
        model_digest="a",
        model={},
        provenance={},
        choice=Choice(request.param),
    )
    opened = VectorStore.open(folder)
    yield opened
    opened.close()


def asked(**fields):
    return parse(SearchRequest, {"dataset": {"name": "a"}, "search_input": {"input_text": ["q"]}, "top_k": 10, **fields})


CASES = {
    "a text": ({"field": "hep-ph"}, lambda m: m["field"] == "hep-ph"),
    "a number": ({"year": 2001}, lambda m: m["year"] == 2001),
    "a number as it comes from CSV": ({"as_text": 2001}, lambda m: m["as_text"] == "2001"),
    "its text": ({"as_text": "2001"}, lambda m: m["as_text"] == "2001"),
    "a truth": ({"open": True}, lambda m: m["open"]),
    "one of": ({"field": ["hep-ph", "hep-ex"]}, lambda m: m["field"] in ("hep-ph", "hep-ex")),
    "none of": ({"field": {"none_of": ["hep-ph"]}}, lambda m: m["field"] != "hep-ph"),
    "an item of a list": ({"keywords": "k3"}, lambda m: "k3" in m["keywords"]),
    "no item of a list": ({"keywords": {"none_of": ["k3"]}}, lambda m: "k3" not in m["keywords"]),
    "a range": ({"year": {"gte": 2000, "lt": 2010}}, lambda m: 2000 <= m["year"] < 2010),
    "a range of numbers from CSV": ({"as_text": {"gt": 2000, "lte": 2010}}, lambda m: 2000 < int(m["as_text"]) <= 2010),
    "a range of texts": ({"field": {"gte": "hep"}}, lambda m: m["field"] >= "hep"),
    "a fraction": ({"score": {"lt": 12.5}}, lambda m: m["score"] < 12.5),
    "a nested field": ({"place.town": "Frascati"}, lambda m: m["place"]["town"] == "Frascati"),
    "what is there": ({"note": {"exists": True}}, lambda m: "note" in m),
    "what is not there": ({"note": {"exists": False}}, lambda m: "note" not in m),
    "null, which is not there": ({"nothing": {"exists": True}}, lambda m: False),
    "several at once": (
        {"field": "hep-ex", "open": True, "year": {"gte": 2000}},
        lambda m: m["field"] == "hep-ex" and m["open"] and m["year"] >= 2000,
    ),
    "a field that no document has": ({"absent": 1}, lambda m: False),
    "numbers only, where texts are larger": ({"field": {"gt": 0}}, lambda m: False),
    "a quote": ({"field": "x' OR '1'='1"}, lambda m: False),
}


@pytest.mark.parametrize("name", CASES)
def test_a_filter_leaves_the_nearest_of_what_it_lets_through(store, name):
    condition, test = CASES[name]
    queries = np.random.default_rng(1).standard_normal((3, DIMENSION)).astype(np.float32)
    passing = [row for row in range(COUNT) if test(METADATA[row])]
    for found, query in zip(store.answer(asked(filter=condition), ["q"] * 3, queries), queries, strict=True):
        expected = sorted(passing, key=lambda row: float(((VECTORS[row] - query) ** 2).sum()))[:10]
        assert [int(one.id) for one in found] == expected


def test_an_index_is_searched_with_a_filter_as_well_as_rows_one_by_one(store, monkeypatch):
    """Past a number of rows the index itself gets the filter."""
    monkeypatch.setattr(vector_store.segment, "_SCANNED_ROWS", 10)
    queries = VECTORS[:50] + 0.1
    hits = 0
    for found, query in zip(store.answer(asked(filter={"keywords": "k3"}), ["q"] * 50, queries), queries, strict=True):
        assert all("k3" in one.metadata["keywords"] for one in found)
        passing = [row for row in range(COUNT) if "k3" in METADATA[row]["keywords"]]
        hits += len({int(one.id) for one in found} & set(sorted(passing, key=lambda row: float(((VECTORS[row] - query) ** 2).sum()))[:10]))
    assert hits >= 0.9 * 500


@pytest.mark.parametrize("store", ["flat"], indirect=True)
def test_an_exact_index_leaves_rows_out_without_a_copy_of_its_vectors(store, monkeypatch):
    """Copying those that a filter lets through takes ten times as long as the search."""
    monkeypatch.setattr(vector_store.segment, "nearest_of", None)
    assert len(store.answer(asked(filter={"open": True}), ["q"], VECTORS[:1])[0]) == 10


@pytest.mark.parametrize(
    ("filter", "field"),
    [
        ({}, "filter"),
        ({"year": {}}, "filter.year"),
        ({"year": {"gte": 2000, "lt": "x"}}, "filter.year"),
        ({"year": []}, "filter.year"),
        ({"year": None}, "filter.year"),
        ({"year": {"near": 3}}, "filter.year"),
        ({"note": "x" * 256}, "filter.note"),
    ],
)
def test_a_filter_that_means_nothing_is_refused(filter, field):
    with pytest.raises(InvalidRequest) as caught:
        asked(filter=filter)
    assert caught.value.field.startswith(field)
    assert caught.value.remedy
