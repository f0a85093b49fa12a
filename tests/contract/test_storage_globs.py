"""The contract of paths with wildcards: the same files on the file system and on a real S3 server, and none beyond the root."""

from pathlib import Path

import pytest

from mlaas import dataset_files, datasets, models, storage
from mlaas.errors import InvalidRequest, NotFound
from mlaas.settings import Settings
from mlaas.storage import globs
from mlaas.testing.s3_server import BUCKET, S3Server

NAMES = (
    "part-1.csv",
    "part-2.csv",
    "part-10.csv",
    "other.csv",
    ".part-3.csv",
    "below/part-4.csv",
    "below/deep/part-5.csv",
    "manifest.json",
)


@pytest.fixture
def at(kind: str, settings: Settings, tmp_path: Path) -> str:
    """A folder with the files of NAMES, each of one row: its name."""
    folder = f"{BUCKET}/{tmp_path.name}"
    for name in NAMES:
        (tmp_path / "file").write_text(f"text\n{name}\n")
        storage.put(tmp_path / "file", f"{folder}/{name}", kind, settings=settings)
    return folder


def read(path: str, kind: str, settings: Settings) -> list[str]:
    return [row["text"] for row in datasets.read(storage.fetch_dataset(path, kind, settings=settings), ["text"])]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("part-*.csv", ["part-1.csv", "part-2.csv", "part-10.csv"]),
        ("part-[12].csv", ["part-1.csv", "part-2.csv"]),
        ("*.csv", ["other.csv", "part-1.csv", "part-2.csv", "part-10.csv"]),
        ("*/part-?.csv", ["below/part-4.csv"]),
        ("**/part-?.csv", ["below/deep/part-5.csv", "below/part-4.csv", "part-1.csv", "part-2.csv"]),
        ("b*/deep/*", ["below/deep/part-5.csv"]),
        ("part-1.csv", ["part-1.csv"]),
    ],
)
def test_a_pattern_names_the_same_files_everywhere_in_natural_order(
    kind: str, settings: Settings, at: str, pattern: str, names: list[str]
) -> None:
    assert read(f"{at}/{pattern}", kind, settings) == names
    assert storage.dataset_exists(f"{at}/{pattern}", kind, settings=settings)


def test_only_what_matches_is_downloaded_and_a_further_file_is_seen(kind: str, settings: Settings, at: str, tmp_path: Path) -> None:
    place = storage.fetch_dataset(f"{at}/part-*.csv", kind, settings=settings)
    if kind == "s3":
        assert sorted(file.name for file in place.parent.rglob("*")) == ["part-1.csv", "part-10.csv", "part-2.csv"]
    storage.put(tmp_path / "file", f"{at}/part-3.csv", kind, settings=settings)
    assert len(read(f"{at}/part-*.csv", kind, settings)) == 4


def test_a_pattern_without_a_match_is_not_found_by_its_name(kind: str, settings: Settings, at: str) -> None:
    for path in (f"{at}/*.parquet", f"{at}/nowhere/*.csv", f"{at}/PART-*.csv"):
        assert not storage.dataset_exists(path, kind, settings=settings)
        with pytest.raises(NotFound, match="no file matches") as caught:
            storage.fetch_dataset(path, kind, settings=settings)
        assert path in caught.value.detail
        assert "pattern" in caught.value.remedy
        with pytest.raises(NotFound, match="no file matches") as caught:
            models.check_dataset(path, kind, part="dataset", settings=settings)
        assert caught.value.field == "dataset.path"


def test_a_pattern_below_a_published_path_is_of_its_latest_version(kind: str, settings: Settings, at: str, tmp_path: Path) -> None:
    for version in ("1", "2"):
        (tmp_path / version).mkdir()
        for part in ("a", "b"):
            (tmp_path / version / f"{part}.csv").write_text(f"text\n{part}{version}\n")
        storage.publish(tmp_path / version, f"{at}/set", kind, version, settings=settings)
    assert read(f"{at}/set/*.csv", kind, settings) == ["a2", "b2"]
    assert read(f"{at}/set/1/*.csv", kind, settings) == ["a1", "b1"]


@pytest.mark.parametrize("path", ["../*.csv", "/etc/*.conf", "a/../../*.csv", "a/**x/*.csv", "a/**", "a//*.csv", "a/\0*.csv"])
def test_a_pattern_that_leaves_the_root_or_cannot_be_is_refused(kind: str, settings: Settings, path: str) -> None:
    with pytest.raises(InvalidRequest):
        storage.fetch_dataset(path, kind, settings=settings)


@pytest.mark.services
def test_a_pattern_may_begin_right_below_the_bucket(s3_server: S3Server, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home", s3_endpoint=s3_server.endpoint)
    (tmp_path / "file").write_text("text\ntop\n")
    storage.put(tmp_path / "file", f"{BUCKET}/right-below-1.csv", "s3", settings=settings)
    assert read(f"s3://{BUCKET}/right-below-*.csv", "s3", settings) == ["top"]
    with pytest.raises(InvalidRequest, match="bucket"):
        storage.fetch_dataset("buck*/a.csv", "s3", settings=settings)


def test_a_match_that_is_a_link_out_of_the_root_is_refused(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home")
    (settings.artefacts / "set").mkdir(parents=True)
    (tmp_path / "secret.csv").write_text("text\nsecret\n")
    (settings.artefacts / "set" / "a.csv").symlink_to(tmp_path / "secret.csv")
    with pytest.raises(InvalidRequest, match="leaves the root"):
        storage.fetch_dataset("set/*.csv", "local", settings=settings)


def test_a_name_with_a_bracket_is_asked_for_by_a_class_of_one(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home")
    settings.artefacts.mkdir(parents=True)
    (settings.artefacts / "a[1].csv").write_text("text\nhere\n")
    assert read("a[[]1].csv", "local", settings) == ["here"]
    assert globs.cut("a/b.csv") is None


def test_a_path_without_wildcards_is_fetched_as_before(kind: str, settings: Settings, at: str) -> None:
    place = storage.fetch_dataset(f"{at}/below/deep", kind, settings=settings)
    assert [file.name for file in dataset_files.files(place)] == ["part-5.csv"]
