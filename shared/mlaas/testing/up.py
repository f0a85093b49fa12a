"""`mlaas up` as a process, for tests of the platform as a whole."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests

from ..local.kafka_server import free_port

__all__ = ["Up"]


class Up:
    """`mlaas up` as a user starts it, on ports and a home of its own."""

    def __init__(self, home: Path) -> None:
        self.home, self.port, self.kafka_port = home, free_port(), free_port()
        self.url, self.kafka = f"http://127.0.0.1:{self.port}", f"127.0.0.1:{self.kafka_port}"

    @contextmanager
    def running(self) -> Iterator[subprocess.Popen[bytes]]:
        """Start it, wait until it is ready, and stop it at the end."""
        command = [sys.executable, "-m", "mlaas.cli", "up", "--json", "--port", str(self.port), "--kafka-port", str(self.kafka_port)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "MLAAS_HOME": str(self.home)})  # noqa: S603
        try:
            assert process.stdout, "it is a pipe"
            said = json.loads(process.stdout.readline())
            assert said["url"] == self.url, said
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
            process.communicate(timeout=40)

    def pid(self, function: str) -> int | None:
        """The process id of a function, if it runs."""
        pid: int | None = requests.get(self.url, timeout=10).json()["functions"][function]["pid"]
        return pid
