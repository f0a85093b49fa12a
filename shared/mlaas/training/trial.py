"""One trial, in a process of its own: `python -m mlaas.training.trial FILE`. Started by `trial_process`, never by hand.

FILE says what to train. Lines of JSON go to standard output, each an object with one name (see `Message`); a line comes
back on standard input for those that ask, `{"go_on": true}` or not. When standard input ends, whoever started the process is dead,
and the process ends as well: nobody would hear what comes of it.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import sys
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Literal, TextIO

from .. import jobs, logs
from ..contracts import TrainRequest, parse
from ..errors import MlaasError, Unavailable
from ..settings import current
from .drafts import StoredDrafts
from .outcome import Outcome
from .progress import Report
from .watch import Dismissed

__all__ = ["Line", "Message", "main"]

# report: a moment of the run. evaluated: epoch and figures; asks. fitted: the figures of the run's weights; asks whether to
# export them. done: what came of it, the bundle is where FILE says. failed: why. unavailable: what is away.
Message = Literal["report", "evaluated", "fitted", "done", "failed", "unavailable"]

log = logging.getLogger("mlaas")


@dataclass
class Line:
    """The line to whoever started this process. As a `Watch` it asks there whether to go on."""

    out: TextIO
    provenance: Mapping[str, Any]
    answers: SimpleQueue[bool] = field(default_factory=SimpleQueue)

    def say(self, message: Message, content: Any) -> None:
        """Send one message."""
        try:
            self.out.write(json.dumps({message: content}) + "\n")
            self.out.flush()
        except OSError:
            os._exit(1)  # nobody listens any more

    def report(self, report: Report) -> None:
        """How far the run is; its history goes with the outcome."""
        self.say("report", {name: value for name, value in dataclasses.asdict(report).items() if name != "history"})

    def evaluated(self, epoch: int, figures: Mapping[str, Any]) -> None:
        """See `Watch`."""
        self._ask("evaluated", {"epoch": epoch, "figures": _numbers(figures)})

    def fitted(self, figures: Mapping[str, Any]) -> None:
        """See `Watch`."""
        self._ask("fitted", _numbers(figures))

    def listen(self, source: TextIO) -> None:
        """Hear the answers, in a thread of their own, until there is nobody left to give any."""

        def hear() -> None:
            for line in source:
                self.answers.put(bool(json.loads(line)["go_on"]))
            os._exit(1)

        threading.Thread(target=hear, daemon=True).start()

    def _ask(self, message: Message, content: Any) -> None:
        self.say(message, content)
        if not self.answers.get():
            raise Dismissed("the trial is not needed any more")


def main(file: Path) -> int:
    """Train what `file` says; the process' exit status."""
    logs.configure()
    jobs.heed_signals()
    asked = json.loads(file.read_text("utf-8"))
    logs.of_process(task_id=asked["task_id"], trial=asked["provenance"]["trial"])
    with _own_output() as out:
        line = Line(out, asked["provenance"])
        line.listen(sys.stdin)
        try:
            line.say("done", _described(_train(asked, line)))
        except Dismissed:
            return 0
        except jobs.Stopped:
            return 128 + 15
        except Unavailable as error:
            line.say("unavailable", error.detail)
        except MlaasError as error:
            line.say("failed", {"detail": error.detail, "field": error.field, "remedy": error.remedy})
        except Exception:
            error_id = str(uuid.uuid4())
            log.exception("trial.defect", extra={"fields": {"error_id": error_id}})
            line.say("failed", {"detail": "the platform failed; the error id finds the cause in its log", "error_id": error_id})
    return 0


def _train(asked: Mapping[str, Any], line: Line) -> Outcome:
    import torch

    from .run import Sources, train

    torch.set_num_threads(asked["threads"])
    settings, request = current(), parse(TrainRequest, asked["request"])
    places: dict[str, Any] = {name: Path(path) if path else None for name, path in asked["sources"].items()}
    drafts = StoredDrafts(request.model_save, asked["draft"], settings, Path(asked["folder"]), grace=settings.grace_seconds)
    return train(request, Sources(**places), Path(asked["out"]), line.report, drafts.of, line)


def _described(outcome: Outcome) -> dict[str, Any]:
    return {one.name: getattr(outcome, one.name) for one in dataclasses.fields(outcome) if one.name != "bundle"}


def _numbers(figures: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in figures.items() if isinstance(value, int | float)}


@contextmanager
def _own_output() -> Iterator[TextIO]:
    """Standard output for messages alone: what libraries print goes to standard error."""
    own = os.dup(1)
    os.dup2(2, 1)
    with open(own, "w", encoding="utf-8") as out:
        yield out


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
