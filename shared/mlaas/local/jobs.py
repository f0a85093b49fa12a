"""A JobSink on one machine: every event becomes one run of a command, one at a time, however often the event comes.

A job is a folder with its `event`, how many `attempts` failed, and at the end a file `succeeded` or `failed`. Whatever
is unfinished when the platform starts is run again, so a killed platform loses no job.
"""

from __future__ import annotations

import logging
import os
import shutil
import threading
import time
from pathlib import Path

from ..events import derived_id
from .manifests import Job
from .processes import Host, resolve
from .records import Event

__all__ = ["Jobs"]

STOP_SECONDS = 3.0
BACKOFF_SECONDS, LONGEST_BACKOFF_SECONDS = 1.0, 60.0

log = logging.getLogger("mlaas")


class Jobs:
    """The queue of one JobSink under `folder`."""

    def __init__(self, job: Job, host: Host, folder: Path) -> None:
        self._job, self._host, self._folder = job, host, folder
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name=f"jobs-{job.name}", daemon=True)
        self.running: str | None = None

    def start(self) -> None:
        """Run what is unfinished, and what comes."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for leftover in self._folder.glob(".*"):
            shutil.rmtree(leftover)
        self._thread.start()

    def stop(self) -> None:
        """Stop the running job; it stays unfinished and is run again at the next start."""
        self._stopping.set()
        with self._changed:
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(STOP_SECONDS + 2)

    def accept(self, event: Event) -> None:
        """Take `event` on, durably; the same event a second time changes nothing."""
        name = f"{self._job.name}-{derived_id(event.attributes['source'], event.attributes['id'])}"
        if not (self._folder / name).exists():
            scratch = self._folder / f".{name}-{threading.get_ident()}"
            scratch.mkdir()
            with (scratch / "event").open("wb") as file:
                file.write(event.json())
                file.flush()
                os.fsync(file.fileno())
            try:
                scratch.rename(self._folder / name)
            except OSError:  # the same event in another thread
                shutil.rmtree(scratch)
        with self._changed:
            self._changed.notify_all()

    def state(self) -> dict[str, object]:
        """For people: the running job and how many wait."""
        return {"running": self.running, "unfinished": len(self._unfinished())}

    def _unfinished(self) -> list[Path]:
        mine = [path for path in self._folder.glob(f"{self._job.name}-*") if path.name[:-37] == self._job.name]  # an id has 36 characters
        mine = [path for path in mine if not (path / "succeeded").exists() and not (path / "failed").exists()]
        return sorted(mine, key=lambda path: (path / "event").stat().st_mtime_ns)

    def _work(self) -> None:
        while not self._stopping.is_set():
            with self._changed:
                waiting = self._unfinished()
                if not waiting:
                    self._changed.wait(5.0)
                    continue
            try:
                self.running = waiting[0].name
                self._run(waiting[0])
            except Exception:  # a full disk, say; the queue must live on
                log.exception("job.broken", extra={"fields": {"job": waiting[0].name}})
                self._stopping.wait(BACKOFF_SECONDS)
            finally:
                self.running = None

    def _run(self, folder: Path) -> None:
        """Run a job to its end, or until the platform stops."""
        failures = int((folder / "attempts").read_text()) if (folder / "attempts").exists() else 0
        deadline = time.monotonic() + (self._job.deadline or float("inf"))
        while not self._stopping.is_set():
            code = self._attempt(folder, deadline)
            if self._stopping.is_set() and code != 0:
                return
            late = time.monotonic() > deadline
            log.info("job.ended", extra={"fields": {"job": folder.name, "status": code, "late": late}})
            if code == 0:
                (folder / "succeeded").touch()
                return
            failures += 1
            (folder / "attempts").write_text(str(failures))
            if late or failures > self._job.backoff_limit:
                (folder / "failed").write_text("activeDeadlineSeconds exceeded\n" if late else f"exit status {code}, {failures} times\n")
                return
            self._stopping.wait(min(BACKOFF_SECONDS * 2 ** (failures - 1), LONGEST_BACKOFF_SECONDS, max(0.0, deadline - time.monotonic())))

    def _attempt(self, folder: Path, deadline: float) -> int:
        env = self._host.environment(self._job.env) | {"K_EVENT_PATH": str(folder), "K_EXECUTION_MODE": "batch"}
        child = self._host.watchdog.spawn(resolve(self._job.command), self._host.logs / f"{folder.name}.log", env, self._host.folder)
        log.info("job.started", extra={"fields": {"job": folder.name, "pid": child.pid}})
        try:
            while child.poll() is None and not self._stopping.is_set() and time.monotonic() < deadline:
                self._stopping.wait(0.05)
        finally:
            self._host.watchdog.end(child, STOP_SECONDS)
        return child.wait()
