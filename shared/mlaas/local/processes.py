"""Child processes: functions and deployments, started on demand and again when they die; jobs, run until they succeed.

None outlives this process: all are in one process group with a watchdog that reads a pipe this process holds open. When
it closes, because its owner was killed with -9, the whole group is ended. Unlike Linux's PR_SET_PDEATHSIG this works on
any Unix, from any thread, for the children's children too; and the terminal's Ctrl-C does not reach the group.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import urllib3
from cloudevents.conversion import to_structured
from cloudevents.http import CloudEvent

from ..errors import Unavailable
from ..events import derived_id
from .manifests import Workload

__all__ = ["GRACE_SECONDS", "JobSink", "Process", "Watchdog", "end", "free_port"]

READY_SECONDS, GRACE_SECONDS = 60.0, 3.0
_WATCH = f"""
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.read(int(sys.argv[1]), 1)
os.killpg(0, signal.SIGTERM)
time.sleep({GRACE_SECONDS})
os.killpg(0, signal.SIGKILL)
"""

log = logging.getLogger("mlaas")
Spawn = Callable[..., subprocess.Popen[bytes]]  # given a name for the log, a Workload, and what goes into its environment


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def end(child: subprocess.Popen[bytes], grace: float = GRACE_SECONDS) -> None:
    """End `child`: SIGTERM, and SIGKILL after `grace` seconds."""
    child.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(grace)
    child.kill()
    child.wait()


class Watchdog:
    """Starts processes and ends them all together; `held` is a descriptor (a lock) that stays open until then."""

    def __init__(self, *held: int) -> None:
        reading, self._writing = os.pipe()
        command = [sys.executable, "-c", _WATCH, str(reading)]
        self._process = subprocess.Popen(command, pass_fds=(reading, *held), process_group=0)  # noqa: S603
        os.close(reading)
        self._children: list[subprocess.Popen[bytes]] = []

    def spawn(self, command: Sequence[str], log: Path, **options: Any) -> subprocess.Popen[bytes]:
        """Start `command`, its output appended to `log`; `python` is the interpreter that runs the platform."""
        command = [sys.executable, *command[1:]] if command[0] == "python" else list(command)
        with log.open("ab") as out:
            group, nothing = self._process.pid, subprocess.DEVNULL
            child = subprocess.Popen(command, process_group=group, stdin=nothing, stdout=out, stderr=out, **options)  # noqa: S603
        self._children.append(child)
        return child

    def close(self) -> None:
        """End everything together: SIGTERM, and SIGKILL after a moment."""
        os.killpg(self._process.pid, signal.SIGTERM)
        deadline = time.monotonic() + GRACE_SECONDS
        while any(child.poll() is None for child in self._children) and time.monotonic() < deadline:
            time.sleep(0.05)
        os.killpg(self._process.pid, signal.SIGKILL)
        for child in (*self._children, self._process):
            child.wait()
        os.close(self._writing)


class Process:
    """A workload that serves: `ask` starts it on demand, `tend`, called again and again, ends it when it is idle."""

    def __init__(self, name: str, workload: Workload, spawn: Spawn) -> None:
        self._name, self._workload, self._spawn = name, workload, spawn
        self._http = urllib3.PoolManager(maxsize=32)
        self._lock, self._asked = threading.Lock(), set[object]()  # whoever holds the lock starts or ends it, all else wait
        self._child: subprocess.Popen[bytes] | None = None
        self._state, self._url, self._last_use, self._not_before, self.restarts = "idle", "", 0.0, 0.0, 0

    @property
    def pid(self) -> int | None:
        """The process id, while there is a process."""
        child = self._child
        return child.pid if child else None

    def state(self) -> dict[str, object]:
        """For people: idle, starting, running or stopping, the process id, and how often it died."""
        return {"state": self._state, "pid": self.pid, "restarts": self.restarts}

    def ask(self, method: str, path: str, **options: Any) -> urllib3.BaseHTTPResponse:
        """The process' answer to an HTTP request; one start serves all who wait for it. Raises Unavailable."""
        this = object()
        self._asked.add(this)
        try:
            with self._lock:
                self._notice_death()
                if not self._child:
                    self._start()
                url = self._url
            return self._http.request(method, f"{url}{path}", retries=False, redirect=False, **options)
        except urllib3.exceptions.HTTPError as error:
            detail = f"the function {self._name} gave no answer ({type(error).__name__})"
            raise Unavailable(detail, retry_after=1, remedy="Send the request again.") from None
        finally:
            self._last_use = time.monotonic()
            self._asked.remove(this)

    def tend(self) -> None:
        """Notice that it died; start a deployment, which is always on; end what is idle."""
        if self._lock.locked():  # someone starts it
            return
        with self._lock:
            self._notice_death()
            retention = self._workload.retention
            if retention is None and not self._child:
                with contextlib.suppress(Unavailable):
                    self._start()
            elif self._child and retention is not None and not self._asked and time.monotonic() - self._last_use > retention:
                self._state = "stopping"
                end(self._child)
                self._child, self._state, self._not_before = None, "idle", 0.0  # it did not die: who asks now need not wait

    def _notice_death(self) -> None:
        if self._child and self._child.poll() is not None:
            log.warning("process.died", extra={"fields": {"name": self._name, "status": self._child.returncode}})
            self._child, self._state, self.restarts = None, "idle", self.restarts + 1

    def _start(self) -> None:
        """Start it and wait until it is ready; not at once again when it has just died. Raises Unavailable."""
        now, port = time.monotonic(), str(free_port())
        if now > self._not_before:
            self._not_before, self._url, self._state = now + 1.0, f"http://127.0.0.1:{port}", "starting"
            self._child = self._spawn(self._name, self._workload, PORT=port)
            while self._child.poll() is None and time.monotonic() < now + READY_SECONDS:
                if self._workload.retention is None or self._ready():
                    self._state = "running"
                    return
                time.sleep(0.02)
            end(self._child)
            self._notice_death()
        raise Unavailable(f"the function {self._name} does not start", retry_after=1, remedy=f"Its log {self._name}.log says why.")

    def _ready(self) -> bool:
        with contextlib.suppress(urllib3.exceptions.HTTPError):
            return self._http.request("GET", f"{self._url}/health/readiness", timeout=2.0, retries=False).status == 200
        return False


class JobSink:
    """Runs each event's job once to its end, however often the event comes; one at a time, each in a folder of its own."""

    def __init__(self, name: str, job: Workload, spawn: Spawn, folder: Path, stopping: threading.Event) -> None:
        self._name, self._job, self._spawn, self._folder, self._stopping = name, job, spawn, folder, stopping
        self._lock = threading.Lock()

    def state(self) -> dict[str, object]:
        """For people: the jobs that were begun and have not ended."""
        unfinished = [folder.name for folder in self._folder.glob(f"{self._name}-{'?' * 36}") if not _ended(folder)]
        return {"running": self._lock.locked(), "unfinished": len(unfinished)}

    def run(self, event: CloudEvent) -> None:
        """Run the job of `event` unless it has ended. Raises Unavailable when the platform stops: the event comes again."""
        folder = self._folder / f"{self._name}-{derived_id(event['source'], event['id'])}"
        with self._lock:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "event").write_bytes(to_structured(event)[1])
            deadline = time.monotonic() + self._job.deadline
            for failures in itertools.count(1):
                if _ended(folder):
                    return
                if self._stopping.wait(min(2.0 ** (failures - 2), 60.0) if failures > 1 else 0):
                    raise Unavailable("the platform stops")
                self._attempt(folder, deadline, failures)

    def _attempt(self, folder: Path, deadline: float, failures: int) -> None:
        child = self._spawn(folder.name, self._job, K_EVENT_PATH=str(folder), K_EXECUTION_MODE="batch")
        while child.poll() is None and not self._stopping.wait(0.05) and time.monotonic() < deadline:
            pass
        end(child)
        late = time.monotonic() > deadline
        log.info("job.ended", extra={"fields": {"job": folder.name, "status": child.returncode, "late": late}})
        if child.returncode == 0:
            (folder / "succeeded").touch()
        elif not self._stopping.is_set() and (late or failures > self._job.backoff_limit):
            (folder / "failed").write_text("activeDeadlineSeconds exceeded\n" if late else f"exit status {child.returncode}\n")


def _ended(folder: Path) -> bool:
    return (folder / "succeeded").exists() or (folder / "failed").exists()
