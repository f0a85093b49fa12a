"""Trials as processes of their own: started, heard, answered and ended by the search. Imports no torch."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from queue import Queue
from typing import Any, Protocol

from .. import limits
from ..contracts import TrainRequest
from .trials import Trial

__all__ = ["Heard", "Process", "Processes", "Start"]

# The number of a trial with one of its messages; None instead of a message when its process has ended.
Heard = tuple[int, dict[str, Any] | None]
ENDS_WITHIN = 10.0  # seconds that a process which has said all may take to exit


class Process(Protocol):
    """The process of one trial."""

    def answer(self, go_on: bool) -> None:
        """Answer the message that asked."""

    def stop(self) -> None:
        """Tell it to write a checkpoint and end."""

    def end(self, patience: float) -> int:
        """Wait `patience` seconds for its end, then kill it; its exit status, negative for a signal."""


class Start(Protocol):
    """Starts the process of a trial."""

    def __call__(self, trial: Trial, request: TrainRequest, out: Path, heard: Queue[Heard]) -> Process:
        """Train `request` for `trial`, the bundle in `out`; messages go to `heard`."""


@dataclass(frozen=True, kw_only=True)
class Processes:
    """`Start` with real processes. `sources` are the paths of `run.Sources` by name; `parallel` of them share the cores."""

    task_id: str
    sources: Mapping[str, Path | None]
    folder: Path
    parallel: int

    @staticmethod
    def draft_of(task_id: str, number: int) -> str:
        """The name under which trial `number` keeps its checkpoints."""
        return f"{task_id}-trial-{number}"

    def __call__(self, trial: Trial, request: TrainRequest, out: Path, heard: Queue[Heard]) -> Process:
        """See `Start`."""
        folder = self.folder / f"trial-{trial.number}"
        folder.mkdir(parents=True, exist_ok=True)
        asked = {
            "task_id": self.task_id,
            "request": request.model_dump(mode="json", exclude_none=True),
            "sources": {name: str(path) if path else None for name, path in self.sources.items()},
            "out": str(out),
            "folder": str(folder),
            "draft": self.draft_of(self.task_id, trial.number),
            "threads": max(1, limits.cpus() // self.parallel),
            "provenance": {"trial": trial.number, "parameters": dict(trial.parameters)},
        }
        file = folder / "trial.json"
        file.write_text(json.dumps(asked), "utf-8")
        command = [sys.executable, "-m", "mlaas.training.trial", str(file)]
        return _Child(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True), trial.number, heard)  # noqa: S603 - our own program


@dataclass
class _Child:
    process: subprocess.Popen[str]
    number: int
    heard: Queue[Heard]

    def __post_init__(self) -> None:
        self._hearing = threading.Thread(target=self._hear, daemon=True)
        self._hearing.start()

    def answer(self, go_on: bool) -> None:
        assert self.process.stdin is not None, "opened as a pipe"
        with contextlib.suppress(OSError):  # it has died since; its end is heard next
            self.process.stdin.write(json.dumps({"go_on": go_on}) + "\n")
            self.process.stdin.flush()

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def end(self, patience: float) -> int:
        try:
            status = self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = self.process.wait()
        self._hearing.join(ENDS_WITHIN)
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                if pipe:
                    pipe.close()
        return status

    def _hear(self) -> None:
        assert self.process.stdout is not None, "opened as a pipe"
        for line in self.process.stdout:
            with contextlib.suppress(ValueError):  # half a line of a process that was killed
                self.heard.put((self.number, json.loads(line)))
        self.heard.put((self.number, None))
