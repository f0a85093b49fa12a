"""Child processes: functions and deployments, started on demand and again when they die; jobs, run until they succeed.

None outlives this process: all are in one process group with a watchdog that reads a pipe this process holds open. When
it closes, because its owner was killed with -9, the whole group is ended. Unlike Linux's PR_SET_PDEATHSIG this works on
any Unix, from any thread, for the children's children too; and the terminal's Ctrl-C does not reach the group.
"""

from __future__ import annotations

import itertools
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import urllib3
from cloudevents.http import CloudEvent

from ..errors import Unavailable
from ..events import derived_id
from .manifests import Workload
from .records import to_json

__all__ = ["JobSink", "Process", "Watchdog", "free_port"]

READY_SECONDS = 60.0
_WATCH = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.read(int(sys.argv[1]), 1)
os.killpg(0, signal.SIGTERM)
time.sleep(3)
os.killpg(0, signal.SIGKILL)
"""

log = logging.getLogger("mlaas")
Spawn = Callable[..., subprocess.Popen[bytes]]  # starts what is named by its first argument; further ones go into its environment


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Watchdog:
    """Starts and ends processes; `held` is a descriptor (a lock) that stays open until the last of them has ended."""

    def __init__(self, *held: int) -> None:
        reading, self._writing = os.pipe()
        command = [sys.executable, "-c", _WATCH, str(reading)]
        self._process = subprocess.Popen(command, pass_fds=(reading, *held), process_group=0)  # noqa: S603
        os.close(reading)

    def spawn(
        self, command: Sequence[str], log: Path, env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> subprocess.Popen[bytes]:
        """Start `command`, its output appended to `log`; `python` is the interpreter that runs the platform."""
        command = [sys.executable, *command[1:]] if command[0] == "python" else list(command)
        group, nothing = self._process.pid, subprocess.DEVNULL
        with log.open("ab") as out:
            return subprocess.Popen(command, env=env, cwd=cwd, process_group=group, stdin=nothing, stdout=out, stderr=out)  # noqa: S603

    def close(self) -> None:
        """End what is still running, and the watchdog itself."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._writing)


def end(child: subprocess.Popen[bytes], grace: float = 3.0) -> None:
    """End `child`: SIGTERM, and SIGKILL after `grace` seconds."""
    child.terminate()
    with suppress(subprocess.TimeoutExpired):
        child.wait(grace)
    child.kill()
    child.wait()


class Process:
    """A workload that serves. `use` gives its URL and keeps it running meanwhile; `tend`, called again and again, does the rest."""

    def __init__(self, name: str, workload: Workload, spawn: Spawn) -> None:
        self._name, self._workload, self._spawn = name, workload, spawn
        self._lock = threading.Lock()  # whoever holds it starts or ends the process, everyone else waits
        self._child: subprocess.Popen[bytes] | None = None
        self._uses: list[object] = []
        self._last_use = self._not_before = 0.0
        self._url, self._state, self._stopped, self.restarts = "", "idle", False, 0

    @property
    def pid(self) -> int | None:
        """The process id, while there is a process."""
        child = self._child
        return child.pid if child else None

    def state(self) -> dict[str, object]:
        """For people: idle, starting, running or stopping, the process id, and how often it died."""
        return {"state": self._state, "pid": self.pid, "restarts": self.restarts}

    @contextmanager
    def use(self) -> Iterator[str]:
        """The URL of the ready process, started if need be, once for all who wait. Raises Unavailable."""
        this = object()
        self._uses.append(this)
        try:
            with self._lock:
                self._notice_death()
                if not self._child:
                    self._start()
                url = self._url
            yield url
        finally:
            self._last_use = time.monotonic()
            self._uses.remove(this)

    def tend(self) -> None:
        """Notice that it died, start what must always run, end what is idle."""
        if self._lock.locked():  # someone starts it
            return
        with self._lock:
            self._notice_death()
            if self._workload.retention is None and not self._child:
                with suppress(Unavailable):
                    self._start()
            elif self._workload.retention is not None and not self._uses and time.monotonic() - self._last_use > self._workload.retention:
                self._end()

    def stop(self) -> None:
        """End it for good; who waits for it gets Unavailable."""
        self._stopped = True
        with self._lock:
            self._end()

    def _notice_death(self) -> None:
        if self._child and self._child.poll() is not None:
            log.warning("process.died", extra={"fields": {"name": self._name, "status": self._child.returncode}})
            self._child, self._state, self.restarts = None, "idle", self.restarts + 1

    def _start(self) -> None:
        """Start it and wait until it listens. Raises Unavailable, for a while also without a try after one that failed."""
        refusal = Unavailable(f"the function {self._name} does not start", retry_after=1, remedy=f"Its log {self._name}.log says why.")
        if self._stopped or time.monotonic() < self._not_before:
            raise refusal
        port = str(free_port())
        self._child, self._state, self._not_before = (self._spawn(self._name, self._workload, PORT=port), "starting", time.monotonic() + 1)
        self._url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + READY_SECONDS
        while not self._ready():
            if self._child.poll() is not None or self._stopped or time.monotonic() > deadline:
                self._end()
                self.restarts += 1
                raise refusal
            time.sleep(0.02)
        self._state = "running"

    def _ready(self) -> bool:
        if self._workload.retention is None:  # a Deployment serves nobody
            return True
        with suppress(urllib3.exceptions.HTTPError):
            return urllib3.request("GET", f"{self._url}/health/readiness", timeout=2.0, retries=False).status == 200
        return False

    def _end(self) -> None:
        if self._child:
            self._state = "stopping"
            end(self._child)
            self._child, self._state, self._last_use = None, "idle", time.monotonic()


class JobSink:
    """Runs each event's job once to its end, however often the event comes; one at a time, each in a folder of its own."""

    def __init__(self, name: str, job: Workload, spawn: Spawn, folder: Path, stopping: threading.Event) -> None:
        self._name, self._job, self._spawn, self._folder, self._stopping = name, job, spawn, folder, stopping
        self._lock = threading.Lock()
        self._running: str | None = None

    def state(self) -> dict[str, object]:
        """For people: the running job, and how many were begun and have not ended."""
        begun = self._folder.glob(f"{self._name}-{'?' * 36}")
        return {"running": self._running, "unfinished": sum(not _ended(folder) for folder in begun)}

    def run(self, event: CloudEvent) -> None:
        """Run the job of `event` unless it has ended. Raises Unavailable when the platform stops: the event comes again."""
        folder = self._folder / f"{self._name}-{derived_id(event['source'], event['id'])}"
        with self._lock:
            if _ended(folder):
                return
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "event").write_bytes(to_json(event))
            deadline, self._running = time.monotonic() + self._job.deadline, folder.name
            for failures in itertools.count():
                self._attempt(folder, deadline, failures)
                if _ended(folder) or self._stopping.wait(min(2.0**failures, 60.0)):
                    break
            self._running = None
        if not _ended(folder):
            raise Unavailable("the platform stops")

    def _attempt(self, folder: Path, deadline: float, failures: int) -> None:
        child = self._spawn(folder.name, self._job, K_EVENT_PATH=str(folder), K_EXECUTION_MODE="batch")
        while child.poll() is None and not self._stopping.wait(0.05) and time.monotonic() < deadline:
            pass
        end(child)
        late = time.monotonic() > deadline
        log.info("job.ended", extra={"fields": {"job": folder.name, "status": child.returncode, "late": late}})
        if child.returncode == 0:
            (folder / "succeeded").touch()
        elif late or failures >= self._job.backoff_limit:
            (folder / "failed").write_text("activeDeadlineSeconds exceeded\n" if late else f"exit status {child.returncode}\n")


def _ended(folder: Path) -> bool:
    return (folder / "succeeded").exists() or (folder / "failed").exists()
