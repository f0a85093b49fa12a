"""What the train function, its job and its relay do for one request, in a process that is killed."""

from __future__ import annotations

import json
import os
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from mlaas import documents, events, jobs, outbox, settings
from mlaas.ledger import Ledger
from mlaas.tasks import Tasks

REQUEST = {"model": {"path": "m", "objective": "masked-lm"}}


def work(job: jobs.Job) -> dict[str, Any]:
    for percent in (10.0, 100.0, 100.0):
        job.report({"phase": "train", "percent": percent})
        time.sleep(0.005)
    return {"result": {"model": {"name": "m"}}}


def live(environ: dict[str, str], event_id: str, begun: Connection) -> None:
    """Deliver the request, run its job, relay; say when it begins."""
    os.environ.update(environ)
    settings.current.cache_clear()
    documents._shared.cache_clear()
    begun.send("begun")
    tasks = Tasks(documents.shared())
    cause = events.new("train", REQUEST, id=event_id)
    ledger = Ledger(tasks.documents, limit=100, patience=0)
    accepted = ledger.act("train", cause, lambda: tasks.accept("train", REQUEST, cause, publish=False), error_id="e")
    assert accepted
    outbox.publish(accepted, settings.current())
    Path(environ["K_EVENT_PATH"]).write_text(json.dumps(events.to_json(accepted)))
    jobs.main(work)
    outbox.flush(tasks, settings.current())
