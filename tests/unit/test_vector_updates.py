"""Updates of a store by id, against a model of it that is a plain dictionary."""

import json
import random

import numpy as np
import pytest

from mlaas import vector_store
from mlaas.errors import InvalidRequest
from mlaas.storage import manifests
from mlaas.vector_store import Changes, Choice, Document, VectorStore, compaction

DIMENSION = 8


def vector_of(text):
    return np.random.default_rng(list(text.encode())).standard_normal(DIMENSION).astype(np.float32)


class Embedding:
    """Embeds, and remembers what it was asked for."""

    def __init__(self):
        self.texts = []

    def __call__(self, texts):
        self.texts.extend(texts)
        return np.stack([vector_of(text) for text in texts])


def documents(texts):
    return [Document(key, text, {"length": len(text)}) for key, text in texts.items()]


def build(folder, texts):
    return vector_store.build(folder, documents(texts), Embedding(), model_digest="a", model={"name": "m"}, provenance={})


def update(base, folder, texts=None, deleted=(), embed=None, **options):
    changes = Changes(documents=lambda: iter(documents(texts or {})), deleted=deleted, compact=options.pop("compact", False))
    given = {"model_digest": "a", "model": {"name": "m"}, "provenance": {}, "choice": Choice(), **options}
    return vector_store.update(base, folder, changes, embed or Embedding(), **given)


def check(folder, texts):
    """That the store holds exactly `texts`, finds each by its vector, and gives exact distances."""
    store = VectorStore.open(folder)
    assert store.manifest.count == len(texts)
    (found,) = store.search(vector_of("a question")[None], len(texts) + 10)
    assert {one.id: one.text for one in found} == texts
    distances = {key: float(np.linalg.norm(vector_of(text) - vector_of("a question"))) for key, text in texts.items()}
    assert [one.score for one in found] == pytest.approx(sorted(distances.values()), rel=1e-5)
    assert all(one.metadata == {"length": len(one.text)} for one in found)
    store.close()


BASE = {f"id-{row}": f"text {row}" for row in range(60)}


@pytest.fixture
def base(tmp_path):
    build(tmp_path / "base", BASE)
    return tmp_path / "base"


def test_documents_are_added_replaced_and_removed_and_only_new_texts_are_embedded(base, tmp_path):
    embed = Embedding()
    update(base, tmp_path / "new", {"id-3": "another text", "id-4": "text 4", "id-60": "one more"}, ["id-5", "absent"], embed)
    expected = {**BASE, "id-3": "another text", "id-60": "one more"}
    del expected["id-5"]
    check(tmp_path / "new", expected)
    assert embed.texts == ["another text", "one more"]
    check(base, BASE)


def test_a_document_whose_metadata_alone_change_keeps_its_vector(base, tmp_path):
    embed = Embedding()
    changes = Changes(documents=lambda: iter([Document("id-3", "text 3", {"new": 1})]))
    vector_store.update(base, tmp_path / "new", changes, embed, model_digest="a", model={}, provenance={}, choice=Choice())
    assert embed.texts == []
    store = VectorStore.open(tmp_path / "new")
    ((found,),) = store.search(vector_of("text 3")[None], 1)
    assert (found.id, found.metadata, found.score) == ("id-3", {"new": 1}, 0.0)
    store.close()


def test_what_does_not_change_is_shared_and_not_copied(base, tmp_path):
    update(base, tmp_path / "new", {"id-60": "one more"}, ["id-5"])
    for name in ("index.faiss", "documents.sqlite"):
        assert (base / name).stat().st_ino == (tmp_path / "new" / name).stat().st_ino
    store = VectorStore.open(tmp_path / "new")
    assert [(one.folder == "", one.count, one.deleted) for one in store.manifest.segments] == [(True, 60, 1), (False, 1, 0)]
    store.close()


@pytest.mark.parametrize("texts", [{}, {"id-3": "text 3"}])
def test_an_update_that_changes_nothing_makes_no_store(base, tmp_path, texts):
    assert update(base, tmp_path / "new", texts, ["absent"]) is None


def test_the_same_update_again_changes_nothing(base, tmp_path):
    update(base, tmp_path / "new", {"id-3": "another text"}, ["id-5"])
    assert update(tmp_path / "new", tmp_path / "again", {"id-3": "another text"}, ["id-5"]) is None


def test_a_document_that_is_removed_and_given_at_once_is_there(base, tmp_path):
    update(base, tmp_path / "new", {"id-5": "given"}, ["id-5"])
    check(tmp_path / "new", {**BASE, "id-5": "given"})


def test_an_id_that_occurs_twice_in_an_update_is_refused(base, tmp_path):
    changes = Changes(documents=lambda: iter([Document("id-3", "text 3", {"length": 6}), Document("id-3", "other", {})]))
    with pytest.raises(InvalidRequest, match="'id-3'"):
        vector_store.update(base, tmp_path / "new", changes, Embedding(), model_digest="a", model={}, provenance={}, choice=Choice())
    assert not (tmp_path / "new" / "manifest.json").exists()


def test_an_update_that_leaves_no_document_is_refused(base, tmp_path):
    with pytest.raises(InvalidRequest, match="no document"):
        update(base, tmp_path / "new", deleted=list(BASE))


def test_many_updates_at_random_agree_with_a_dictionary(base, tmp_path):
    chance, expected, folder = random.Random(7), dict(BASE), base
    segments = []
    for turn in range(25):
        changed = {f"id-{chance.randrange(90)}": f"text {chance.randrange(1000)}" for _ in range(chance.randrange(8))}
        deleted = [f"id-{chance.randrange(90)}" for _ in range(chance.randrange(5))]
        target = tmp_path / f"turn-{turn}"
        if update(folder, target, changed, deleted) is not None:
            folder = target
        expected = {key: text for key, text in expected.items() if key not in deleted or key in changed} | changed
        check(folder, expected)
        segments.append(len(json.loads((folder / "manifest.json").read_text())["segments"]))
    assert max(segments) == compaction.SEGMENTS_AT_MOST  # many segments were made, and merged again
    assert min(segments[8:]) < compaction.SEGMENTS_AT_MOST


def test_no_file_of_a_store_is_left_out_of_its_manifest(base, tmp_path):
    folder = base
    for turn in range(12):
        update(folder, tmp_path / str(turn), {f"new-{turn}": f"new text {turn}"}, [f"id-{turn}"])
        folder = tmp_path / str(turn)
        present = set(manifests.files_of(folder)) - {"manifest.json"}
        records = manifests.manifest_files(folder)
        assert present == set(records)
        manifests.check_hashes(folder, records)


def test_compaction_leaves_one_segment_without_the_dead_and_embeds_nothing(base, tmp_path):
    update(base, tmp_path / "new", {"id-60": "one more"}, ["id-5"])
    embed = Embedding()
    built = update(tmp_path / "new", tmp_path / "compact", embed=embed, compact=True)
    assert [(one.count, one.deleted) for one in built.segments] == [(60, 0)]
    assert embed.texts == []
    check(tmp_path / "compact", {key: text for key, text in {**BASE, "id-60": "one more"}.items() if key != "id-5"})
    assert update(tmp_path / "compact", tmp_path / "again", compact=True) is None


def test_a_store_whose_dead_are_many_is_compacted_by_itself(base, tmp_path):
    built = update(base, tmp_path / "new", deleted=[f"id-{row}" for row in range(21)])
    assert [(one.count, one.deleted) for one in built.segments] == [(39, 0)]


def test_another_model_embeds_everything_again_with_the_changes(base, tmp_path):
    embed = Embedding()
    update(base, tmp_path / "new", {"id-3": "another text"}, ["id-5"], embed, model_digest="b")
    expected = {**BASE, "id-3": "another text"}
    del expected["id-5"]
    check(tmp_path / "new", expected)
    assert sorted(embed.texts) == sorted(expected.values())


@pytest.mark.parametrize("change", ["cut", "beyond", "twice"])
def test_marks_of_deleted_rows_that_are_not_sound_are_refused(base, tmp_path, change):
    update(base, tmp_path / "new", deleted=["id-5", "id-7"])
    path = tmp_path / "new" / "deleted.rows"
    assert np.fromfile(path, dtype="<u4").tolist() == [5, 7]
    content = {"cut": [5], "beyond": [5, 60], "twice": [5, 5]}[change]
    np.array(content, dtype="<u4").tofile(path)
    with pytest.raises(InvalidRequest, match=r"deleted\.rows"):
        VectorStore.open(tmp_path / "new")


@pytest.mark.parametrize(
    ("live", "dead", "expected"),
    [([100] * 8, 0, []), ([1000, *[10] * 8], 0, [10] * 8), ([100] * 9, 0, [100] * 9), ([100, 1], 60, [100, 1])],
)
def test_small_segments_are_merged_when_there_are_many_and_all_when_it_pays(live, dead, expected):
    segments = [
        vector_store.SegmentRecord(folder=str(number), count=count + (dead if number == 0 else 0), deleted=dead if number == 0 else 0)
        for number, count in enumerate(live)
    ]
    assert [one.live for one in compaction.merged_in(segments)] == expected
