"""Exact, HNSW and IVF-PQ indexes: chosen by size, measured when they are built, memory-mapped, checked before FAISS reads them."""

import dataclasses

import numpy as np
import pytest

from mlaas import vector_store
from mlaas.errors import InvalidRequest
from mlaas.vector_store import Choice, Document, VectorStore, faiss_files, indexes

DIMENSION, COUNT = 16, 3000
VECTORS = np.random.default_rng(3).standard_normal((COUNT, DIMENSION)).astype(np.float32)
QUERIES = np.random.default_rng(4).standard_normal((200, DIMENSION)).astype(np.float32)
SQUARES = ((QUERIES[:, None] - VECTORS) ** 2).sum(axis=2)
TYPES = ("flat", "hnsw", "ivf_pq")


def build(folder, choice, count=COUNT):
    docs = [Document(str(row), f"text {row}", {"odd": row % 2 == 1, "row": row}) for row in range(count)]
    return vector_store.build(
        folder,
        docs,
        lambda texts: VECTORS[[int(text.split()[1]) for text in texts]],
        model_digest="a" * 64,
        model={},
        provenance={},
        choice=choice,
    )


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made = {}
    for name in TYPES:
        made[name] = tmp_path_factory.mktemp("stores") / name
        build(made[name], Choice(name))
    return made


@pytest.fixture(params=TYPES)
def opened(request, folders):
    store = VectorStore.open(folders[request.param])
    yield store
    store.close()


def test_an_index_finds_what_was_asked_for_and_its_scores_are_exact_distances(opened):
    assert opened.manifest.measured_recall >= 0.95
    hits = 0
    for found, squares in zip(opened.search(QUERIES, 10), SQUARES, strict=True):
        assert [one.score for one in found] == pytest.approx([np.sqrt(squares[int(one.id)]) for one in found], rel=1e-5)
        assert [one.score for one in found] == sorted(one.score for one in found)
        hits += len({int(one.id) for one in found} & set(np.argsort(squares)[:10].tolist()))
    assert hits / (10 * len(QUERIES)) >= 0.93  # queries that the index was not tuned with


def test_the_manifest_says_which_index_it_is_and_what_was_measured(opened):
    (segment,) = opened.manifest.segments
    assert opened.manifest.index_types == [segment.index_type]
    assert segment.queries == (0 if segment.index_type == "flat" else 256)
    assert opened.manifest.recall == 0.95


def test_every_document_is_found_when_all_are_asked_for(opened):
    (found,) = opened.search(QUERIES[:1], COUNT + 5)
    assert sorted(int(one.id) for one in found) == list(range(COUNT))
    assert [one.score for one in found] == sorted(one.score for one in found)


def test_an_open_index_is_a_mapped_file_and_not_a_copy(opened):
    with open("/proc/self/maps") as maps:
        mapped = maps.read()
    assert str(opened.segments[0].record.index_type) in mapped
    (segment,) = opened.manifest.segments
    for name in segment.files:
        assert name == "documents.sqlite" or f"{segment.index_type}/{name}" in mapped


@pytest.mark.parametrize(("rows", "expected"), [(1, "flat"), (20_000, "flat"), (20_001, "hnsw"), (200_000, "hnsw"), (200_001, "ivf_pq")])
def test_the_type_follows_from_the_size(rows, expected):
    assert Choice().for_rows(rows) == expected


def test_few_documents_are_searched_exactly_whatever_is_asked_for(tmp_path):
    assert build(tmp_path / "store", Choice("ivf_pq"), count=999).index_types == ["flat"]
    assert build(tmp_path / "other", Choice("ivf_pq"), count=1000).index_types == ["ivf_pq"]


def test_more_recall_is_had_by_more_effort(folders, tmp_path):
    built = build(tmp_path / "store", Choice("ivf_pq", recall=1.0))
    assert built.measured_recall == 1.0
    before = VectorStore.open(folders["ivf_pq"])
    assert built.segments[0].parameters["probes"] > before.manifest.segments[0].parameters["probes"]
    before.close()


def test_the_recall_is_measured_with_queries_that_are_no_members(tmp_path, folders):
    queries, nearest = indexes._sample(folders["flat"] / "index.faiss", COUNT, DIMENSION)
    squares = ((queries[:, None].astype(np.float64) - VECTORS) ** 2).sum(axis=2)
    assert (squares.min(axis=1) > 0.01).all()  # members are found more surely than what people ask for
    assert nearest == pytest.approx(np.sort(squares, axis=1)[:, :10], rel=1e-4, abs=1e-4)


def test_the_effort_is_the_least_that_reaches_the_recall_by_more_than_its_standard_error(folders, monkeypatch):
    parts = {16: 0.94, 24: 0.951, 32: 0.97, 40: 0.99}  # of 10 found in 256 queries: their standard error is over 0.004

    class Told:
        def __init__(self, index, vectors, parameters):
            self.part = parts[parameters["ef_search"]]

        def search(self, queries, k, allowed):
            draw = np.random.default_rng(0)
            return np.where(draw.random((len(queries), k)) < self.part, 0, np.inf), None

    told = dataclasses.replace(indexes.INDEX_TYPES["hnsw"], search=Told, efforts=lambda count: ({"ef_search": ef} for ef in parts))
    monkeypatch.setattr(indexes, "INDEX_TYPES", {**indexes.INDEX_TYPES, "hnsw": told})
    queries, nearest = indexes._sample(folders["flat"] / "index.faiss", COUNT, DIMENSION)
    made = indexes._tuned(folders["hnsw"], "hnsw", queries, nearest, 0.95, COUNT)
    assert made.parameters == {"ef_search": 32}


@pytest.fixture
def weak(monkeypatch):
    """Graphs that are searched too little to find much."""
    kind = indexes.INDEX_TYPES["hnsw"]

    class Blind(indexes.hnsw.Graph):
        def search(self, queries, k, allowed):
            squares, rows = super().search(queries, k, allowed)
            squares[:, k // 2 :] = np.inf
            return squares, rows

    monkeypatch.setattr(
        indexes,
        "INDEX_TYPES",
        {**indexes.INDEX_TYPES, "hnsw": dataclasses.replace(kind, search=Blind, efforts=lambda count: iter([{"ef_search": 64}]))},
    )
    monkeypatch.setattr(indexes, "FLAT_ROWS", 1000)


def test_a_type_that_was_asked_for_and_misses_the_recall_is_refused_with_the_figure(tmp_path, weak):
    with pytest.raises(InvalidRequest, match=r"finds 0\.500 of the nearest 10") as caught:
        build(tmp_path / "store", Choice("hnsw"))
    assert caught.value.field == "index_type"


def test_an_index_that_nobody_asked_for_and_misses_the_recall_gives_way_to_an_exact_one(tmp_path, weak):
    assert build(tmp_path / "store", Choice()).index_types == ["flat"]
    store = VectorStore.open(tmp_path / "store")
    assert int(store.search(QUERIES[:1], 1)[0][0].id) == SQUARES[0].argmin()
    store.close()


def test_documents_that_are_alike_count_as_found(tmp_path):
    same = VECTORS[:3].repeat(1000, axis=0)
    docs = [Document(str(row), str(row), {}) for row in range(len(same))]
    built = vector_store.build(
        tmp_path / "store",
        docs,
        lambda texts: same[[int(text) for text in texts]],
        model_digest="a",
        model={},
        provenance={},
        choice=Choice("hnsw"),
    )
    assert built.measured_recall == 1.0


@pytest.mark.parametrize("kind", TYPES)
def test_no_header_that_was_tampered_with_reaches_faiss(kind, folders, tmp_path, monkeypatch):
    """Every byte of the structure, one after another, made large: FAISS is asked only if the file is still what it must be."""
    import faiss

    content = (folders[kind] / "index.faiss").read_bytes()
    monkeypatch.setattr(faiss, "read_index", lambda *_: "read")
    forged, refused = tmp_path / "index.faiss", 0
    places = [*range(45), *structure(kind, len(content))]
    for place in places:
        changed = bytearray(content)
        changed[place] ^= 0x7F
        forged.write_bytes(changed)
        try:
            assert faiss_files.open_index(forged, kind, COUNT, DIMENSION) == "read"
        except InvalidRequest:
            refused += 1
    assert refused > len(places) // 2
    for size in (0, 10, 44, len(content) // 2, len(content) - 1):
        forged.write_bytes(content[:size])
        with pytest.raises(InvalidRequest):
            faiss_files.open_index(forged, kind, COUNT, DIMENSION)
    forged.write_bytes(content + b"\0")
    with pytest.raises(InvalidRequest):
        faiss_files.open_index(forged, kind, COUNT, DIMENSION)


def structure(kind, size):
    """Where lengths are, beside the first header."""
    if kind == "ivf_pq":
        centroids = 53 + 45 + 4 * DIMENSION * indexes.ivf_pq.cells_of(COUNT)
        return [*range(53, 98), *range(centroids, centroids + 50)]
    if kind == "hnsw":
        vectors = size - 4 * COUNT * DIMENSION - 45
        return [*range(vectors - 12, vectors - 20, -1), *range(vectors, vectors + 45)]
    return []
