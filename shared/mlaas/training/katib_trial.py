"""One trial of a Katib Experiment: `python -m mlaas.training.katib_trial REQUEST --trial NAME SETTING=VALUE ...`.

The figures of each evaluation go to standard output as `name=value`, which Katib's collector reads; the last are those of the weights
that the run ends with. Nothing is published: the best settings are then trained by a request of their own. A killed trial goes on from
its checkpoint.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import jobs, logs
from ..contracts import TrainRequest, parse
from ..errors import InvalidRequest, MlaasError, Unavailable
from ..settings import Settings, current
from .drafts import StoredDrafts
from .fetching import fetched
from .progress import Report
from .searchable import SEARCHABLE, with_values
from .watch import Dismissed

__all__ = ["Printer", "main", "values_of"]

log = logging.getLogger("mlaas")


@dataclass
class Printer:
    """A `Watch` that prints the figures and ends the run once they are known: no trial is exported."""

    provenance: Mapping[str, Any] = field(default_factory=dict)

    def evaluated(self, epoch: int, figures: Mapping[str, Any]) -> None:
        """See `Watch`."""
        for name, value in figures.items():
            if isinstance(value, int | float):
                print(f"{name}={float(value)}", flush=True)

    def fitted(self, figures: Mapping[str, Any]) -> None:
        """See `Watch`."""
        self.evaluated(0, figures)
        raise Dismissed("the figures are known")


def values_of(given: list[str]) -> dict[str, Any]:
    """The values of `SETTING=VALUE`s, each as its setting takes it. Raises InvalidRequest."""
    found = {}
    for one in given:
        name, _, text = one.partition("=")
        try:
            number = float(text) if SEARCHABLE[name] != "choice" else None
            found[name] = text if number is None else int(number) if SEARCHABLE[name] == "integer" else number
        except KeyError:
            raise InvalidRequest("this is not a setting that can be searched", field=name[:100], remedy="See docs/train.md.") from None
        except (ValueError, OverflowError):
            raise InvalidRequest("its value is not a number", field=name, remedy="Give SETTING=NUMBER.") from None
    return found


def main(arguments: list[str] | None = None) -> int:
    """Train one trial; the process' exit status, 75 if something is away: then the controller starts it again."""
    parser = argparse.ArgumentParser(prog="python -m mlaas.training.katib_trial", description="Train one trial of a Katib Experiment.")
    parser.add_argument("request", type=Path, help="the file with the request, in JSON")
    parser.add_argument("--trial", required=True, help="the trial's name, under which its checkpoints are kept")
    parser.add_argument("values", nargs="+", metavar="SETTING=VALUE", help="e.g. model_train.optimizer.init_lr=0.0001")
    asked = parser.parse_args(arguments)
    logs.configure()
    logs.of_process(trial=asked.trial)
    jobs.heed_signals()
    try:
        request = with_values(parse(TrainRequest, json.loads(asked.request.read_text("utf-8"))), values_of(asked.values))
        _train(request, asked.trial, current())
    except jobs.Stopped:
        return 128 + 15
    except Unavailable as error:
        log.warning("trial.unavailable", extra={"fields": {"reason": error.detail}})
        return 75
    except MlaasError as error:
        log.error("trial.failed", extra={"fields": {"reason": error.detail, "field": error.field, "remedy": error.remedy}})
        return 1
    return 0


def _train(request: TrainRequest, trial: str, settings: Settings) -> None:
    from .run import Sources, train

    sources = Sources(**fetched(request, settings))
    with jobs.workspace(settings) as folder:
        drafts = StoredDrafts(request.model_save, trial, settings, folder, grace=settings.grace_seconds)
        try:
            train(request, sources, folder / "bundle", _told, drafts.of, Printer())
        except Dismissed:
            drafts.clear()


def _told(report: Report) -> None:
    log.debug("trial.progress", extra={"fields": {"phase": report.phase, "percent": report.percent}})


if __name__ == "__main__":
    raise SystemExit(main())
