"""A function or a deployment as a process: started on demand, restarted when it dies, stopped when idle."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import urllib3

from ..errors import Unavailable
from .kafka_server import free_port
from .manifests import Workload
from .watchdog import Watchdog

__all__ = ["Host", "Process", "resolve"]

READY_SECONDS = 120.0
STOP_SECONDS = 3.0
STEADY_SECONDS = 30.0  # a process that lived this long starts with a fresh backoff when it dies
HOPELESS = 3  # after so many early deaths in a row callers are refused at once instead of waiting

log = logging.getLogger("mlaas")
Environment = Callable[[Mapping[str, str]], dict[str, str]]


class Host:
    """Where processes run: the watchdog that ends them, their environment, their folder, and where their output goes."""

    def __init__(self, watchdog: Watchdog, environment: Environment, folder: Path, logs: Path, http: urllib3.PoolManager) -> None:
        self.watchdog, self.environment, self.folder, self.logs, self.http = watchdog, environment, folder, logs, http


class Process:
    """One workload; `use` gives its URL and keeps it running meanwhile. `probed` ones are ready when they say so."""

    def __init__(self, workload: Workload, host: Host, *, probed: bool) -> None:
        self.workload, self._host, self._probed = workload, host, probed
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._supervise, name=f"process-{workload.name}", daemon=True)
        self._stopping = self._ending = False
        self._in_use = self._failures = 0
        self._last_use = 0.0
        self.url: str | None = None
        self.pid: int | None = None
        self.restarts = 0

    def start(self) -> None:
        """Begin to supervise; the process itself starts with its first use, or now if it is always on."""
        self._thread.start()

    def stop(self) -> None:
        """End the process, gracefully if it can be; who waits for it gets Unavailable."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(STOP_SECONDS + 2)

    @contextmanager
    def use(self, timeout: float = 60.0) -> Iterator[str]:
        """The URL of the ready process, started if need be, once for all who wait. Raises Unavailable."""
        with self._changed:
            self._in_use += 1
            self._changed.notify_all()
        try:
            with self._changed:
                self._changed.wait_for(lambda: self.url or self._stopping or self._failures >= HOPELESS, timeout)
                url = self.url
            if url is None:
                raise Unavailable(
                    f"the function {self.workload.name} does not start", retry_after=5, remedy=f"Its log {self.workload.name}.log says why."
                )
            yield url
        finally:
            with self._changed:
                self._in_use -= 1
                self._last_use = time.monotonic()

    def state(self) -> dict[str, object]:
        """For people: idle, starting, running, stopping or failing, with the process id and how often it was restarted."""
        up = "running" if self.url else "stopping" if self._ending else "starting"
        return {"state": up if self.pid else "failing" if self._failures else "idle", "pid": self.pid, "restarts": self.restarts}

    def _supervise(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopping or self._wanted())
                if self._stopping:
                    return
            started = time.monotonic()
            try:
                died = self._run()
            except Exception:  # a full disk, say; the thread must live on
                log.exception("process.failed", extra={"fields": {"name": self.workload.name}})
                died = True
            if died:
                with self._changed:
                    self._failures = 1 if time.monotonic() - started > STEADY_SECONDS else self._failures + 1
                    self.restarts += 1
                    log.warning("process.died", extra={"fields": {"name": self.workload.name, "failures": self._failures}})
                    self._changed.notify_all()
                    self._changed.wait_for(lambda: self._stopping, min(0.1 * 2**self._failures, 10.0))

    def _run(self) -> bool:
        """One life of the process. Returns whether it died by itself."""
        port = free_port()
        env = self._host.environment({**self.workload.env, "PORT": str(port)}) | {"PORT": str(port)}
        child = self._host.watchdog.spawn(
            resolve(self.workload.command), self._host.logs / f"{self.workload.name}.log", env, self._host.folder
        )
        self.pid = child.pid
        deadline = time.monotonic() + READY_SECONDS
        died = False
        try:
            while not self._stopping and not died and not self._idle():
                died = child.poll() is not None or (self.url is None and time.monotonic() > deadline)
                if self.url is None and not died and self._ready(port):
                    with self._changed:
                        self.url, self._failures = f"http://127.0.0.1:{port}", 0 if self._probed else self._failures
                        self._changed.notify_all()
                with self._changed:
                    self._changed.wait(0.1 if self.url else 0.02)
        finally:
            with self._changed:
                self.url, self._ending = None, True
            self._host.watchdog.end(child, STOP_SECONDS)
            self.pid, self._ending = None, False
        return died

    def _wanted(self) -> bool:
        return self.workload.retention is None or self._in_use > 0

    def _idle(self) -> bool:
        """Whether nobody has used it for long enough; from then on who wants it waits for its next life."""
        with self._changed:
            idle = self.url is not None and not self._wanted() and time.monotonic() - self._last_use > (self.workload.retention or 0.0)
            if idle:
                self.url = None
            return idle

    def _ready(self, port: int) -> bool:
        if not self._probed:
            return True
        try:
            return self._host.http.request("GET", f"http://127.0.0.1:{port}/health/readiness", timeout=2.0, retries=False).status == 200
        except urllib3.exceptions.HTTPError:
            return False


def resolve(command: tuple[str, ...]) -> list[str]:
    """A manifest's command for this machine: `python` is the interpreter that runs the platform."""
    return [sys.executable, *command[1:]] if command[0] in ("python", "python3") else list(command)
