"""Data sets of many files: shards, patterns, and the folders that Hugging Face's `datasets` saves.

`saved_by_datasets` was written by datasets 5.2: `splits` by `DatasetDict.save_to_disk` (train in two files, and test), with
class labels, and `tags` by `Dataset.save_to_disk`, with lists of them.
"""

import json
import shutil
from pathlib import Path

import pyarrow
import pytest
from pyarrow import ipc, parquet

from mlaas import datasets, references
from mlaas.contracts import DatasetRef, TrainDataset, parse
from mlaas.dataset_files import files, members, of_split
from mlaas.errors import InvalidRequest, NotFound
from mlaas.settings import Settings
from mlaas.training.squad import read_questions
from mlaas.training.tagged import read_sentences

SAVED = Path(__file__).parent / "saved_by_datasets"
CLASSES = ["[NoSite]", "PI", "RM1"]
TRAIN = [{"text": f"INFN, row {number}", "label": CLASSES[number % 3]} for number in range(11)]


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def shards(folder: Path, count: int) -> None:
    for number in range(count):
        write(folder / f"part-{number}.csv", f"text,label\nrow {number},x\n")


def texts(place: Path) -> list[str]:
    return [row["text"] for row in datasets.read(place, ["text"])]


def refused(place: Path, match: str) -> InvalidRequest:
    with pytest.raises(InvalidRequest, match=match) as caught:
        texts(place)
    assert str(place.parent) not in caught.value.detail + caught.value.remedy
    assert caught.value.field == "dataset.path"
    return caught.value


def test_a_pattern_names_files_in_their_natural_order(tmp_path: Path) -> None:
    shards(tmp_path / "a", 12)
    write(tmp_path / "a" / "other.csv", "text\nno\n")
    write(tmp_path / "a" / ".part-0.csv", "text\nno\n")
    write(tmp_path / "a" / "deeper" / "part-0.csv", "text\nno\n")
    assert texts(tmp_path / "a" / "part-*.csv") == [f"row {number}" for number in range(12)]
    assert texts(tmp_path / "a" / "part-?.csv") == [f"row {number}" for number in range(10)]
    assert texts(tmp_path / "a" / "part-[13].csv") == ["row 1", "row 3"]


def test_a_pattern_names_files_of_many_folders(tmp_path: Path) -> None:
    for year in (2009, 2010, 2100):
        write(tmp_path / f"year={year}" / "part.csv", f"text\n{year}\n")
    write(tmp_path / "part.csv", "text\ntop\n")
    assert texts(tmp_path / "year=20*" / "part.csv") == ["2009", "2010"]
    assert texts(tmp_path / "**" / "part.csv") == ["top", "2009", "2010", "2100"]


def test_a_folder_with_brackets_in_its_name_is_that_folder(tmp_path: Path) -> None:
    shards(tmp_path / "[x]", 2)
    shards(tmp_path / "x", 1)
    assert texts(tmp_path / "[x]" / "*.csv") == ["row 0", "row 1"]


def test_a_pattern_that_matches_no_kind_of_data_is_refused_with_the_kinds(tmp_path: Path) -> None:
    write(tmp_path / "a.md", "no data")
    assert ".parquet" in refused(tmp_path / "*.md", "the pattern matches no data file").remedy


def test_a_pattern_does_not_lead_out_of_its_folder_by_a_link(tmp_path: Path) -> None:
    write(tmp_path / "secret.csv", "text\nsecret\n")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.csv").symlink_to(tmp_path / "secret.csv")
    refused(tmp_path / "set" / "*.csv", "a link that leads out of it")


def test_files_of_two_kinds_are_refused_by_name_and_a_pattern_chooses(tmp_path: Path) -> None:
    shards(tmp_path, 2)
    write(tmp_path / "rows.jsonl", '{"text": "again"}')
    assert "`*.csv`" in refused(tmp_path, "rows.jsonl: it is of another kind than part-0.csv").remedy
    assert texts(tmp_path / "*.csv") == ["row 0", "row 1"]


def _csv(path: Path, names: list[str]) -> None:
    write(path.with_suffix(".csv"), ",".join(names) + "\n" + ",".join("a" for _ in names) + "\n")


def _parquet(path: Path, names: list[str]) -> None:
    parquet.write_table(pyarrow.table({name: ["a"] for name in names}), path.with_suffix(".parquet"))


def _arrow(path: Path, names: list[str]) -> None:
    table = pyarrow.table({name: ["a"] for name in names})
    with ipc.new_file(path.with_suffix(".arrow"), table.schema) as writer:
        writer.write_table(table)


@pytest.mark.parametrize("writer", [_csv, _parquet, _arrow])
@pytest.mark.parametrize(
    ("names", "what"),
    [
        (["text", "labell"], "it lacks the column `label`"),
        (["text", "label", "year"], "it has a column `year` more"),
        (["label"], "`text`"),
    ],
)
def test_a_shard_with_other_columns_is_refused_by_name_before_a_row_is_read(tmp_path: Path, writer, names: list[str], what: str) -> None:
    writer(tmp_path / "part-1", ["text", "label"])
    writer(tmp_path / "part-2", ["label", "text"])  # another order is no other table
    writer(tmp_path / "part-10", names)
    with pytest.raises(InvalidRequest, match=r"part-10\..*: its columns are not those of part-1\..*" + what):
        next(datasets.read(tmp_path, ["text"]))


def test_an_empty_shard_is_refused_by_name(tmp_path: Path) -> None:
    shards(tmp_path, 2)
    write(tmp_path / "part-1.csv", "")
    refused(tmp_path, "part-1.csv: the file is empty")


def test_arrow_files_of_both_forms_are_read(tmp_path: Path) -> None:
    table = pyarrow.table({"number": list(range(3000)), "text": [f"row {number}" for number in range(3000)]})
    for name, new in (("a", ipc.new_stream), ("b", ipc.new_file)):
        with new(tmp_path / f"{name}.arrow", table.schema) as writer:
            writer.write_table(table, max_chunksize=1700)
    assert texts(tmp_path) == [f"row {number}" for number in range(3000)] * 2
    assert next(datasets.read(tmp_path, ["text"], keep_others=True)) == {"text": "row 0", "number": 0}


@pytest.mark.parametrize("damage", ["cut", "text", "empty"])
def test_a_damaged_arrow_file_is_refused_by_name(tmp_path: Path, damage: str) -> None:
    content = (SAVED / "splits" / "train" / "data-00000-of-00002.arrow").read_bytes()
    (tmp_path / "a.arrow").write_bytes({"cut": content[: len(content) // 2], "text": b"no arrow file at all", "empty": b""}[damage])
    refused(tmp_path, "a.arrow: the Arrow file is damaged or incomplete")


def test_a_saved_data_set_gives_its_rows_with_the_names_of_its_classes() -> None:
    assert list(datasets.read(SAVED / "splits" / "train", ["text", "label"])) == TRAIN
    assert [file.name for file in files(SAVED / "splits" / "train")] == ["data-00000-of-00002.arrow", "data-00001-of-00002.arrow"]


def test_class_labels_of_parquet_are_their_names_too_and_no_class_is_none(tmp_path: Path) -> None:
    info = {"info": {"features": {"label": {"names": CLASSES, "_type": "ClassLabel"}, "gone": {"names": ["x"], "_type": "ClassLabel"}}}}
    table = pyarrow.table({"label": [1, -1, 2, 3]}).replace_schema_metadata({"huggingface": json.dumps(info)})
    parquet.write_table(table, tmp_path / "a.parquet")
    assert [row["label"] for row in datasets.read(tmp_path / "a.parquet", ["label"])] == ["PI", None, "RM1", None]


def test_tags_of_a_saved_data_set_are_read_by_name() -> None:
    sentences = read_sentences(SAVED / "tags", parse(TrainDataset, {"path": "a"})).sentences
    assert [(one.words, [span.label for span in one.entities]) for one in sentences] == [
        (("a", "neural", "net"), ["Task"]),
        (("nothing",), []),
    ]


def test_a_split_is_chosen_and_train_is_the_default() -> None:
    assert texts(of_split(SAVED / "splits", None)) == [row["text"] for row in TRAIN]
    assert texts(of_split(SAVED / "splits", "test")) == ["held out"]


def test_a_split_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(InvalidRequest, match="no split `validation`") as caught:
        of_split(SAVED / "splits", "validation")
    assert (caught.value.field, caught.value.remedy) == ("split", "Its splits are: train, test.")
    with pytest.raises(InvalidRequest, match="has no splits"):
        of_split(SAVED / "tags", "train")


@pytest.mark.parametrize("split", ["../tags", "/etc", "."])
def test_a_split_is_never_a_way_out_of_the_folder(tmp_path: Path, split: str) -> None:
    shutil.copytree(SAVED, tmp_path / "saved")
    with pytest.raises(InvalidRequest, match="no split"):
        of_split(tmp_path / "saved" / "splits", split)
    (tmp_path / "saved" / "splits" / "dataset_dict.json").write_text(json.dumps({"splits": [split, "train"]}))
    with pytest.raises(InvalidRequest, match="not as `datasets` writes it"):
        of_split(tmp_path / "saved" / "splits", split)


def test_a_file_that_a_saved_data_set_lists_must_be_there(tmp_path: Path) -> None:
    shutil.copytree(SAVED / "splits" / "train", tmp_path / "train")
    (tmp_path / "train" / "data-00001-of-00002.arrow").unlink()
    refused(tmp_path / "train", r"data-00001-of-00002.arrow: state.json lists it, but it is not there")


@pytest.mark.parametrize("state", ['{"_data_files": [{"filename": "../x.arrow"}]}', "[]", "{", '{"_data_files": [{"filename": 1}]}'])
def test_a_list_of_files_that_datasets_did_not_write_is_refused(tmp_path: Path, state: str) -> None:
    shutil.copytree(SAVED / "tags", tmp_path / "tags")
    (tmp_path / "tags" / "state.json").write_text(state)
    refused(tmp_path / "tags", "state.json: not as `datasets` writes it")


def test_a_reference_gives_the_files_that_its_pattern_names_or_the_split_it_asks_for(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    shards(settings.artefacts / "shards", 3)
    shutil.copytree(SAVED, settings.artefacts / "saved")
    place = references.fetch(DatasetRef(path="shards/part-*.csv"), part="dataset", settings=settings)
    assert texts(place) == ["row 0", "row 1", "row 2"]
    place = references.fetch(DatasetRef(path="saved/splits", split="test"), part="dataset", settings=settings)
    assert texts(place) == ["held out"]
    with pytest.raises(InvalidRequest) as caught:
        references.fetch(DatasetRef(path="saved/splits", split="dev"), part="dataset", settings=settings)
    assert caught.value.field == "dataset.split"


def test_the_digest_of_a_data_set_covers_the_names_and_the_contents_of_all_its_files(tmp_path: Path) -> None:
    shards(tmp_path, 3)
    pattern = tmp_path / "part-*.csv"
    before = references.digest(pattern)
    write(tmp_path / "other.csv", "text\n")
    assert references.digest(pattern) == before
    (tmp_path / "part-2.csv").rename(tmp_path / "part-3.csv")
    renamed = references.digest(pattern)
    write(tmp_path / "part-3.csv", "text,label\nchanged,x\n")
    assert len({before, renamed, references.digest(pattern)}) == 3
    assert references.digest(tmp_path) != references.digest(pattern)


def test_conll_and_squad_files_are_chosen_by_a_pattern_too(tmp_path: Path) -> None:
    for number in range(2):
        write(tmp_path / f"part-{number}.conll", f"the O\nnet{number} B-Task\n")
        asked = {"question": f"what {number}?", "answers": [{"text": "net", "answer_start": 2}]}
        article = {"paragraphs": [{"context": f"a net {number}", "qas": [asked]}]}
        write(tmp_path / f"part-{number}.json", json.dumps({"data": [article]}))
    dataset = parse(TrainDataset, {"path": "a"})
    assert len(read_sentences(tmp_path / "*.conll", dataset).sentences) == 2
    assert len(read_questions(tmp_path / "*.json", dataset).questions) == 2


def test_a_data_set_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        members(tmp_path / "absent" / "deeper.csv")
