"""Storage against a real S3 server, with a relay in between that counts, breaks and slows down what passes."""

import contextlib
import dataclasses
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from mlaas import storage
from mlaas.bundles import open_bundle, write_manifest
from mlaas.errors import InvalidRequest, NotFound, Unavailable
from mlaas.settings import Settings
from mlaas.storage import s3_client, s3_publish
from mlaas.testing.s3_server import BUCKET, S3Server

pytestmark = pytest.mark.services

LARGE = 20 * 1024**2  # bytes: three parts


class Relay:
    """Passes TCP through to a server and keeps the request lines. `delay` is in seconds for each 64 KiB of an answer."""

    def __init__(self, port: int) -> None:
        self.requests: list[str] = []
        self.delay = 0.0
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def count(self, pattern: str) -> int:
        return sum(bool(re.search(pattern, line)) for line in self.requests)

    def close(self) -> None:
        shut(self._listener)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._target))
            threading.Thread(target=self._pass, args=(client, server, True), daemon=True).start()
            threading.Thread(target=self._pass, args=(server, client, False), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, asks: bool) -> None:
        try:
            while data := source.recv(65536):
                if asks and (line := re.match(rb"(GET|HEAD|PUT|POST|DELETE) [^\r]* HTTP/1\.1\r\n", data)):
                    self.requests.append(line.group().decode().strip())
                if not asks:
                    time.sleep(self.delay)
                target.sendall(data)
        except OSError:
            return
        finally:
            for end in (source, target):
                shut(end)


def shut(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()


@pytest.fixture
def relay(s3_server: S3Server) -> Iterator[Relay]:
    relay = Relay(int(s3_server.endpoint.rpartition(":")[2]))
    yield relay
    relay.close()


@pytest.fixture
def settings(tmp_path: Path, relay: Relay) -> Settings:
    return Settings(home=tmp_path / "home", s3_endpoint=relay.endpoint)


@pytest.fixture
def s3(settings: Settings) -> Any:
    return s3_client.client(settings)


@pytest.fixture
def at(request: pytest.FixtureRequest) -> str:
    """A path that no other test uses."""
    return f"{BUCKET}/{request.node.name}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A bundle with a graph large enough to be transferred in parts."""
    folder = tmp_path / "made"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(os.urandom(LARGE))
    for name in ("tokenizer.json", "config.json"):
        (folder / name).write_text("{}")
    write_manifest(folder, objective="no-objective", max_length=128, provenance={})
    return folder


def names(place: Path) -> list[str]:
    return sorted(one.relative_to(place).as_posix() for one in place.rglob("*") if one.is_file())


def put(s3: Any, path: str, body: bytes, **more: Any) -> None:
    bucket, _, key = path.partition("/")
    s3.put_object(Bucket=bucket, Key=key, Body=body, **more)


def keys(s3: Any, path: str) -> list[str]:
    bucket, _, key = path.partition("/")
    return [one["Key"].removeprefix(key) for one in s3.list_objects_v2(Bucket=bucket, Prefix=f"{key}/").get("Contents", [])]


def test_a_published_bundle_is_fetched_whole_and_opens(settings: Settings, folder: Path, at: str) -> None:
    seen: list[tuple[int, int]] = []
    published = storage.publish(folder, f"s3://{at}", "s3", "v1", settings=settings, progress=lambda *done: seen.append(done))
    assert published == f"{at}/v1"
    total = sum(one.stat().st_size for one in folder.iterdir())
    assert seen[-1] == (total, total)
    assert len(seen) > 3
    assert seen == sorted(seen)
    for path, revision in ((at, None), (at, "v1"), (f"{at}/v1", None), (f"s3://{at}/", None)):
        place = storage.fetch(path, "s3", settings=settings, revision=revision)
        assert names(place) == names(folder)
        assert open_bundle(place).digest == open_bundle(folder).digest
    assert (place / "model.onnx").read_bytes() == (folder / "model.onnx").read_bytes()


def test_a_download_says_how_far_it_is_and_a_hit_in_the_cache_says_nothing(settings: Settings, folder: Path, at: str) -> None:
    storage.publish(folder, at, "s3", "v1", settings=settings)
    seen: list[tuple[int, int]] = []
    storage.fetch(at, "s3", settings=settings, progress=lambda *done: seen.append(done))
    total = sum(one.stat().st_size for one in folder.iterdir())
    assert seen[-1] == (total, total)
    assert len(seen) > 4
    assert seen == sorted(seen)
    seen.clear()
    storage.fetch(at, "s3", settings=settings, progress=lambda *done: seen.append(done))
    assert seen == []


@pytest.mark.parametrize("name", ["config.json", "model.onnx"])
def test_a_download_that_its_progress_stops_leaves_nothing(settings: Settings, folder: Path, at: str, name: str) -> None:
    at = re.sub(r"[\[\]]", "-", at)
    put(s3_client.client(settings), f"{at}/{name}", (folder / name).read_bytes())

    def progress(done: int, total: int) -> None:
        raise InvalidRequest("stopped")

    with pytest.raises(InvalidRequest, match="stopped"):
        storage.fetch(f"{at}/{name}", "s3", settings=settings, progress=progress)
    assert list((settings.downloads / "staging").iterdir()) == []


def test_a_file_of_a_version_is_fetched_by_its_path(settings: Settings, folder: Path, at: str) -> None:
    version = storage.publish(folder, at, "s3", "v1", settings=settings)
    name = names(folder)[0]
    for _ in range(2):
        place = storage.fetch(f"{version}/{name}", "s3", settings=settings)
        assert (place.name, place.read_bytes()) == (name, (folder / name).read_bytes())
    assert not storage.exists(f"{version}/absent", "s3", settings=settings)


def test_a_version_in_the_cache_costs_no_request_and_the_pointer_one(settings: Settings, relay: Relay, folder: Path, at: str) -> None:
    storage.publish(folder, at, "s3", "v1", settings=settings)
    storage.fetch(at, "s3", settings=settings)
    relay.requests.clear()
    storage.fetch(at, "s3", settings=settings, revision="v1")
    storage.fetch(f"{at}/v1", "s3", settings=settings)
    assert relay.requests == []
    storage.fetch(at, "s3", settings=settings)
    assert len(relay.requests) == 1


def test_the_pointer_moves_and_a_version_stays_as_it_was(settings: Settings, s3: Any, folder: Path, at: str) -> None:
    (folder / "manifest.json").unlink()
    (folder / "model.onnx").write_bytes(b"one")
    storage.publish(folder, at, "s3", "v1", settings=settings)
    (folder / "model.onnx").write_bytes(b"two")
    storage.publish(folder, at, "s3", "v2", settings=settings)
    assert (storage.fetch(at, "s3", settings=settings) / "model.onnx").read_bytes() == b"two"
    assert storage.publish(folder, at, "s3", "v1", settings=settings) == f"{at}/v1"
    assert (storage.fetch(at, "s3", settings=settings) / "model.onnx").read_bytes() == b"one"
    assert json.loads(s3.get_object(Bucket=BUCKET, Key=f"{at.partition('/')[2]}/latest.json")["Body"].read()) == {"version": "v1"}


def another(folder: Path) -> Path:
    """A version with the same graph and another configuration."""
    (folder / "config.json").write_text('{"a": 1}')
    (folder / "manifest.json").unlink()
    write_manifest(folder, objective="no-objective", max_length=128, provenance={})
    return folder


def test_what_the_next_version_has_alike_is_neither_sent_nor_received_again(
    settings: Settings, relay: Relay, folder: Path, at: str
) -> None:
    storage.publish(folder, at, "s3", "v1", settings=settings)
    first = storage.fetch(at, "s3", settings=settings)
    relay.requests.clear()
    seen: list[tuple[int, int]] = []
    storage.publish(another(folder), at, "s3", "v2", settings=settings, progress=lambda *done: seen.append(done))
    assert seen[-1][0] == seen[-1][1]
    assert not relay.count("^POST .*model.onnx.uploads")
    second = storage.fetch(at, "s3", settings=settings)
    assert not relay.count("^GET .*model.onnx")
    assert second != first
    assert (second / "config.json").read_text() == '{"a": 1}'
    assert (second / "model.onnx").read_bytes() == (folder / "model.onnx").read_bytes()
    assert (second / "model.onnx").stat().st_ino == (first / "model.onnx").stat().st_ino
    elsewhere = storage.fetch(at, "s3", settings=dataclasses.replace(settings, home=settings.home / "elsewhere"))
    assert (elsewhere / "model.onnx").read_bytes() == (folder / "model.onnx").read_bytes()


def test_a_download_that_has_changed_on_the_disk_is_not_taken_for_the_next_version(settings: Settings, folder: Path, at: str) -> None:
    storage.publish(folder, at, "s3", "v1", settings=settings)
    first = storage.fetch(at, "s3", settings=settings)
    with (first / "model.onnx").open("r+b") as file:
        file.write(b"damaged")
    storage.publish(another(folder), at, "s3", "v2", settings=settings)
    assert (storage.fetch(at, "s3", settings=settings) / "model.onnx").read_bytes() == (folder / "model.onnx").read_bytes()


def test_what_the_store_cannot_copy_any_more_is_sent(settings: Settings, s3: Any, folder: Path, at: str) -> None:
    storage.publish(folder, at, "s3", "v1", settings=settings)
    (graph,) = [key for key in keys(s3, at) if key.endswith("model.onnx")]
    s3.delete_object(Bucket=BUCKET, Key=at.partition("/")[2] + graph)
    storage.publish(another(folder), at, "s3", "v2", settings=settings)
    assert (storage.fetch(at, "s3", settings=settings) / "model.onnx").read_bytes() == (folder / "model.onnx").read_bytes()


def test_a_version_without_its_marker_is_absent(settings: Settings, s3: Any, folder: Path, at: str) -> None:
    storage.publish(folder, at, "s3", "v1", settings=settings)
    s3.delete_object(Bucket=BUCKET, Key=f"{at.partition('/')[2]}/v1/.complete")
    for path, revision in ((at, None), (at, "v1"), (f"{at}/v1", None)):
        assert not storage.exists(path, "s3", settings=settings, revision=revision)
        with pytest.raises(NotFound):
            storage.fetch(path, "s3", settings=settings, revision=revision)


def test_a_folder_that_nobody_published_is_no_version_though_its_path_is_served(settings: Settings, s3: Any, at: str) -> None:
    put(s3, f"{at}/v1/a.csv", b"1")
    assert names(storage.fetch(f"{at}/v1", "s3", settings=settings)) == ["a.csv"]
    assert not storage.exists(at, "s3", settings=settings, revision="v1")
    with pytest.raises(NotFound):
        storage.fetch(at, "s3", settings=settings, revision="v1")


def publish_at_once(at: str, settings: Settings, tmp_path: Path, publishers: int = 8) -> list[dict[str, str]]:
    """Many publishers of one version, each with files and contents of its own; what readers saw meanwhile, and the last reader."""
    barrier, ended, seen = threading.Barrier(publishers + 1), threading.Event(), []

    def publish(number: int) -> str:
        folder = tmp_path / f"by-{number}"
        folder.mkdir()
        for name in ("a", "b", "c", f"only-{number}"):
            (folder / name).write_text(f"{number}" * 1000)
        barrier.wait()
        return storage.publish(folder, at, "s3", "v1", settings=settings)

    def look(number: int) -> None:
        mine = Settings(home=tmp_path / f"reader-{number}", s3_endpoint=settings.s3_endpoint)
        with contextlib.suppress(NotFound):
            place = storage.fetch(at, "s3", settings=mine, revision="v1")
            seen.append({name: (place / name).read_text() for name in names(place)})

    def read() -> None:
        barrier.wait()
        for number in range(1000):
            if ended.is_set():
                return
            look(number)

    reader = threading.Thread(target=read)
    reader.start()
    with ThreadPoolExecutor(publishers) as pool:
        assert set(pool.map(publish, range(publishers))) == {f"{at}/v1"}
    ended.set()
    reader.join()
    look(1000)
    return seen


def of_one_publisher(files: dict[str, str]) -> bool:
    number = next(iter(files.values()))[0]
    return set(files) == {"a", "b", "c", f"only-{number}"} and set(files.values()) == {number * 1000}


def test_of_many_publishers_of_one_version_one_wins_whole_and_the_others_leave_nothing(
    settings: Settings, s3: Any, tmp_path: Path, at: str
) -> None:
    seen = publish_at_once(at, settings, tmp_path)
    assert of_one_publisher(seen[-1])
    assert all(files == seen[-1] for files in seen)  # whoever read it, and when: there is one content of a version
    # A loser that was still uploading while the winner cleaned up has removed its own files by now.
    assert len(keys(s3, at)) == 6  # four files, the marker, the pointer


def test_a_store_without_conditional_writes_is_noticed_and_contents_are_not_mixed_there_either(
    settings: Settings, s3: Any, tmp_path: Path, at: str, caplog: pytest.LogCaptureFixture
) -> None:
    def ignore(request: Any, **_: Any) -> None:
        del request.headers["If-None-Match"]  # before it is signed: so the real server never sees the condition

    s3.meta.events.register("before-sign.s3.PutObject", ignore)
    try:
        seen = publish_at_once(at, settings, tmp_path)
    finally:
        s3.meta.events.unregister("before-sign.s3.PutObject", ignore)
    assert all(map(of_one_publisher, seen))
    assert "storage.conditions_ignored" in caplog.text
    storage.remove(at, "s3", settings=settings)
    caplog.clear()
    storage.publish(tmp_path / "by-0", at, "s3", "v1", settings=settings)
    assert "storage.conditions_ignored" not in caplog.text


def test_a_version_published_while_another_publisher_still_uploads_is_not_replaced(
    settings: Settings, s3: Any, folder: Path, tmp_path: Path, at: str
) -> None:
    (tmp_path / "quick").mkdir()
    (tmp_path / "quick" / "a").write_text("quick")
    overtaken: list[str] = []

    def overtake(done: int, total: int) -> None:
        if not overtaken:
            overtaken.append(storage.publish(tmp_path / "quick", at, "s3", "v1", settings=settings))

    storage.publish(folder, at, "s3", "v1", settings=settings, progress=overtake)
    assert overtaken == [f"{at}/v1"]
    assert names(storage.fetch(at, "s3", settings=settings)) == ["a"]
    assert len(keys(s3, at)) == 3  # one file, the marker, the pointer


def test_an_upload_that_fails_is_no_version_and_leaves_nothing(settings: Settings, s3: Any, folder: Path, at: str) -> None:
    def progress(done: int, total: int) -> None:
        if done > 1_000_000:
            raise InvalidRequest("stopped")

    with pytest.raises(InvalidRequest, match="stopped"):
        storage.publish(folder, at, "s3", "v1", settings=settings, progress=progress)
    assert not storage.exists(at, "s3", settings=settings)
    assert keys(s3, at) == []


PUBLISH_AND_DIE = """
import os, sys
from pathlib import Path
from mlaas import storage
from mlaas.settings import Settings
def die(done, total):
    if done > 5_000_000:
        os.kill(os.getpid(), 9)
storage.publish(Path(sys.argv[1]), sys.argv[2], "s3", "v1", settings=Settings(s3_endpoint=sys.argv[3]), progress=die)
"""


def test_a_publisher_killed_in_the_middle_leaves_no_version_and_the_next_one_succeeds(
    settings: Settings, s3: Any, folder: Path, at: str
) -> None:
    killed = subprocess.run([sys.executable, "-c", PUBLISH_AND_DIE, folder, at, settings.s3_endpoint or ""], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not storage.exists(at, "s3", settings=settings, revision="v1")
    assert keys(s3, at)  # what was uploaded before
    storage.publish(folder, at, "s3", "v1", settings=settings)
    assert len(keys(s3, at)) == 6  # four files, the marker, the pointer


def test_an_answer_lost_after_the_marker_was_put_does_not_lose_the_version(
    settings: Settings, folder: Path, at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_if_none = s3_publish._put_if_none

    def put_then_fail(*arguments: Any) -> None:
        put_if_none(*arguments)
        raise Unavailable("no answer")

    monkeypatch.setattr(s3_publish, "_put_if_none", put_then_fail)
    with pytest.raises(Unavailable):
        storage.publish(folder, at, "s3", "v1", settings=settings)
    monkeypatch.undo()
    storage.publish(folder, at, "s3", "v1", settings=settings)
    assert open_bundle(storage.fetch(at, "s3", settings=settings)).digest == open_bundle(folder).digest


def test_a_plain_folder_is_served_as_it_is_and_again_only_when_it_changed(settings: Settings, relay: Relay, s3: Any, at: str) -> None:
    put(s3, f"{at}/sub/a.csv", b"one")
    put(s3, f"{at}/b.csv", b"b")
    put(s3, f"{at}-sibling/c.csv", b"not in the folder")
    first = storage.fetch(at, "s3", settings=settings)
    assert names(first) == ["b.csv", "sub/a.csv"]
    relay.requests.clear()
    assert storage.fetch(at, "s3", settings=settings) == first
    assert relay.count(r"\.csv") == 0
    put(s3, f"{at}/sub/a.csv", b"two")
    second = storage.fetch(at, "s3", settings=settings)
    assert ((first / "sub/a.csv").read_bytes(), (second / "sub/a.csv").read_bytes()) == (b"one", b"two")


def test_a_single_file_keeps_its_name_and_is_fetched_again_only_when_it_changed(settings: Settings, relay: Relay, s3: Any, at: str) -> None:
    put(s3, f"{at}/rows.csv", b"one")
    first = storage.fetch(f"s3://{at}/rows.csv", "s3", settings=settings)
    assert (first.name, first.read_bytes()) == ("rows.csv", b"one")
    relay.requests.clear()
    assert storage.fetch(f"{at}/rows.csv", "s3", settings=settings) == first
    assert relay.count(r"GET [^ ]*rows\.csv ") == 0
    put(s3, f"{at}/rows.csv", b"two")
    assert storage.fetch(f"{at}/rows.csv", "s3", settings=settings).read_bytes() == b"two"


@pytest.mark.parametrize("size", [10, LARGE])
def test_an_object_that_is_not_what_its_metadata_says_is_not_served(settings: Settings, s3: Any, at: str, size: int) -> None:
    at = at.replace("[", "-").replace("]", "")
    put(s3, f"{at}/rows.csv", b"x" * size, Metadata={"sha256": "0" * 64})
    for path in (at, f"{at}/rows.csv"):
        with pytest.raises(Unavailable, match=r"`rows\.csv`"):
            storage.fetch(path, "s3", settings=settings)
    assert list((settings.downloads / "staging").iterdir()) == []


@pytest.mark.parametrize("damage", [b"y", b"short", None])
def test_a_folder_that_is_not_what_its_manifest_says_is_not_served(
    settings: Settings, s3: Any, folder: Path, at: str, damage: bytes | None
) -> None:
    at = re.sub(r"[\[\]']", "-", at)
    (folder / "model.onnx").write_bytes(b"x")
    write_manifest(folder, objective="no-objective", max_length=128, provenance={})
    for name in names(folder):
        content = damage if name == "model.onnx" else (folder / name).read_bytes()
        if content is not None:
            put(s3, f"{at}/{name}", content)
    with pytest.raises(Unavailable, match=r"`model\.onnx`"):
        storage.fetch(at, "s3", settings=settings)


def test_what_is_missing_is_not_found(settings: Settings, at: str) -> None:
    for path in (at, f"{at}/rows.csv", "no-such-bucket/x"):
        assert not storage.exists(path, "s3", settings=settings)
        with pytest.raises(NotFound):
            storage.fetch(path, "s3", settings=settings)
    with pytest.raises(NotFound):
        storage.publish(Path(__file__).parent, "no-such-bucket/x", "s3", "v1", settings=settings)


FETCH = """
import sys
from pathlib import Path
from mlaas import storage
from mlaas.settings import Settings
settings = Settings(home=Path(sys.argv[1]), s3_endpoint=sys.argv[2])
print(storage.fetch(sys.argv[3], "s3", settings=settings), flush=True)
"""


def fetching(settings: Settings, path: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", FETCH, str(settings.home), settings.s3_endpoint or "", path]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_many_threads_and_processes_that_ask_at_once_cause_one_download(settings: Settings, relay: Relay, folder: Path, at: str) -> None:
    storage.publish(folder, at, "s3", "v1", settings=settings)
    relay.requests.clear()
    relay.delay = 0.001
    processes = [fetching(settings, at) for _ in range(3)]
    with ThreadPoolExecutor(12) as pool:
        places = {str(place) for place in pool.map(lambda _: storage.fetch(at, "s3", settings=settings), range(12))}
    for process in processes:
        places.add(process.communicate(timeout=60)[0].strip())
        assert process.returncode == 0
    assert len(places) == 1
    assert relay.count(r"GET [^ ]*config\.json") == 1
    assert relay.count(r"GET [^ ]*model\.onnx") == 3  # its parts


def test_a_download_killed_in_the_middle_leaves_nothing_visible_and_the_next_fetch_succeeds(
    settings: Settings, relay: Relay, folder: Path, at: str
) -> None:
    storage.publish(folder, at, "s3", "v1", settings=settings)
    relay.delay = 0.05
    process = fetching(settings, at)
    wait_until(lambda: any(one.stat().st_size for one in (settings.downloads / "staging").glob("*/model.onnx*")), process)
    process.kill()
    process.communicate()
    relay.delay = 0
    assert list((settings.downloads / "entries").glob("*/*")) == []
    assert list((settings.downloads / "staging").iterdir())
    place = storage.fetch(at, "s3", settings=settings)
    assert open_bundle(place).digest == open_bundle(folder).digest
    assert list((settings.downloads / "staging").iterdir()) == []


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_cache_keeps_to_its_size(settings: Settings, tmp_path: Path, folder: Path, at: str) -> None:
    small = Settings(home=settings.home, s3_endpoint=settings.s3_endpoint, cache_bytes=LARGE + 100_000)
    storage.publish(folder, at, "s3", "v1", settings=small)
    storage.publish(folder, at, "s3", "v2", settings=small)
    first = storage.fetch(at, "s3", settings=small, revision="v1")
    os.utime(first, (time.time() - 1000,) * 2)
    second = storage.fetch(at, "s3", settings=small, revision="v2")
    assert (first.exists(), second.exists()) == (False, True)
    assert open_bundle(storage.fetch(at, "s3", settings=small, revision="v1")).folder.exists()


def test_a_store_that_is_away_is_unavailable_and_its_address_is_not_told(settings: Settings, relay: Relay, at: str) -> None:
    relay.close()
    with pytest.raises(Unavailable) as caught:
        storage.fetch(at, "s3", settings=settings)
    assert "127.0.0.1" not in f"{caught.value.detail} {caught.value.remedy}"


@pytest.mark.parametrize("wrong", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_wrong_credentials_are_unavailable_not_the_caller_s_fault(
    settings: Settings, folder: Path, at: str, wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(wrong, "wrong")
    s3_client.forget()
    try:
        with pytest.raises(Unavailable, match="credentials"):
            storage.fetch(at, "s3", settings=settings)
    finally:
        s3_client.forget()
