"""Processes and jobs of the runner: on demand, restarted, retried, and never left behind."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest
import urllib3

from mlaas.errors import MlaasError, Unavailable
from mlaas.local import kafka_server
from mlaas.local.jobs import Jobs
from mlaas.local.manifests import Job, Workload
from mlaas.local.processes import Host, Process
from mlaas.local.records import Event
from mlaas.local.watchdog import Watchdog

SERVER = """
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.send_header("Content-Length", "0"); self.end_headers()
    def log_message(self, *_): pass
print("started", flush=True)
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""
EVENT = Event({"specversion": "1.0", "id": "1", "source": "/s", "type": "t"}, b"{}")


def until(condition, timeout=8.0):
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
def host(tmp_path):
    watchdog, pool = Watchdog(), urllib3.PoolManager()
    yield Host(watchdog, lambda manifest: {**os.environ, **manifest}, tmp_path, tmp_path / "logs", pool)
    watchdog.close()
    pool.clear()


@pytest.fixture
def process(host):
    made = []

    def start(code=SERVER, **options):
        one = Process(Workload("f", ("python", "-c", code), {}, **{"retention": 60.0, **options}), host, probed=True)
        made.append(one)
        one.start()
        return one

    yield start
    for one in made:
        one.stop()


def starts(host):
    return (host.logs / "f.log").read_text().count("started")


def test_many_who_wait_start_a_function_once(host, process):
    function, urls = process(), []

    def call():
        with function.use() as url:
            urls.append(url)

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(urls) == 8
    assert len(set(urls)) == 1
    assert starts(host) == 1
    assert function.state()["state"] == "running"


def test_a_function_that_nobody_asks_for_is_not_started(process):
    function = process()
    time.sleep(0.2)
    assert function.state() == {"state": "idle", "pid": None, "restarts": 0}


def test_an_idle_function_ends_and_one_in_use_does_not(host, process):
    function = process(retention=0.3)
    with function.use():
        pid = function.pid
        time.sleep(0.6)
        assert alive(pid)
    until(lambda: function.state()["state"] == "idle")
    assert not alive(pid)
    with function.use():
        assert function.pid != pid
    assert starts(host) == 2
    assert function.restarts == 0


def test_a_function_that_dies_is_restarted_for_the_next_who_asks(host, process):
    function = process()
    with function.use():
        os.kill(function.pid, signal.SIGKILL)
    until(lambda: function.restarts == 1)
    with function.use():
        assert starts(host) == 2


def test_one_that_is_always_on_starts_by_itself_and_comes_back(host, process):
    function = process(retention=None)
    until(lambda: function.url)
    os.kill(function.pid, signal.SIGKILL)
    until(lambda: starts(host) == 2 and function.url)


def test_a_function_that_cannot_start_refuses_its_callers_soon(process):
    function = process("raise SystemExit(1)")
    started = time.monotonic()
    with pytest.raises(Unavailable, match="does not start") as caught, function.use(timeout=30):
        pass
    assert time.monotonic() - started < 10
    assert caught.value.retry_after > 0


def test_stopping_ends_the_process_and_frees_who_waits(process):
    function = process("import time; time.sleep(100)")
    caught = []

    def call():
        try:
            with function.use(timeout=30):
                pass
        except Unavailable as error:
            caught.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    until(lambda: function.pid)
    pid = function.pid
    function.stop()
    thread.join(2)
    assert caught
    assert not alive(pid)


def jobs(host, tmp_path, code, **options):
    queue = Jobs(Job("train", ("python", "-c", code), {}, **{"backoff_limit": 1, "deadline": 30.0, **options}), host, tmp_path / "jobs")
    queue.start()
    return queue


def test_the_same_event_makes_one_job_that_finds_its_event(host, tmp_path):
    queue = jobs(
        host,
        tmp_path,
        "import os, pathlib; e = pathlib.Path(os.environ['K_EVENT_PATH']); print((e / 'event').read_text(), os.environ['K_EXECUTION_MODE'])",
    )
    for _ in range(3):
        queue.accept(EVENT)
    until(lambda: list((tmp_path / "jobs").glob("*/succeeded")))
    queue.accept(EVENT)
    time.sleep(0.2)
    queue.stop()
    (log,) = host.logs.glob("train-*.log")
    assert log.read_text().count("batch") == 1
    assert '"id": "1"' in log.read_text()


def test_a_job_that_fails_is_tried_again_up_to_its_limit(host, tmp_path):
    queue = jobs(host, tmp_path, "print('try', flush=True); raise SystemExit(3)")
    queue.accept(EVENT)
    until(lambda: list((tmp_path / "jobs").glob("*/failed")))
    queue.stop()
    assert next(host.logs.glob("train-*.log")).read_text().count("try") == 2
    assert "exit status 3" in next((tmp_path / "jobs").glob("*/failed")).read_text()


def test_a_job_that_takes_too_long_is_ended_and_failed(host, tmp_path):
    queue = jobs(host, tmp_path, "import time; time.sleep(100)", deadline=0.3)
    queue.accept(EVENT)
    until(lambda: list((tmp_path / "jobs").glob("*/failed")))
    queue.stop()
    assert "activeDeadlineSeconds" in next((tmp_path / "jobs").glob("*/failed")).read_text()


def test_a_job_that_is_stopped_stays_unfinished_and_is_run_at_the_next_start(host, tmp_path):
    code = "import os, pathlib, time; m = pathlib.Path(os.environ['K_EVENT_PATH']) / 'mark'\nif not m.exists(): m.touch(); time.sleep(100)"
    first = jobs(host, tmp_path, code)
    first.accept(EVENT)
    until(lambda: list((tmp_path / "jobs").glob("*/mark")))
    first.stop()
    (folder,) = (tmp_path / "jobs").iterdir()
    assert not {"succeeded", "failed", "attempts"} & {path.name for path in folder.iterdir()}
    second = jobs(host, tmp_path, code)
    until(lambda: (folder / "succeeded").exists())
    second.stop()


def test_one_job_runs_at_a_time(host, tmp_path):
    code = "import pathlib, time; print('begin', flush=True); time.sleep(0.2); print('end', flush=True)"
    queue = jobs(host, tmp_path, f"import sys; sys.stdout = open({str(tmp_path / 'order')!r}, 'a')\n{code}")
    for number in range(3):
        queue.accept(Event({**EVENT.attributes, "id": str(number)}, b"{}"))
    until(lambda: len(list((tmp_path / "jobs").glob("*/succeeded"))) == 3)
    queue.stop()
    assert (tmp_path / "order").read_text().split() == ["begin", "end"] * 3


def test_children_and_their_children_end_with_an_owner_that_is_killed(tmp_path):
    child = "import subprocess, sys, time; print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(100)']).pid, flush=True); time.sleep(100)"
    owner = (
        "import sys, time; from pathlib import Path; from mlaas.local.watchdog import Watchdog\n"
        f"print(Watchdog().spawn([sys.executable, '-c', {child!r}], Path({str(tmp_path / 'log')!r})).pid, flush=True); time.sleep(100)"
    )
    with subprocess.Popen([sys.executable, "-c", owner], stdout=subprocess.PIPE, text=True) as process:
        pid = int(process.stdout.readline())
        until(lambda: (tmp_path / "log").exists() and (tmp_path / "log").read_text().strip())
        grandchild = int((tmp_path / "log").read_text())
        assert alive(pid)
        assert alive(grandchild)
        process.kill()
    until(lambda: not _running(pid) and not _running(grandchild))


def _running(pid):
    """Whether it runs; one that ended and waits for its new parent, init, does not."""
    done = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return done.stdout.strip()[:1] not in ("", "Z")


def test_without_the_network_the_installation_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("JGO_OFFLINE", "true")
    with pytest.raises(MlaasError) as caught:
        kafka_server.install()
    assert "mlaas.local.kafka_server install" in caught.value.remedy
    assert not kafka_server.installed()
    assert list((tmp_path / "mlaas").iterdir()) == [], "nothing half done is left"


def test_an_installation_of_which_a_jar_is_missing_is_none(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    kafka_server.folder().mkdir(parents=True)
    (kafka_server.folder() / "jars.json").write_text('{"a.jar": 1}')
    assert not kafka_server.installed()
    (kafka_server.folder() / "a.jar").write_bytes(b"x")
    assert kafka_server.installed()
