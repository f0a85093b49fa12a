"""Rows of data sets in every accepted format."""

import gzip
import json
import tracemalloc

import pyarrow
import pytest
from pyarrow import parquet

from mlaas import datasets
from mlaas.errors import InvalidRequest, NotFound

ROWS = [
    {"text": "INFN, Pisa", "label": "PI"},
    {"text": 'Università "La Sapienza"\nRoma', "label": "RM1"},
    {"text": "", "label": "[NoSite]"},
]
CSV = 'text,label\n"INFN, Pisa",PI\n"Università ""La Sapienza""\nRoma",RM1\n,[NoSite]\n'
JSONL = "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS) + "\n"
CONTENTS = {
    ".csv": CSV,
    ".tsv": CSV.replace("INFN, Pisa", "INFN; Pisa").replace(",", "\t").replace(";", ","),
    ".jsonl": JSONL,
    ".ndjson": JSONL,
}


def write(path, text, encoding="utf-8"):
    content = text.encode(encoding)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def read(path, columns=("text", "label"), **options):
    return list(datasets.read(path, list(columns), **options))


def refused(path, match, columns=("text", "label")):
    with pytest.raises(InvalidRequest, match=match) as caught:
        read(path, columns)
    assert str(path.parent) not in caught.value.detail + caught.value.remedy
    assert caught.value.field.startswith("dataset")
    return caught.value


@pytest.mark.parametrize("suffix", CONTENTS)
@pytest.mark.parametrize("packed", ["", ".gz"])
def test_every_text_format_gives_the_same_rows(tmp_path, suffix, packed):
    assert read(write(tmp_path / f"rows{suffix}{packed}", CONTENTS[suffix])) == ROWS


def test_parquet_gives_the_same_rows(tmp_path):
    parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "rows.parquet", row_group_size=2)
    assert read(tmp_path / "rows.parquet") == ROWS


@pytest.mark.parametrize("suffix", CONTENTS)
def test_a_byte_order_mark_and_windows_line_ends_change_nothing(tmp_path, suffix):
    path = write(tmp_path / f"rows{suffix}", CONTENTS[suffix].replace("\n", "\r\n"), "utf-8-sig")
    expected = [{**row, "text": row["text"].replace("\n", "\r\n")} for row in ROWS] if suffix in (".csv", ".tsv") else ROWS
    assert read(path) == expected


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_blank_lines_and_a_missing_last_line_end_change_nothing(tmp_path, suffix):
    text = CONTENTS[suffix].rstrip("\n")
    assert read(write(tmp_path / f"rows{suffix}", text.replace("\n{", "\n\n{").replace("\n,", "\n\n,") + "\n\n")) == ROWS
    assert read(write(tmp_path / f"bare{suffix}", text)) == ROWS


@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl", "rows.parquet"])
def test_only_the_columns_asked_for_are_given_unless_the_others_are_wanted_too(tmp_path, name):
    rows = [{"id": "1", "text": "a", "year": "2020"}, {"id": "2", "text": "b", "year": "2021"}]
    path = tmp_path / name
    if name.endswith("csv"):
        write(path, "id,text,year\n1,a,2020\n2,b,2021\n")
    elif name.endswith("jsonl"):
        write(path, "\n".join(map(json.dumps, rows)))
    else:
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    assert read(path, ["text"]) == [{"text": "a"}, {"text": "b"}]
    assert read(path, ["text"], keep_others=True) == rows
    assert list(read(path, ["text"], keep_others=True)[0]) == ["text", "id", "year"]


def test_json_and_parquet_values_keep_their_types(tmp_path):
    rows = [{"text": "a", "year": 2020, "ids": [1, 2], "score": None}]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "rows.parquet")
    write(tmp_path / "rows.jsonl", json.dumps(rows[0]))
    for name in ("rows.parquet", "rows.jsonl"):
        assert read(tmp_path / name, ["text"], keep_others=True) == rows


def test_a_folders_files_are_read_in_the_natural_order_of_their_names_and_other_files_are_left_alone(tmp_path):
    write(tmp_path / "part-10.csv", "text,label\n3,x\n")
    write(tmp_path / "part-2.csv.gz", "label,text\nx,2\n")
    write(tmp_path / "part-1.csv", "text,label\n1,x\n")
    write(tmp_path / "README.md", "not data")
    write(tmp_path / ".hidden.csv", "not data")
    (tmp_path / "folder.csv").mkdir()
    assert [row["text"] for row in read(tmp_path)] == ["1", "2", "3"]


def test_a_folder_without_data_files_is_refused_with_the_accepted_names(tmp_path):
    write(tmp_path / "README.md", "not data")
    assert ".parquet" in refused(tmp_path, "no data file").remedy


def test_a_link_that_leads_out_of_the_folder_is_refused(tmp_path):
    write(tmp_path / "secret.csv", "text,label\na,b\n")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.csv").symlink_to(tmp_path / "secret.csv")
    refused(tmp_path / "set", "leads out of it")


@pytest.mark.parametrize("name", ["rows.txt", "rows", "rows.xlsx", "rows.csv.zip", "rows.parquet.gz"])
def test_an_unknown_kind_of_file_is_refused_with_the_accepted_ones(tmp_path, name):
    error = refused(write(tmp_path / name, CSV), "not a known kind")
    assert all(extension in error.remedy for extension in (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet", ".csv.gz"))


def test_a_data_set_that_is_not_there_is_not_found(tmp_path):
    with pytest.raises(NotFound):
        read(tmp_path / "absent.csv")


@pytest.mark.parametrize("name", ["rows.csv", "rows.tsv", "rows.jsonl", "rows.parquet"])
def test_a_missing_column_is_refused_with_the_nearest_and_with_those_that_exist(tmp_path, name):
    path = tmp_path / name
    if name.endswith("parquet"):
        parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    else:
        write(path, CONTENTS[path.suffix])
    error = refused(path, f"{name}.*no column `lable`", ["text", "lable"])
    assert "Did you mean `label`?" in error.remedy
    assert "text, label" in error.remedy


def test_a_json_row_without_the_column_is_refused_by_its_line(tmp_path):
    refused(
        write(tmp_path / "rows.jsonl", '{"text": "a", "label": "b"}\n\n{"text": "c"}\n'), "rows.jsonl, line 3: there is no column `label`"
    )


@pytest.mark.parametrize(
    ("name", "text", "match"),
    [
        ("rows.csv", "text,label\na,b\na\n", "line 3: it has 1 fields where the header has 2"),
        ("rows.csv", 'text,label\n"a\nb",c\nd,e,f\n', "line 4: it has 3 fields"),
        ("rows.tsv", 'text\tlabel\n"a" b\tc\n', "line 2: its quoting"),
        ("rows.csv", 'text,label\na,b\n"never ends,c\n', "line 3: "),
        ("rows.csv", 'text,label\n"' + "x\n" * 100_000, "line 2: a field never ends, or is too long"),
        ("rows.csv", "text,label,text\na,b,c\n", "line 1: the column 'text' occurs more than once"),
        ("rows.csv", "", "the file is empty"),
        ("rows.jsonl", '{"text": "a", "label": "b"}\n{"text": \n', "line 2: it is not JSON"),
        ("rows.jsonl", '["a", "b"]\n', "line 1: it is not a JSON object"),
        ("rows.jsonl", "[" * 100_000 + "\n", "line 1: it is not JSON"),
        ("rows.jsonl", '{"text": "a", "label": ' + "9" * 5000 + "}", "line 1: it is not JSON"),
    ],
)
def test_a_malformed_row_is_refused_by_file_and_line(tmp_path, name, text, match):
    refused(write(tmp_path / name, text), f"{name}.*{match}")


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_a_row_that_is_not_utf8_is_refused_by_its_line(tmp_path, suffix):
    path = tmp_path / f"rows{suffix}"
    path.write_bytes(CONTENTS[suffix].encode() + b"\xe9\xe0,x\n")
    lines = CONTENTS[suffix].count("\n") + 1
    refused(path, f"line {lines}: it is not UTF-8")


@pytest.mark.parametrize("damage", ["cut", "not gzip", "flipped"])
def test_a_damaged_gzip_file_is_refused(tmp_path, damage):
    content = bytearray(gzip.compress(CSV.encode() * 100))
    if damage == "flipped":
        content[len(content) // 2] ^= 0xFF
    path = tmp_path / "rows.csv.gz"
    path.write_bytes({"cut": content[: len(content) // 2], "not gzip": CSV.encode(), "flipped": content}[damage])
    refused(path, "rows.csv.gz")


@pytest.mark.parametrize("damage", ["cut", "text"])
def test_a_damaged_parquet_file_is_refused(tmp_path, damage):
    path = tmp_path / "rows.parquet"
    parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    path.write_bytes(path.read_bytes()[:-20] if damage == "cut" else b"text")
    refused(path, "rows.parquet: the Parquet file is damaged")


def test_an_endless_line_is_refused_rather_than_held(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "MAX_LINE_BYTES", 1024**2)
    path = write(tmp_path / "rows.jsonl.gz", "x" * (1024**2 + 1))
    refused(path, "line 1: it is longer than 1 MiB")


@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl.gz"])
def test_rows_are_not_kept_in_memory(tmp_path, name):
    row = "x" * 1000
    text = "text,label\n" + f"{row},a\n" * 20_000 if name.endswith("csv") else (json.dumps({"text": row, "label": "a"}) + "\n") * 20_000
    path = write(tmp_path / name, text)
    del text
    tracemalloc.start()
    count = sum(1 for _ in datasets.read(path, ["text"]))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 20_000
    assert peak < 2_000_000


def test_reading_can_stop_early(tmp_path):
    rows = datasets.read(write(tmp_path / "rows.csv", CSV), ["label"])
    assert next(rows) == {"label": "PI"}
    rows.close()
