import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mlaas.errors import Unavailable
from mlaas.storage.cache import Cache


def of(content: bytes) -> Callable[[Path], None]:
    def download(staging: Path) -> None:
        (staging / "file").write_bytes(content)

    return download


def never(staging: Path) -> None:
    raise AssertionError("downloaded again")


def sleep_then_count(folder: Path, counter: Path) -> Callable[[Path], None]:
    def download(staging: Path) -> None:
        with counter.open("ab") as file:
            file.write(b"x")
        (staging / "first").write_bytes(b"1")
        time.sleep(0.3)
        (staging / "second").write_bytes(b"2")

    return download


def age(place: Path, seconds: float) -> None:
    os.utime(place, (time.time() - seconds,) * 2)


def test_a_second_fetch_downloads_nothing(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 1000)
    first = cache.get_or_download("s", "v", 4, of(b"data"))
    assert cache.get_or_download("s", "v", 4, never) == first
    assert cache.get("s", "v") == first
    assert (first / "file").read_bytes() == b"data"


def test_a_changed_source_is_another_entry_and_the_old_files_stay_as_they_are(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 1000)
    old = cache.get_or_download("s", "one", 4, of(b"old"))
    new = cache.get_or_download("s", "two", 4, of(b"new"))
    assert ((old / "file").read_bytes(), (new / "file").read_bytes()) == (b"old", b"new")


def test_a_failed_download_leaves_nothing_and_the_next_one_succeeds(tmp_path: Path) -> None:
    def fails(staging: Path) -> None:
        (staging / "half").write_bytes(b"x")
        raise Unavailable("away")

    cache = Cache(tmp_path, 1000)
    with pytest.raises(Unavailable, match="away"):
        cache.get_or_download("s", "v", 1, fails)
    assert cache.get("s", "v") is None
    assert list((tmp_path / "staging").iterdir()) == []
    assert cache.get_or_download("s", "v", 1, of(b"good")).is_dir()


def test_the_least_recently_used_entries_are_evicted_and_never_the_one_just_fetched(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 250, grace=0)
    a, b = (cache.get_or_download(name, "v", 100, of(b"x" * 100)) for name in "ab")
    age(a, 100)
    age(b, 50)
    assert cache.get("a", "v") == a  # now b is the least recently used
    c = cache.get_or_download("c", "v", 100, of(b"x" * 100))
    assert [place.is_dir() for place in (a, b, c)] == [True, False, True]
    huge = cache.get_or_download("huge", "v", 900, of(b"x" * 900))
    assert [place.is_dir() for place in (a, c, huge)] == [False, False, True]


def test_an_entry_that_was_just_given_out_is_not_evicted(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 100)
    just, long_ago = (cache.get_or_download(name, "v", 100, of(b"x" * 100)) for name in "ab")
    age(long_ago, 1000)
    cache.get_or_download("c", "v", 100, of(b"x" * 100))
    assert just.is_dir()
    assert not long_ago.is_dir()


def test_an_entry_in_use_by_a_running_fetch_is_not_evicted(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 100, grace=0)
    old = cache.get_or_download("a", "one", 100, of(b"x" * 100))
    age(old, 1000)
    started, go_on = threading.Event(), threading.Event()

    def slow(staging: Path) -> None:
        started.set()
        assert go_on.wait(10)

    # The fetch of a newer state of `a` holds its lock, so its older entry is left alone by the fetch of `b`.
    busy = threading.Thread(target=lambda: Cache(tmp_path, 10_000, grace=0).get_or_download("a", "two", 1, slow))
    busy.start()
    assert started.wait(10)
    cache.get_or_download("b", "v", 100, of(b"x" * 100))
    still_there = old.is_dir()
    go_on.set()
    busy.join()
    assert still_there
    cache.get_or_download("c", "v", 100, of(b"x" * 100))
    assert not old.is_dir()


def test_many_threads_that_ask_at_once_cause_one_download_and_see_it_whole(tmp_path: Path) -> None:
    counter = tmp_path / "count"
    seen: list[list[str]] = []

    def ask() -> None:
        place = Cache(tmp_path / "c", 1000).get_or_download("s", "v", 2, sleep_then_count(tmp_path, counter))
        seen.append(sorted(os.listdir(place)))

    threads = [threading.Thread(target=ask) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counter.read_bytes() == b"x"
    assert seen == [["first", "second"]] * 20


PROCESS = """
import sys, time
from pathlib import Path
from mlaas.storage.cache import Cache
folder = Path(sys.argv[1])
def download(staging):
    with (folder / "count").open("ab") as file:
        file.write(b"x")
    (staging / "file").write_bytes(b"half")
    (folder / "started").touch()
    time.sleep(float(sys.argv[2]))
    (staging / "file").write_bytes(b"whole")
place = Cache(folder / "c", 1000).get_or_download("s", "v", 5, download)
assert (place / "file").read_bytes() == b"whole"
"""


def test_many_processes_that_ask_at_once_cause_one_download(tmp_path: Path) -> None:
    processes = [subprocess.Popen([sys.executable, "-c", PROCESS, tmp_path, "0.5"]) for _ in range(6)]
    assert [process.wait(30) for process in processes] == [0] * 6
    assert (tmp_path / "count").read_bytes() == b"x"


def test_a_process_killed_in_the_middle_leaves_only_litter_and_the_next_fetch_sweeps_it(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", PROCESS, tmp_path, "60"])
    while not (tmp_path / "started").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    assert process.wait(10) == -signal.SIGKILL
    cache = Cache(tmp_path / "c", 1000)
    assert cache.get("s", "v") is None
    assert len(list((tmp_path / "c" / "staging").iterdir())) == 1
    assert (cache.get_or_download("s", "v", 5, of(b"whole")) / "file").read_bytes() == b"whole"
    assert list((tmp_path / "c" / "staging").iterdir()) == []


def test_old_litter_of_other_sources_is_swept_and_young_litter_is_not(tmp_path: Path) -> None:
    old, young = tmp_path / "staging" / f"{'0' * 32}.a", tmp_path / "staging" / f"{'1' * 32}.b"
    old.mkdir(parents=True)
    young.mkdir()
    age(old, 10_000)
    Cache(tmp_path, 1000).get_or_download("s", "v", 1, of(b"x"))
    assert (old.is_dir(), young.is_dir()) == (False, True)


def test_a_cache_that_cannot_be_written_is_unavailable_and_says_which_setting(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable) as caught:
        Cache(tmp_path / "file", 1000).get_or_download("s", "v", 1, never)
    assert "MLAAS_CACHE" in (caught.value.remedy or "")
    assert str(tmp_path) not in caught.value.detail
