"""Processes and jobs of the runner: on demand, restarted, retried, and never left behind."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from mlaas import events
from mlaas.errors import MlaasError, Unavailable
from mlaas.local import kafka_server
from mlaas.local.manifests import Workload
from mlaas.local.processes import JobSink, Process, Watchdog

SERVER = """
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.send_header("Content-Length", "0"); self.end_headers()
    def log_message(self, *_): pass
print("started", flush=True)
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""


def event(number=1):
    return events.build("t", "/s", {}, id=str(number))


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
def spawn(tmp_path):
    watchdog = Watchdog()

    def start(name, workload, **env):
        return watchdog.spawn(workload.command, tmp_path / f"{name}.log", env={**os.environ, **env}, cwd=tmp_path)

    yield start
    watchdog.close()


@pytest.fixture
def process(spawn):
    made, stopped = [], threading.Event()

    def start(code=SERVER, **options):
        one = Process("f", Workload(("python", "-c", code), {}, **{"retention": 60.0, **options}), spawn)
        made.append(one)
        return one

    def tend():
        while not stopped.wait(0.02):
            for one in made:
                one.tend()

    thread = threading.Thread(target=tend)
    thread.start()
    yield start
    stopped.set()
    thread.join()
    for one in made:
        one._http.clear()


def starts(folder):
    return (folder / "f.log").read_text().count("started")


def ask(function):
    assert function.ask("GET", "/").status == 200
    return function.pid


def test_many_who_wait_start_a_function_once(tmp_path, process):
    function, pids = process(), []
    threads = [threading.Thread(target=lambda: pids.append(ask(function))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(pids) == 8
    assert len(set(pids)) == 1
    assert starts(tmp_path) == 1
    assert function.state()["state"] == "running"


def test_a_function_that_nobody_asks_for_is_not_started(process):
    function = process()
    time.sleep(0.2)
    assert function.state() == {"state": "idle", "pid": None, "restarts": 0}


def test_an_idle_function_ends_and_one_in_use_does_not(tmp_path, process):
    slow = SERVER.replace("self.send_response(200)", "__import__('time').sleep(0.6 * (self.path == '/slow')); self.send_response(200)")
    function = process(slow, retention=0.3)
    pid = ask(function)
    assert function.ask("GET", "/slow").status == 200
    assert function.pid == pid
    until(lambda: function.state()["state"] == "idle")
    assert not alive(pid)
    assert ask(function) != pid
    assert starts(tmp_path) == 2
    assert function.restarts == 0


def test_a_function_that_dies_is_started_again_for_the_next_who_asks(tmp_path, process):
    function = process()
    os.kill(ask(function), signal.SIGKILL)
    until(lambda: function.restarts == 1)
    time.sleep(1.1)
    ask(function)
    assert starts(tmp_path) == 2


def test_a_deployment_starts_by_itself_and_comes_back(tmp_path, process):
    deployment = process("import time; print('started', flush=True); time.sleep(100)", retention=None)
    until(lambda: deployment.pid and starts(tmp_path) == 1)
    os.kill(deployment.pid, signal.SIGKILL)
    until(lambda: starts(tmp_path) == 2 and deployment.pid)


def test_a_function_that_cannot_start_refuses_its_callers_soon(process):
    function = process("raise SystemExit(1)")
    started = time.monotonic()
    with pytest.raises(Unavailable, match="does not start") as caught:
        function.ask("GET", "/")
    assert time.monotonic() - started < 5
    assert caught.value.retry_after > 0


@pytest.fixture
def jobs(tmp_path, spawn):
    stopping = threading.Event()

    def make(code, **options):
        stopping.clear()
        job = Workload(("python", "-c", code), {}, **{"backoff_limit": 1, "deadline": 30.0, **options})
        return JobSink("train", job, spawn, tmp_path / "jobs", stopping), stopping

    return make


def test_the_same_event_makes_one_job_that_finds_its_event(tmp_path, jobs):
    sink, _ = jobs(
        "import os, pathlib; e = pathlib.Path(os.environ['K_EVENT_PATH']); print((e / 'event').read_text(), os.environ['K_EXECUTION_MODE'])"
    )
    for _ in range(3):
        sink.run(event())
    assert list((tmp_path / "jobs").glob("*/succeeded"))
    (log,) = tmp_path.glob("train-*.log")
    assert log.read_text().count("batch") == 1
    assert '"id": "1"' in log.read_text()
    assert sink.state() == {"running": False, "unfinished": 0}


def test_a_job_that_fails_is_tried_again_up_to_its_limit(tmp_path, jobs):
    jobs("print('try', flush=True); raise SystemExit(3)")[0].run(event())
    assert next(tmp_path.glob("train-*.log")).read_text().count("try") == 2
    assert "exit status 3" in next((tmp_path / "jobs").glob("*/failed")).read_text()


def test_a_job_that_takes_too_long_is_ended_and_failed(tmp_path, jobs):
    jobs("import time; time.sleep(100)", deadline=0.3)[0].run(event())
    assert "activeDeadlineSeconds" in next((tmp_path / "jobs").glob("*/failed")).read_text()


def test_a_job_that_is_stopped_stays_unfinished_and_is_run_when_its_event_comes_again(tmp_path, jobs):
    code = "import os, pathlib, time; m = pathlib.Path(os.environ['K_EVENT_PATH']) / 'mark'\nif not m.exists(): m.touch(); time.sleep(100)"
    sink, stopping = jobs(code, backoff_limit=0)
    caught = []

    def run():
        try:
            sink.run(event())
        except Unavailable as error:
            caught.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    until(lambda: list((tmp_path / "jobs").glob("*/mark")))
    stopping.set()
    thread.join()
    assert caught
    (folder,) = (tmp_path / "jobs").iterdir()
    assert not {"succeeded", "failed"} & {path.name for path in folder.iterdir()}
    assert sink.state()["unfinished"] == 1
    jobs(code)[0].run(event())
    assert (folder / "succeeded").exists()


def test_one_job_runs_at_a_time(tmp_path, jobs):
    code = "import time; print('begin', flush=True); time.sleep(0.2); print('end', flush=True)"
    sink, _ = jobs(f"import sys; sys.stdout = open({str(tmp_path / 'order')!r}, 'a')\n{code}")
    threads = [threading.Thread(target=sink.run, args=(event(number),)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "order").read_text().split() == ["begin", "end"] * 3


def test_children_and_their_children_end_with_an_owner_that_is_killed(tmp_path):
    child = "import subprocess, sys, time; print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(100)']).pid, flush=True); time.sleep(100)"
    owner = (
        "import sys, time; from pathlib import Path; from mlaas.local.processes import Watchdog\n"
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
