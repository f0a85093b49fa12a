"""The platform's processes as a user or a controller starts them, on ports of their own: one function, a job, all of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..local.kafka_server import free_port

__all__ = ["Up", "running_job", "serving", "until"]


def until(condition: Callable[[], Any], seconds: float, what: str, every: float = 0.05) -> float:
    """Wait until `condition` is true; how long that took, in seconds. Raises AssertionError, saying `what` did not happen."""
    started = time.monotonic()
    while not condition():
        if time.monotonic() - started > seconds:
            raise AssertionError(f"{what} did not happen within {seconds:.0f} s")
        time.sleep(every)
    return time.monotonic() - started


@contextmanager
def serving(folder: Path, environment: Mapping[str, str]) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """`python -m mlaas.serve folder` once it is alive: its URL and its process."""
    import requests

    port = free_port()
    environ = {**os.environ, "PORT": str(port), "MLAAS_HOST": "127.0.0.1", **environment}
    process = subprocess.Popen([sys.executable, "-m", "mlaas.serve", str(folder)], stderr=subprocess.DEVNULL, env=environ)  # noqa: S603
    url = f"http://127.0.0.1:{port}"

    def alive() -> bool:
        try:
            return requests.get(f"{url}/health/liveness", timeout=2).ok
        except requests.RequestException:
            return False

    try:
        until(alive, 30, f"the start of {folder.name}")
        yield url, process
    finally:
        process.kill()
        process.wait()


@contextmanager
def running_job(module: str, folder: Path, environment: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """`python -m module` for the event in `folder`, as JobSink starts it."""
    environ = {**os.environ, "K_EVENT_PATH": str(folder), "K_EXECUTION_MODE": "batch", "OMP_NUM_THREADS": "1", **environment}
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen([sys.executable, "-m", module], stderr=log, env=environ)  # noqa: S603
    try:
        yield process
    finally:
        process.kill()
        process.wait()


class Up:
    """`mlaas up` on the home `home`, on ports of its own."""

    def __init__(self, home: Path) -> None:
        self.home, self.port, self.kafka_port = home, free_port(), free_port()
        self.url, self.kafka = f"http://127.0.0.1:{self.port}", f"127.0.0.1:{self.kafka_port}"

    @contextmanager
    def running(self) -> Iterator[subprocess.Popen[bytes]]:
        """The runner's process, ready, and ended with Ctrl-C."""
        command = [sys.executable, "-m", "mlaas.cli", "up", "--json", "--port", str(self.port), "--kafka-port", str(self.kafka_port)]
        environ = {**os.environ, "MLAAS_HOME": str(self.home), "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environ)  # noqa: S603
        try:
            assert process.stdout
            assert json.loads(process.stdout.readline())["url"] == self.url
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
            process.communicate(timeout=40)

    def pid(self, function: str) -> int | None:
        """The process of a function, while it has one."""
        import requests

        pid: int | None = requests.get(self.url, timeout=10).json()["functions"][function]["pid"]
        return pid

    def job_pids(self) -> list[int]:
        """The processes of jobs of this home."""
        mark, found = f"K_EVENT_PATH={self.home / 'jobs'}/".encode(), []
        for path in Path("/proc").glob("[0-9]*/environ"):
            try:
                if mark in path.read_bytes():
                    found.append(int(path.parent.name))
            except OSError:
                continue
        return found

    def kafka_pid(self) -> int | None:
        """The process of the broker, while it says that it has one."""
        try:
            return int((self.home / "kafka" / "broker.pid").read_text())
        except (OSError, ValueError):
            return None
