"""S3: killed, silent, slow, and corrupt."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import requests

from mlaas import storage
from mlaas.errors import Unavailable
from mlaas.patience import persist
from mlaas.settings import Settings
from mlaas.storage import s3_client
from mlaas.storage.manifests import sha256_of
from mlaas.testing import tiny_models
from mlaas.testing.fault_table import Row
from mlaas.testing.processes import serving, until
from mlaas.testing.s3_server import BUCKET, S3Server
from mlaas.testing.toxic_proxy import ToxicProxy

SIZE = 24 * 1024**2  # bytes: three parts
MB = 1024**2
FUNCTIONS = Path(__file__).parents[2] / "functions"


@pytest.fixture
def at(request: pytest.FixtureRequest) -> str:
    return f"{BUCKET}/{request.node.name}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A version to publish: one large file, one small."""
    folder = tmp_path / "made"
    folder.mkdir()
    (folder / "large").write_bytes(os.urandom(SIZE))
    (folder / "small").write_bytes(b"{}")
    return folder


@pytest.fixture
def settings(s3: ToxicProxy, tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", s3_endpoint=f"http://127.0.0.1:{s3.port}")


def lost(folder: Path, fetched: Path) -> int:
    """Files that are not there as they were published."""
    return sum(not (fetched / one.name).is_file() or sha256_of(fetched / one.name) != sha256_of(one) for one in folder.iterdir())


def in_thread(call: object) -> tuple[threading.Thread, list[object]]:
    """`call` in a thread; its result, or what it raised, in the list."""
    outcome: list[object] = []

    def run() -> None:
        try:
            outcome.append(call())  # type: ignore[operator]
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, outcome


@pytest.mark.fault("kill -9 of S3, while a version is published", deadline=90)
def test_a_publication_outlives_a_killed_store(
    row: Row, draw: random.Random, s3: ToxicProxy, s3_server: S3Server, settings: Settings, folder: Path, at: str
) -> None:
    strike, sent = draw.randint(2 * MB, SIZE - 2 * MB), threading.Event()
    s3_client.client(settings)

    def progress(done: int, _total: int) -> None:
        if done >= strike and not sent.is_set():
            s3_server.kill()
            sent.set()

    thread, outcome = in_thread(lambda: persist(lambda: storage.publish(folder, at, "s3", "v1", settings=settings, progress=progress), 60))
    assert sent.wait(30)
    time.sleep(2)
    assert thread.is_alive(), "a job waits for its store"
    s3_server.start_again()
    again = time.monotonic()
    thread.join()
    seconds = time.monotonic() - again
    assert outcome == [f"{at}/v1"]
    found = lost(folder, storage.fetch(at, "s3", settings=settings))
    row.measured(
        moment=f"after {strike // MB} of {SIZE // MB} MB, away for 2 s", in_flight="an upload in parts", lost=found, seconds=seconds
    )


FETCH = """
import sys
from pathlib import Path
from mlaas import storage
from mlaas.settings import Settings
from mlaas.patience import persist
settings = Settings(home=Path(sys.argv[1]), s3_endpoint=sys.argv[2])
print(persist(lambda: storage.fetch(sys.argv[3], "s3", settings=settings), 60), flush=True)
"""


@pytest.mark.fault("kill -9 of S3, while a version is fetched", deadline=90)
def test_a_download_outlives_a_killed_store(
    row: Row, draw: random.Random, s3: ToxicProxy, s3_server: S3Server, settings: Settings, folder: Path, at: str
) -> None:
    storage.publish(folder, at, "s3", "v1", settings=settings)
    s3.rate = 8 * MB
    strike = draw.randint(1 * MB, SIZE // 2)
    command = [sys.executable, "-c", FETCH, str(settings.home), str(settings.s3_endpoint), at]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        until(lambda: received(settings) >= strike, 30, "the download", every=0.01)
        s3_server.kill()
        s3.heal()
        time.sleep(2)
        assert process.poll() is None, "a job waits for its store"
        s3_server.start_again()
        again = time.monotonic()
        place = Path(process.communicate(timeout=60)[0].strip())
        seconds = time.monotonic() - again
    row.measured(
        moment=f"after {strike // MB} of {SIZE // MB} MB, away for 2 s",
        in_flight="a download in parts",
        lost=lost(folder, place),
        seconds=seconds,
    )


def received(settings: Settings) -> int:
    total = 0
    for one in (settings.downloads / "staging").glob("*/*"):
        try:
            total += one.stat().st_blocks * 512  # parts are written in their places: the size alone says little
        except OSError:
            continue
    return total


@pytest.mark.fault("a download with one bit flipped on its way")
def test_a_corrupt_download_is_never_served_and_does_not_stay(
    row: Row, draw: random.Random, s3: ToxicProxy, settings: Settings, folder: Path, at: str
) -> None:
    storage.publish(folder, at, "s3", "v1", settings=settings)
    place = draw.randint(MB, SIZE - MB)
    s3.flip(after=place)
    with pytest.raises(Unavailable, match="`large` was not received as it was published"):
        storage.fetch(at, "s3", settings=settings)
    assert s3.flipped
    struck = time.monotonic()
    assert not list((settings.downloads / "entries").glob("*/*"))
    assert not list((settings.downloads / "staging").iterdir())
    found = lost(folder, storage.fetch(at, "s3", settings=settings))
    seconds = time.monotonic() - struck
    row.measured(moment=f"in byte {place:,} of {SIZE:,}", in_flight="a download", lost=found, seconds=seconds)


@pytest.mark.fault("an object that is corrupt in the store")
def test_a_corrupt_object_is_refused_each_time_until_it_is_mended(
    row: Row, draw: random.Random, s3: ToxicProxy, settings: Settings, folder: Path, at: str
) -> None:
    storage.publish(folder, at, "s3", "v1", settings=settings)
    client = s3_client.client(settings)
    prefix = f"{at.partition('/')[2]}/v1/"
    key = next(one["Key"] for one in client.list_objects_v2(Bucket=BUCKET, Prefix=prefix)["Contents"] if one["Key"].endswith("/large"))
    good = (folder / "large").read_bytes()
    place = draw.randrange(SIZE)
    client.put_object(Bucket=BUCKET, Key=key, Body=good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
    for _ in range(2):
        with pytest.raises(Unavailable, match="`large`"):
            storage.fetch(at, "s3", settings=settings)
    client.put_object(Bucket=BUCKET, Key=key, Body=good)
    mended = time.monotonic()
    found = lost(folder, storage.fetch(at, "s3", settings=settings))
    row.measured(moment=f"in byte {place:,} of {SIZE:,}", in_flight="two downloads", lost=found, seconds=time.monotonic() - mended)


@pytest.mark.fault("a slow S3")
def test_a_slow_store_is_slow_and_nothing_else(
    row: Row, draw: random.Random, s3: ToxicProxy, settings: Settings, folder: Path, at: str
) -> None:
    storage.publish(folder, at, "s3", "v1", settings=settings)
    s3.delay, s3.rate = draw.uniform(0.01, 0.05), draw.uniform(2, 3) * MB
    started = time.monotonic()
    found = lost(folder, storage.fetch(at, "s3", settings=settings))
    row.measured(
        moment=f"{s3.delay * 1000:.0f} ms and {s3.rate / MB:.1f} MB/s a connection",
        in_flight=f"a download of {SIZE // MB} MB",
        lost=found,
        seconds=time.monotonic() - started,
    )


@pytest.mark.fault("a half-open S3: connections stay, nothing comes", deadline=150)
def test_a_request_to_a_silent_store_is_answered_with_503_in_time(
    row: Row, draw: random.Random, s3: ToxicProxy, place: Settings, tmp_path: Path, at: str
) -> None:
    bundle = tiny_models.classifier(tmp_path / "classifier")
    storage.publish(bundle.folder, at, "s3", "v1", settings=place)
    cold = {"model": {"path": at, "storage_type": "s3"}, "predict_input": {"input_text": ["INFN Frascati"]}}
    warm = {"model": {"name": "infn-structures"}, "predict_input": {"input_text": ["INFN Frascati"]}}
    with serving(FUNCTIONS / "classify", {}) as (url, _):
        assert requests.post(url, json=warm, timeout=30).ok
        s3.black_hole()
        thread, outcome = in_thread(lambda: requests.post(url, json=cold, timeout=120))
        time.sleep(draw.uniform(0.5, 3))
        started = time.monotonic()
        others = [requests.post(url, json=warm, timeout=5).status_code for _ in range(20)]
        assert time.monotonic() - started < 5
        assert others == [200] * 20, "who needs nothing from the store is served"
        began = time.monotonic()
        thread.join()
        [answer] = outcome
        assert isinstance(answer, requests.Response), answer
        assert (answer.status_code, "Retry-After" in answer.headers) == (503, True)
        held = time.monotonic() - began
        assert held < 75
        s3.heal()
        healed = time.monotonic()
        until(lambda: requests.post(url, json=cold, timeout=30).ok, 30, "service")
        seconds = time.monotonic() - healed
    row.measured(
        moment=f"before a cold start; 503 after {held:.0f} s", in_flight="1 request; 20 others were answered", lost=0, seconds=seconds
    )
