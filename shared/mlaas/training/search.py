"""A search for the settings that train best: trials in processes, one after another or several at once. Imports no torch.

What lasts is in the task: `history.trials` has every trial, written when it begins and when it ends. An attempt that follows a
killed one makes the study again from it, lets go on what was running (from its last checkpoint) and repeats nothing that had ended.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from queue import Empty, Queue
from typing import Any

from ..contracts import TrainRequest
from ..errors import InvalidRequest, Unavailable
from .board import Board
from .kept import BestModel
from .outcome import Outcome
from .searchable import with_values
from .trial_process import ENDS_WITHIN, Heard, Process, Start
from .trials import Trial

__all__ = ["Notes", "Search"]

POLL = 0.5  # seconds between looks at whether the search was cancelled or is late


@dataclass(frozen=True, kw_only=True)
class Notes:
    """Where a search writes: `record` keeps all trials for good, `tell` says how far it is; both may raise to end it.

    `forget` removes the checkpoints of a trial.
    """

    record: Callable[[tuple[Trial, ...]], None]
    tell: Callable[[Mapping[str, Any], tuple[Trial, ...]], None]
    forget: Callable[[int], None]


@dataclass
class _Running:
    """A trial whose process runs. `verdict` is what it ends as, once that is known."""

    process: Process
    began: float
    out: Path
    report: Mapping[str, Any] = field(default_factory=dict)
    verdict: Trial | None = None


@dataclass(kw_only=True)
class Search:
    """Runs the trials of `request.search`; `past` are those of attempts before. `folder` is in the job's workspace.

    `grace` is how many seconds the trials may take for a last checkpoint when the search is told to stop.
    """

    request: TrainRequest
    start: Start
    kept: BestModel
    notes: Notes
    folder: Path
    past: tuple[Trial, ...] = ()
    grace: float = 2.0
    clock: Callable[[], float] = time.monotonic

    def run(self) -> Outcome:
        """The best trial's model, and in `search` of the outcome how it was found.

        Raises InvalidRequest with the reason if no trial came to anything, and whatever `notes` raise.
        """
        self.board, self.running, self.heard = Board(self.request, self.past), dict[int, _Running](), Queue[Heard]()
        self._before, self._began = max((trial.ended for trial in self.past), default=0.0), self.clock()
        try:
            for trial in self.board.resumed():
                self._start(trial)
            self._fill()
            while self.running:
                self._step()
                self.notes.tell(self.board.progress({one: run.report for one, run in self.running.items()}, self.elapsed), self.board.all)
                self._fill()
            best = self.board.best
            if best is None:
                raise self.board.reason()
            return self.kept.find(best.number) or self._again(best)
        finally:
            self._end_all()

    @property
    def elapsed(self) -> float:
        """Seconds of the search, those of attempts before included up to their last trial."""
        return self._before + self.clock() - self._began

    def _fill(self) -> None:
        """Begin as many trials as may run."""
        while len(self.running) < self.board.asked.parallel and not self.board.full and not self._late():
            trial = self.board.next()
            if trial:
                self.notes.record(self.board.all)
                self._start(trial)

    def _late(self) -> bool:
        """Whether the time is over and there is something to publish."""
        minutes = self.board.asked.timeout_minutes
        return minutes is not None and self.elapsed >= minutes * 60 and self.board.best is not None

    def _start(self, trial: Trial, out: str = "bundle") -> None:
        place = self.folder / f"{out}-{trial.number}"
        process = self.start(trial, with_values(self.request, trial.parameters), place, self.heard)
        self.running[trial.number] = _Running(process, self.clock(), place)

    def _step(self) -> None:
        """Wait a moment for a message of a trial, and do what it asks for; end the trials when the time is over."""
        if self._late():
            for number in list(self.running):
                self._ended(number, replace(self.board.trials[number], state="stopped"), patience=0.0)
        elif heard := self._listen():
            number, message = heard
            if message is None:
                self._ended(number, self.running[number].verdict, ENDS_WITHIN)
            else:
                for name, content in message.items():
                    getattr(self, f"_on_{name}")(number, content)

    def _listen(self) -> Heard | None:
        try:
            heard = self.heard.get(timeout=POLL)
        except Empty:
            return None
        return heard if heard[0] in self.running else None

    def _on_report(self, number: int, content: Mapping[str, Any]) -> None:
        self.running[number].report = content

    def _on_evaluated(self, number: int, content: Mapping[str, Any]) -> None:
        pruned = self.board.evaluated(number, int(content["epoch"]), content["figures"])
        self.running[number].verdict = pruned
        self.running[number].process.answer(pruned is None)

    def _on_fitted(self, number: int, content: Mapping[str, Any]) -> None:
        """Only the model that is the best so far is exported."""
        verdict = self.board.fitted(number, content)
        wanted = verdict.state == "complete" and self.board.leads(verdict)
        self.running[number].verdict = None if wanted else verdict
        self.running[number].process.answer(wanted)

    def _on_done(self, number: int, content: dict[str, Any]) -> None:
        """Keep the model, unless a better one has come meanwhile."""
        complete = replace(self.board.trials[number], state="complete")
        if self.board.leads(complete):
            self.kept.keep(number, self.running[number].out, content)
        self.running[number].verdict = complete

    def _on_failed(self, number: int, content: Mapping[str, Any]) -> None:
        error = {name: value for name, value in content.items() if value is not None}
        self.running[number].verdict = replace(self.board.trials[number], state="failed", error=error)

    def _on_unavailable(self, _number: int, content: str) -> None:
        raise Unavailable(content)

    def _ended(self, number: int, verdict: Trial | None, patience: float) -> None:
        """A trial's process has said all that it will, or is not to say more: note for good what came of it."""
        running = self.running.pop(number)
        status = running.process.end(patience)
        trial = replace(verdict or _without_result(self.board.trials[number], status), seconds=self.clock() - running.began)
        self.board.ended(replace(trial, ended=self.elapsed))
        self.notes.record(self.board.all)
        self.notes.forget(number)
        if self.kept.number != number:
            shutil.rmtree(running.out, ignore_errors=True)

    def _again(self, best: Trial) -> Outcome:
        """Train the best trial once more: its model was lost with the machine that had it."""
        self._start(best, "again")
        running = self.running[best.number]
        while True:
            self.notes.tell(self.board.progress({best.number: running.report}, self.elapsed), self.board.all)
            heard = self._listen()
            if heard is None:
                continue
            for name, content in (heard[1] or {"end": None}).items():
                if name in ("evaluated", "fitted"):
                    running.process.answer(True)
                elif name == "done":
                    self.kept.keep(best.number, running.out, content)
                    if self.kept.outcome:
                        return self.kept.outcome
                elif name == "report":
                    running.report = content
                elif name == "unavailable":
                    self._on_unavailable(best.number, content)
                else:
                    remedy = "Send the request without `search`, with the best trial's parameters."
                    raise InvalidRequest("the best trial cannot be trained a second time", field="search", remedy=remedy)

    def _end_all(self) -> None:
        """End the trials that still run, each with a checkpoint from which it can go on."""
        for running in self.running.values():
            running.process.stop()
        deadline = self.clock() + self.grace
        for running in self.running.values():
            running.process.end(max(0.0, deadline - self.clock()))


def _without_result(trial: Trial, status: int) -> Trial:
    how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
    error = {
        "detail": f"the trial's process {how} before it had a result",
        "field": "search.parallel",
        "remedy": "If memory was short: lower `search.parallel` or `model_train.batch_size`, or give the job more memory.",
    }
    return replace(trial, state="failed", error=error)
