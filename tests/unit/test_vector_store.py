"""Vector stores with real FAISS and SQLite."""

import datetime
import json
import sqlite3
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from mlaas import timing, vector_store
from mlaas.contracts import SearchRequest, parse
from mlaas.errors import InvalidRequest
from mlaas.storage import manifests
from mlaas.vector_store import Document, VectorStore

DIMENSION = 8
BUILT_BY = {"name": "minilm", "version": "3"}


def vector_of(text):
    """A text's vector, the same each time."""
    return np.random.default_rng(list(text.encode())).standard_normal(DIMENSION).astype(np.float32)


def embed(texts):
    return np.stack([vector_of(text) for text in texts])


def documents(count):
    return [Document(f"id-{row}", f"text {row}", {"row": row}) for row in range(count)]


def build(folder, docs, **options):
    given = {"model_digest": "a" * 64, "model": BUILT_BY, "provenance": {"task_id": "t1"}, **options}
    return vector_store.build(folder, docs, embed, **given)


@pytest.fixture
def folder(tmp_path):
    build(tmp_path / "store", documents(50), batch_size=16)
    return tmp_path / "store"


@pytest.fixture
def store(folder):
    opened = VectorStore.open(folder)
    yield opened
    opened.close()


def test_the_nearest_documents_come_first_with_their_l2_distance(store):
    query = vector_of("a question")
    (found,) = store.search(query[None], 50)
    expected = sorted((float(np.linalg.norm(vector_of(f"text {row}") - query)), f"id-{row}") for row in range(50))
    assert [one.id for one in found] == [name for _, name in expected]
    assert [one.score for one in found] == pytest.approx([score for score, _ in expected], rel=1e-5)


def test_a_document_comes_back_with_its_text_and_metadata(store):
    (found,) = store.search(embed(["text 7"]), 1)
    assert [one.model_dump(exclude_none=True) for one in found] == [{"id": "id-7", "score": 0.0, "text": "text 7", "metadata": {"row": 7}}]


def test_the_distance_to_itself_is_zero_however_many_texts_are_searched_at_once(tmp_path):
    """A FAISS that takes many queries by matrix product rounds, which shows for vectors far from the origin."""
    texts = [f"text {row}" for row in range(64)]
    vectors = dict(zip(texts, np.random.default_rng(0).standard_normal((64, 384)).astype(np.float32) + 3, strict=True))
    docs = [Document(text, text, {}) for text in texts]
    vector_store.build(
        tmp_path / "store", docs, lambda batch: np.stack([vectors[text] for text in batch]), model_digest="a", model={}, provenance={}
    )
    store = VectorStore.open(tmp_path / "store")
    results = store.search(np.stack(list(vectors.values())), 2)
    assert [(found[0].id, found[0].score) for found in results] == [(text, 0.0) for text in texts]
    store.close()


def test_asking_for_more_documents_than_there_are_gives_all_of_them(store):
    assert len(store.search(embed(["text 7"]), 1000)[0]) == 50


def test_documents_farther_than_the_threshold_are_left_out(store):
    query = embed(["text 7", "a question"])
    every = store.search(query, 50)
    limit = every[1][4].score
    near = store.search(query, 50, limit)
    assert near == [[one for one in found if one.score <= limit] for found in every]
    assert store.search(embed(["a question"]), 5, 0.0) == [[]]


def test_vectors_of_another_dimension_are_refused(store):
    with pytest.raises(InvalidRequest, match="8 dimensions") as caught:
        store.search(np.zeros((1, 9)), 1)
    assert caught.value.field == "model"


def test_many_threads_search_at_once(store):
    queries = embed([f"text {row}" for row in range(50)])
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda row: store.search(queries[row][None], 3)[0][0].id, list(range(50)) * 4))
    assert found == [f"id-{row}" for row in range(50)] * 4


def test_the_search_is_timed(store):
    with timing.record() as spans:
        store.search(embed(["text 7"]), 1)
    assert spans["search"] > 0


def test_the_manifest_says_what_was_built_from_what(tmp_path):
    built = build(tmp_path / "store", documents(3))
    store = VectorStore.open(tmp_path / "store")
    assert store.manifest == built
    assert (built.count, built.dimension, built.metric, built.model_digest) == (3, DIMENSION, "l2", "a" * 64)
    assert built.model == {**BUILT_BY, "digest": "a" * 64}
    assert built.provenance == {"task_id": "t1"}
    for name, facts in built.files.items():
        assert (tmp_path / "store" / name).stat().st_size == facts["size"]
    store.close()


def test_the_same_documents_give_the_same_digest_and_others_another(tmp_path):
    digests = [build(tmp_path / str(turn), docs).digest for turn, docs in enumerate([documents(3), documents(3), documents(4)])]
    assert digests[0] == digests[1] != digests[2]


def test_progress_hears_of_every_batch(tmp_path):
    heard = []
    build(tmp_path / "store", documents(10), batch_size=4, progress=heard.append)
    assert heard == [4, 8, 10]


def test_documents_are_not_kept_in_memory(tmp_path):
    def large():
        for row in range(400):
            yield Document(str(row), f"{row} " + "x" * 50_000, {})

    tracemalloc.start()
    vector_store.build(
        tmp_path / "store", large(), lambda texts: np.zeros((len(texts), 2)), model_digest="a", model={}, provenance={}, batch_size=8
    )
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5_000_000  # of 20 million characters


def test_metadata_that_json_cannot_hold_are_kept_as_text_or_null(tmp_path):
    metadata = {"day": datetime.date(2026, 1, 2), "ratio": float("nan"), "deep": [{"x": float("inf")}], "n": 3, "yes": True, "none": None}
    build(tmp_path / "store", [Document("1", "text", metadata)])
    store = VectorStore.open(tmp_path / "store")
    ((found,),) = store.search(embed(["text"]), 1)
    assert found.metadata == {"day": "2026-01-02", "ratio": None, "deep": [{"x": None}], "n": 3, "yes": True, "none": None}
    store.close()


@pytest.mark.parametrize("rows", [(0, 1), (0, 30)])
def test_an_id_that_occurs_twice_is_refused_and_leaves_no_store(tmp_path, rows):
    docs = documents(40)
    docs[rows[1]] = Document(docs[rows[0]].id, "another text", {})
    with pytest.raises(InvalidRequest, match="'id-0'") as caught:
        build(tmp_path / "store", docs, batch_size=16)
    assert caught.value.field == "dataset.loader_kwargs.id_column"
    with pytest.raises(InvalidRequest, match="not a vector store"):
        VectorStore.open(tmp_path / "store")


def test_no_documents_are_refused(tmp_path):
    with pytest.raises(InvalidRequest, match="no documents"):
        build(tmp_path / "store", [])


def test_a_store_is_built_into_an_empty_folder_only(folder):
    with pytest.raises(ValueError, match="empty folder"):
        build(folder, documents(1))


def test_a_build_that_is_interrupted_leaves_no_store(tmp_path):
    def interrupted():
        yield from documents(20)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "store", interrupted(), batch_size=4)
    with pytest.raises(InvalidRequest, match="its build did not end"):
        VectorStore.open(tmp_path / "store")


@pytest.mark.parametrize("answer", [np.zeros((1, 4)), np.full((2, 4), np.nan), np.zeros(2)])
def test_an_embedding_that_does_not_fit_its_documents_is_a_defect(tmp_path, answer):
    with pytest.raises(RuntimeError, match="2 documents"):
        vector_store.build(tmp_path / "store", documents(2), lambda texts: answer, model_digest="a", model={}, provenance={})


def test_another_model_than_the_one_that_built_the_store_is_refused(store):
    store.require_model("a" * 64)
    with pytest.raises(InvalidRequest, match="built by another model") as caught:
        store.require_model("b" * 64)
    assert "a" * 12 in caught.value.detail
    assert "b" * 12 in caught.value.detail
    assert "a" * 13 not in caught.value.detail
    assert "minilm" in caught.value.remedy


def refused(folder, match):
    with pytest.raises(InvalidRequest, match=match) as caught:
        VectorStore.open(folder)
    assert str(folder) not in caught.value.detail
    assert caught.value.remedy


def as_format_1(folder, **changes):
    """Turn the store into one as the first release wrote it."""
    database = sqlite3.connect(folder / "documents.sqlite", isolation_level=None)
    database.executescript("DROP TABLE words; DROP TABLE fields; VACUUM")
    database.close()
    content = json.loads((folder / "manifest.json").read_text())
    for name in content["files"]:
        content["files"][name] = {"size": (folder / name).stat().st_size, "sha256": manifests.sha256_of(folder / name)}
    kept = {name: content[name] for name in ("count", "dimension", "model", "provenance", "files", "metric")}
    digest = manifests.digest_of({name: facts["sha256"] for name, facts in content["files"].items()})
    (folder / "manifest.json").write_text(json.dumps({**kept, "digest": digest, "format_version": 1, **changes}))


def test_a_store_of_the_first_release_is_searched_and_says_what_it_cannot_do(folder):
    as_format_1(folder)
    store = VectorStore.open(folder)
    assert store.search(embed(["text 7"]), 1)[0][0].id == "id-7"
    for more in ({"filter": {"row": 7}}, {"hybrid": {}}):
        request = parse(SearchRequest, {"dataset": {"name": "a"}, "search_input": {"input_text": ["text 7"]}, **more})
        with pytest.raises(InvalidRequest, match="older release") as caught:
            store.answer(request, ["text 7"], embed(["text 7"]))
        assert caught.value.field == next(iter(more))
    store.close()


@pytest.mark.parametrize("name", ["index.faiss", "documents.sqlite"])
@pytest.mark.parametrize("change", ["cut", "lengthened", "removed"])
def test_a_file_of_another_size_than_the_manifest_says_is_refused(folder, name, change):
    path = folder / name
    content = path.read_bytes()
    if change == "removed":
        path.unlink()
    else:
        path.write_bytes(content[:-1] if change == "cut" else content + b"x")
    refused(folder, "another size")


def rewrite(folder, **changes):
    """The manifest with `changes`, and the sizes as the files are now."""
    content = json.loads((folder / "manifest.json").read_text())
    for name in content["files"]:
        content["files"][name]["size"] = (folder / name).stat().st_size
    (folder / "manifest.json").write_text(json.dumps({**content, **changes}))


@pytest.mark.parametrize("forged", ["count", "dimension", "length", "kind"])
def test_an_index_that_promises_other_vectors_than_it_holds_is_refused_before_faiss_reads_it(folder, forged, monkeypatch):
    import faiss

    monkeypatch.setattr(faiss, "read_index", lambda *_: pytest.fail("the file was read"))
    content = bytearray((folder / "index.faiss").read_bytes())
    place = {"kind": slice(0, 4), "dimension": slice(4, 8), "count": slice(8, 16), "length": slice(37, 45)}[forged]
    content[place] = b"\x7f" * (place.stop - place.start) if forged != "kind" else b"IwFl"
    (folder / "index.faiss").write_bytes(content)
    refused(folder, "index.faiss")


def test_an_index_whose_vectors_were_cut_is_refused_though_the_manifest_agrees_with_the_size(folder):
    content = (folder / "index.faiss").read_bytes()
    (folder / "index.faiss").write_bytes(content[:-4])
    rewrite(folder)
    refused(folder, "index.faiss is damaged")


def test_an_index_and_a_manifest_that_agree_on_more_vectors_than_there_are_are_refused(folder):
    content = bytearray((folder / "index.faiss").read_bytes())
    content[8:16] = (51).to_bytes(8, "little")
    (folder / "index.faiss").write_bytes(content)
    as_format_1(folder, count=51)
    refused(folder, "index.faiss is damaged")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"format_version": 3}, "version 3"),
        ({"digest": "0" * 64}, "damaged"),
        ({"files": {}}, "damaged"),
        ({"count": "50"}, "damaged"),
        ({"model": {}}, "damaged"),
        ({"surprise": 1}, "damaged"),
        ({"count": 49}, "damaged"),
        ({"segments": []}, "damaged"),
        ({"segments": [{"folder": "../other", "count": 50}]}, "damaged"),
        ({"segments": [{"folder": "", "count": 50, "index_type": "pickle"}]}, "damaged"),
        ({"segments": [{"folder": "", "count": 50, "parameters": {"ef_search": 1}}]}, "damaged"),
        ({"dimension": 9}, "index.faiss has another size"),
    ],
)
def test_a_manifest_that_does_not_hold_is_refused(folder, change, match):
    rewrite(folder, **change)
    refused(folder, match)


@pytest.mark.parametrize("text", ["", "not json", "[]", "null"])
def test_a_manifest_that_is_none_is_refused(folder, text):
    (folder / "manifest.json").write_text(text)
    refused(folder, "manifest.json")


def test_documents_that_are_fewer_than_the_vectors_are_refused(folder):
    database = sqlite3.connect(folder / "documents.sqlite")
    database.execute("DELETE FROM documents WHERE row = 49")
    database.commit()
    database.close()
    rewrite(folder)
    refused(folder, "does not hold the documents")


def test_documents_that_are_no_database_are_refused(folder):
    path = folder / "documents.sqlite"
    path.write_bytes(b"x" * path.stat().st_size)
    refused(folder, "does not hold the documents")


def test_a_store_is_opened_and_searched_without_writing_into_its_folder(folder):
    before = sorted((path.name, path.stat().st_mtime_ns) for path in folder.iterdir())
    store = VectorStore.open(folder)
    store.search(embed(["text 7"]), 3)
    store.close()
    assert sorted((path.name, path.stat().st_mtime_ns) for path in folder.iterdir()) == before


def test_the_documents_cannot_be_changed_through_an_open_store(store):
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        store.segments[0].connection().execute("DELETE FROM documents")


def test_a_folder_with_special_characters_in_its_name_is_opened(tmp_path):
    build(tmp_path / "a?b#c %41", documents(2))
    store = VectorStore.open(tmp_path / "a?b#c %41")
    assert store.search(embed(["text 1"]), 1)[0][0].id == "id-1"
    store.close()
