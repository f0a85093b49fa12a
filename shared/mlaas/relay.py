"""The relay: publishes what the outbox still holds and ends tasks whose run died without a word. `python -m mlaas.relay`.

Jobs publish their own completion events; the relay is there for those that were killed between the write and the
publication, for requests that came over HTTP, and for followers of a model. It may run in several copies.
"""

from __future__ import annotations

import argparse
import logging
import signal
import threading
import time

from . import logs, outbox
from .documents import shared
from .errors import MlaasError
from .heartbeats import Watch
from .settings import current
from .tasks import Tasks

__all__ = ["main"]

log = logging.getLogger("mlaas")


def main(arguments: list[str] | None = None) -> None:
    """Relay until told to stop."""
    parser = argparse.ArgumentParser(prog="python -m mlaas.relay", description="Publish the outbox and end tasks whose run died.")
    parser.add_argument("--every", type=float, default=0.5, metavar="SECONDS", help="time between looks at the outbox (0.5)")
    parser.add_argument("--once", action="store_true", help="for a CronJob: flush once, and end once no run is in doubt")
    options = parser.parse_args(arguments)
    logs.configure()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    settings = current()
    tasks = Tasks(shared(settings))
    watch, sweep_at = Watch(settings.stale_after), 0.0
    while not stop.is_set():
        try:
            outbox.flush(tasks, settings)
            if time.monotonic() >= sweep_at:
                sweep_at = time.monotonic() + settings.stale_after / 6
                for task_id in tasks.expire(watch):
                    log.warning("task.expired", extra={"fields": {"task_id": task_id}})
        except MlaasError as error:
            log.warning("relay.waiting", extra={"fields": {"reason": error.detail}})
        if options.once and not watch.undecided:
            return
        stop.wait(options.every)


if __name__ == "__main__":
    main()
