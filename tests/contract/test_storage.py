"""The contract of single files in storage: put, names, remove; on the file system and on a real S3 server."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mlaas import storage
from mlaas.errors import InvalidRequest
from mlaas.settings import Settings
from mlaas.testing.s3_server import BUCKET

LARGE = 20 * 1024**2  # bytes: three parts on S3


@pytest.fixture
def at(tmp_path: Path) -> str:
    """A folder that no other test uses; on S3 its first part is the bucket."""
    return f"{BUCKET}/{tmp_path.name}"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "part.jsonl"
    file.write_bytes(b"one")
    return file


def content(path: str, kind: str, settings: Settings) -> bytes:
    return storage.fetch(path, kind, settings=settings).read_bytes()


def test_what_was_put_is_fetched_and_listed(kind: str, settings: Settings, at: str, file: Path) -> None:
    storage.put(file, f"{at}/job/b.jsonl", kind, settings=settings)
    storage.put(file, f"{at}/job/.a", kind, settings=settings)
    storage.put(file, f"{at}/job/below/c.jsonl", kind, settings=settings)
    storage.put(file, f"{at}/job-2/d.jsonl", kind, settings=settings)
    assert content(f"{at}/job/b.jsonl", kind, settings) == b"one"
    assert storage.names(f"{at}/job", kind, settings=settings) == [".a", "b.jsonl"]
    assert storage.exists(f"{at}/job/b.jsonl", kind, settings=settings)


def test_a_file_that_is_there_is_replaced(kind: str, settings: Settings, at: str, file: Path) -> None:
    storage.put(file, f"{at}/a", kind, settings=settings)
    file.write_bytes(b"another")
    storage.put(file, f"{at}/a", kind, settings=settings)
    assert content(f"{at}/a", kind, settings) == b"another"
    assert storage.names(at, kind, settings=settings) == ["a"]


@pytest.mark.parametrize("size", [0, 3, LARGE])
def test_every_size_arrives_whole_and_says_how_far_it_is(kind: str, settings: Settings, at: str, file: Path, size: int) -> None:
    file.write_bytes(os.urandom(size))
    seen: list[tuple[int, int]] = []
    storage.put(file, f"{at}/a", kind, settings=settings, progress=lambda *done: seen.append(done))
    assert content(f"{at}/a", kind, settings) == file.read_bytes()
    assert seen[-1:] == ([(size, size)] if size else [])
    assert seen == sorted(seen)
    assert len(seen) > 2 or size < LARGE


def test_a_folder_that_is_not_there_has_no_names_and_a_file_neither(kind: str, settings: Settings, at: str, file: Path) -> None:
    assert storage.names(f"{at}/none", kind, settings=settings) == []
    storage.put(file, f"{at}/a", kind, settings=settings)
    assert storage.names(f"{at}/a", kind, settings=settings) == []


def test_the_names_of_a_published_version_are_those_of_its_files(kind: str, settings: Settings, at: str, file: Path) -> None:
    storage.publish(file.parent, f"{at}/m", kind, "v1", settings=settings)
    assert storage.names(f"{at}/m/v1", kind, settings=settings) == ["part.jsonl"]
    assert storage.names(f"{at}/m", kind, settings=settings) == ["latest.json"]


def test_removing_takes_the_folder_and_all_below_and_nothing_else(kind: str, settings: Settings, at: str, file: Path) -> None:
    for name in ("job/a", "job/below/b", "job-2/c", "jobs", "d"):
        storage.put(file, f"{at}/{name}", kind, settings=settings)
    storage.remove(f"{at}/job", kind, settings=settings)
    storage.remove(f"{at}/job", kind, settings=settings)
    assert storage.names(f"{at}/job", kind, settings=settings) == []
    assert not storage.exists(f"{at}/job/below/b", kind, settings=settings)
    assert [content(f"{at}/{name}", kind, settings) for name in ("job-2/c", "jobs", "d")] == [b"one"] * 3
    storage.remove(f"{at}/d", kind, settings=settings)
    assert storage.names(at, kind, settings=settings) == ["jobs"]


def test_more_files_than_one_request_deletes_are_removed(kind: str, settings: Settings, at: str, file: Path, monkeypatch) -> None:
    monkeypatch.setattr("mlaas.storage.s3_objects._BATCH", 3)
    for number in range(8):
        storage.put(file, f"{at}/job/{number}", kind, settings=settings)
    storage.remove(f"{at}/job", kind, settings=settings)
    assert storage.names(f"{at}/job", kind, settings=settings) == []


def test_a_removed_version_does_not_exist(kind: str, settings: Settings, at: str, file: Path) -> None:
    storage.publish(file.parent, f"{at}/m", kind, "v1", settings=settings)
    storage.remove(f"{at}/m/v1", kind, settings=settings)
    assert not storage.exists(f"{at}/m/v1", kind, settings=settings)


def test_many_writers_of_one_path_leave_one_of_their_files_whole(kind: str, settings: Settings, at: str, tmp_path: Path) -> None:
    contents = [bytes([65 + number]) * 100_000 for number in range(6)]

    def put(number: int) -> None:
        (tmp_path / f"by-{number}").write_bytes(contents[number])
        storage.put(tmp_path / f"by-{number}", f"{at}/a", kind, settings=settings)

    threads = [threading.Thread(target=put, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert content(f"{at}/a", kind, settings) in contents
    assert storage.names(at, kind, settings=settings) == ["a"]


PUT_AND_DIE = """
import os, sys
from pathlib import Path
from mlaas import storage
from mlaas.settings import Settings
settings = Settings(home=Path(sys.argv[4]), s3_endpoint=sys.argv[5] or None)
storage.put(Path(sys.argv[1]), sys.argv[2], sys.argv[3], settings=settings, progress=lambda done, total: os.kill(os.getpid(), 9))
"""


def test_a_put_that_is_killed_leaves_what_was_there_before(kind: str, settings: Settings, at: str, file: Path) -> None:
    storage.put(file, f"{at}/a", kind, settings=settings)
    file.write_bytes(os.urandom(LARGE))
    arguments = [str(file), f"{at}/a", kind, str(settings.home), settings.s3_endpoint or ""]
    killed = subprocess.run([sys.executable, "-c", PUT_AND_DIE, *arguments], check=False)
    assert killed.returncode == -9
    assert content(f"{at}/a", kind, settings) == b"one"
    assert storage.names(at, kind, settings=settings) == ["a"]
    storage.put(file, f"{at}/a", kind, settings=settings)
    assert content(f"{at}/a", kind, settings) == file.read_bytes()
    if kind == "local":
        assert os.listdir(settings.artefacts / at) == ["a"]  # the next put swept away what the killed one left


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a//b", "a/./b", "a\0b", "a\nb", "", ".."])
def test_a_path_that_leaves_its_root_is_refused_naming_the_field(kind: str, settings: Settings, file: Path, path: str) -> None:
    for call in (
        lambda: storage.put(file, path, kind, settings=settings),
        lambda: storage.names(path, kind, settings=settings),
        lambda: storage.remove(path, kind, settings=settings),
    ):
        with pytest.raises(InvalidRequest) as caught:
            call()
        assert caught.value.field == "path"
        assert caught.value.remedy


@pytest.mark.parametrize("name", [".staging-x", ".attempt-x"])
def test_a_name_that_would_be_hidden_or_swept_away_is_refused(kind: str, settings: Settings, at: str, file: Path, name: str) -> None:
    if (kind, name) in {("local", ".staging-x"), ("s3", ".attempt-x")}:
        with pytest.raises(InvalidRequest, match="begins with"):
            storage.put(file, f"{at}/{name}/a", kind, settings=settings)
    else:
        storage.put(file, f"{at}/{name}/a", kind, settings=settings)
        assert storage.names(f"{at}/{name}", kind, settings=settings) == ["a"]


def test_a_file_that_is_not_there_is_refused(kind: str, settings: Settings, at: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="`none`"):
        storage.put(tmp_path / "none", f"{at}/a", kind, settings=settings)
    assert storage.names(at, kind, settings=settings) == []
