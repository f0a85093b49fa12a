import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mlaas import storage
from mlaas.errors import InvalidRequest, NotFound
from mlaas.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "home" / "artefacts").mkdir(parents=True)
    return Settings(home=tmp_path / "home")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "made"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.txt").write_text("alpha")
    (folder / "sub" / "b.txt").write_text("beta")
    return folder


def names(place: Path) -> list[str]:
    return sorted(one.relative_to(place).as_posix() for one in place.rglob("*") if one.is_file())


def test_a_file_and_a_folder_are_served_in_place(settings: Settings) -> None:
    (settings.artefacts / "d").mkdir()
    (settings.artefacts / "d" / "rows.csv").write_text("text\n")
    assert storage.fetch("d/rows.csv", "local", settings=settings) == settings.artefacts / "d" / "rows.csv"
    assert storage.fetch("d/", "local", settings=settings) == settings.artefacts / "d"


@pytest.mark.parametrize(
    "path", ["../made", "d/../../made", "/etc/passwd", "d\0", "", ".", "..", "d//x", "./d", "d\\..\\x", "d\nx", "a/" * 600 + "b", "x" * 300]
)
def test_a_path_that_leaves_the_root_or_is_malformed_is_refused(settings: Settings, folder: Path, path: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        storage.fetch(path, "local", settings=settings)
    assert caught.value.field == "path"
    assert not isinstance(caught.value, NotFound)
    assert str(settings.home) not in caught.value.detail


def test_a_link_that_leaves_the_root_is_refused_wherever_it_is(settings: Settings, folder: Path) -> None:
    (settings.artefacts / "out").symlink_to(folder)
    (settings.artefacts / "loop").symlink_to(settings.artefacts / "loop")
    (settings.artefacts / "m").mkdir()
    (settings.artefacts / "m" / "weights").symlink_to(folder / "a.txt")
    for path in ("out", "out/a.txt", "m/weights", "m"):
        with pytest.raises(InvalidRequest, match="root"):
            storage.fetch(path, "local", settings=settings)
    with pytest.raises(NotFound):
        storage.fetch("loop", "local", settings=settings)


def test_a_link_within_the_root_and_a_root_that_is_itself_a_link_are_followed(settings: Settings, tmp_path: Path) -> None:
    (settings.artefacts / "real").mkdir()
    (settings.artefacts / "alias").symlink_to(settings.artefacts / "real")
    (tmp_path / "root").symlink_to(settings.artefacts)
    linked = Settings(root=tmp_path / "root")
    assert storage.fetch("alias", "local", settings=linked) == settings.artefacts / "real"


def test_what_is_missing_is_not_found_and_does_not_exist(settings: Settings) -> None:
    with pytest.raises(NotFound, match="`no/such`"):
        storage.fetch("no/such", "local", settings=settings)
    assert not storage.exists("no/such", "local", settings=settings)


def test_publishing_makes_a_version_and_moves_the_pointer(settings: Settings, folder: Path) -> None:
    assert storage.publish(folder, "models/m", "local", "v1", settings=settings) == "models/m/v1"
    (folder / "a.txt").write_text("changed")
    storage.publish(folder, "models/m", "local", "v2", settings=settings)
    latest = storage.fetch("models/m", "local", settings=settings)
    first = storage.fetch("models/m", "local", settings=settings, revision="v1")
    assert (latest.name, first.name) == ("v2", "v1")
    assert names(latest) == ["a.txt", "sub/b.txt"]
    assert ((latest / "a.txt").read_text(), (first / "a.txt").read_text()) == ("changed", "alpha")
    assert storage.exists("models/m", "local", settings=settings, revision="v1")
    assert not storage.exists("models/m", "local", settings=settings, revision="v3")
    assert sorted(one.name for one in latest.parent.iterdir()) == ["latest.json", "v1", "v2"]


def test_publishing_a_version_again_changes_nothing_but_the_pointer(settings: Settings, folder: Path) -> None:
    storage.publish(folder, "m", "local", "v1", settings=settings)
    storage.publish(folder, "m", "local", "v2", settings=settings)
    (folder / "a.txt").write_text("other")
    assert storage.publish(folder, "m", "local", "v1", settings=settings) == "m/v1"
    assert storage.fetch("m", "local", settings=settings).name == "v1"
    assert (storage.fetch("m", "local", settings=settings) / "a.txt").read_text() == "alpha"


@pytest.mark.parametrize("version", ["", "..", "a/b", ".hidden", "latest.json", "v 1", "v\n"])
def test_a_version_that_cannot_name_a_folder_is_refused(settings: Settings, folder: Path, version: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        storage.publish(folder, "m", "local", version, settings=settings)
    assert caught.value.field == "revision"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version": "../../x"}', '{"version": 3}', "[" * 100_000])
def test_a_pointer_that_names_no_version_is_refused(settings: Settings, text: str) -> None:
    (settings.artefacts / "m").mkdir()
    (settings.artefacts / "m" / "latest.json").write_text(text)
    with pytest.raises(InvalidRequest, match=r"latest\.json"):
        storage.fetch("m", "local", settings=settings)


def test_a_folder_with_links_or_without_files_is_not_published(settings: Settings, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidRequest, match="no file"):
        storage.publish(tmp_path / "empty", "m", "local", "v1", settings=settings)
    (folder / "link").symlink_to("/etc/passwd")
    with pytest.raises(InvalidRequest, match="link"):
        storage.publish(folder, "m", "local", "v1", settings=settings)
    assert not storage.exists("m", "local", settings=settings)


def test_progress_counts_the_bytes_up_to_the_total(settings: Settings, folder: Path) -> None:
    seen: list[tuple[int, int]] = []
    storage.publish(folder, "m", "local", "v1", settings=settings, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(5, 9), (9, 9)]


def test_of_many_publishers_of_one_version_one_wins_whole(settings: Settings, tmp_path: Path) -> None:
    barrier = threading.Barrier(8)

    def publish(number: int) -> None:
        folder = tmp_path / f"by-{number}"
        folder.mkdir()
        for name in "abc":
            (folder / name).write_text(str(number))
        barrier.wait()
        storage.publish(folder, "m", "local", "v1", settings=settings)

    threads = [threading.Thread(target=publish, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    version = storage.fetch("m", "local", settings=settings)
    assert len({(version / name).read_text() for name in "abc"}) == 1
    assert sorted(one.name for one in version.parent.iterdir()) == ["latest.json", "v1"]


def test_a_publisher_killed_in_the_middle_leaves_no_version_and_its_litter_goes_with_the_next(settings: Settings, folder: Path) -> None:
    program = (
        "import os, sys; from pathlib import Path; from mlaas import storage; from mlaas.settings import Settings\n"
        "storage.publish(Path(sys.argv[1]), 'm', 'local', 'v1', settings=Settings(home=Path(sys.argv[2])),"
        " progress=lambda done, total: os.kill(os.getpid(), 9))"
    )
    killed = subprocess.run([sys.executable, "-c", program, folder, settings.home], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not storage.exists("m", "local", settings=settings, revision="v1")
    left = [one.name for one in (settings.artefacts / "m").iterdir()]
    assert len(left) == 2
    staging = next(name for name in left if not name.endswith(".lock"))
    assert not storage.exists(f"m/{staging}", "local", settings=settings)
    storage.publish(folder, "m", "local", "v1", settings=settings)
    assert sorted(os.listdir(settings.artefacts / "m")) == ["latest.json", "v1"]


def test_the_staging_folder_of_a_publisher_at_work_is_left_alone(settings: Settings, folder: Path) -> None:
    (settings.artefacts / "m" / ".staging-x").mkdir(parents=True)
    with (settings.artefacts / "m" / ".staging-x.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        storage.publish(folder, "m", "local", "v1", settings=settings)
    assert (settings.artefacts / "m" / ".staging-x").is_dir()


def test_an_unknown_storage_type_is_refused_naming_the_known_ones(settings: Settings) -> None:
    with pytest.raises(InvalidRequest) as caught:
        storage.fetch("m", "ftp", settings=settings)
    assert caught.value.field == "storage_type"
    assert "hugging_face_hub" in (caught.value.remedy or "")


def test_the_pointer_is_plain_json(settings: Settings, folder: Path) -> None:
    storage.publish(folder, "m", "local", "v1", settings=settings)
    assert json.loads((settings.artefacts / "m" / "latest.json").read_text()) == {"version": "v1"}


def test_importing_storage_and_bundles_brings_no_heavy_library() -> None:
    program = (
        "import sys, mlaas.storage, mlaas.bundles\n"
        "print([name for name in ('boto3', 'botocore', 'huggingface_hub', 'requests', 'pydantic', 'numpy') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout.strip() == "[]"


def test_removing_a_link_leaves_what_it_leads_to(settings: Settings, folder: Path) -> None:
    (settings.artefacts / "kept").mkdir()
    (settings.artefacts / "kept" / "a").write_text("a")
    (settings.artefacts / "d").mkdir()
    for name, target in {"alias": settings.artefacts / "kept", "out": folder, "d/inner": folder, "d/file": folder / "a.txt"}.items():
        (settings.artefacts / name).symlink_to(target)
    for path in ("alias", "out", "d"):
        storage.remove(path, "local", settings=settings)
    assert os.listdir(settings.artefacts) == ["kept"]
    assert os.listdir(settings.artefacts / "kept") == ["a"]
    assert names(folder) == ["a.txt", "sub/b.txt"]


def test_nothing_is_put_listed_or_removed_through_a_link_that_leaves_the_root(settings: Settings, folder: Path) -> None:
    (settings.artefacts / "out").symlink_to(folder)
    (settings.artefacts / "d").mkdir()
    (settings.artefacts / "d" / "a.txt").symlink_to(folder / "a.txt")
    for call in (
        lambda: storage.put(folder / "a.txt", "out/b.txt", "local", settings=settings),
        lambda: storage.put(folder / "sub" / "b.txt", "d/a.txt", "local", settings=settings),
        lambda: storage.names("out", "local", settings=settings),
        lambda: storage.remove("out/a.txt", "local", settings=settings),
    ):
        with pytest.raises(InvalidRequest, match="root"):
            call()
    assert storage.names("d", "local", settings=settings) == []
    assert (folder / "a.txt").read_text() == "alpha"
    assert names(folder) == ["a.txt", "sub/b.txt"]


def test_a_file_in_the_place_of_a_folder_is_the_request_s_fault(settings: Settings, folder: Path) -> None:
    storage.put(folder / "a.txt", "d/a", "local", settings=settings)
    for path in ("d/a/b", "d"):
        with pytest.raises(InvalidRequest, match="folder"):
            storage.put(folder / "a.txt", path, "local", settings=settings)


def test_the_temporary_file_of_a_put_at_work_is_neither_listed_nor_swept_away(settings: Settings, folder: Path) -> None:
    def overtake(done: int, total: int) -> None:
        storage.put(folder / "sub" / "b.txt", "d/b", "local", settings=settings)
        assert storage.names("d", "local", settings=settings) == ["b"]

    storage.put(folder / "a.txt", "d/a", "local", settings=settings, progress=overtake)
    assert storage.names("d", "local", settings=settings) == ["a", "b"]
    assert sorted(os.listdir(settings.artefacts / "d")) == ["a", "b"]
