"""The relay: publishes what the outbox still holds and ends tasks whose run died without a word. `python -m mlaas.relay`.

Jobs publish their own completion events; the relay is there for those that were killed between the write and the
publication, for requests that came over HTTP, and for followers of a model. It may run in several copies. It answers at
/metrics, where the figures of all tasks and of what waits in Kafka are, and at /health/liveness and /health/readiness.
"""

from __future__ import annotations

import argparse
import logging
import signal
import threading
import time

from . import logs, outbox, probes, task_figures, trace_export
from .documents import shared
from .errors import MlaasError
from .heartbeats import Watch
from .journal import Journal
from .kafka_metrics import KafkaCollector
from .settings import Settings, current
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
    tasks, pulse = Tasks(shared(settings)), probes.Pulse()
    trace_export.start("mlaas-relay", settings)
    if not options.once:
        _be_observed(tasks, pulse, settings)
    watch, endings, sweep_at = Watch(settings.stale_after), task_figures.Endings(Journal(tasks.documents)), 0.0
    while not stop.is_set():
        try:
            outbox.flush(tasks, settings)
            if time.monotonic() >= sweep_at:
                sweep_at = time.monotonic() + settings.stale_after / 6
                for task_id in tasks.expire(watch):
                    log.warning("task.expired", extra={"fields": {"task_id": task_id}})
                endings.look()
        except MlaasError as error:
            log.warning("relay.waiting", extra={"fields": {"reason": error.detail}})
        pulse.beat()
        if options.once and not watch.undecided:
            break
        stop.wait(options.every)
    trace_export.flush()


def _be_observed(tasks: Tasks, pulse: probes.Pulse, settings: Settings) -> None:
    """Open the port for metrics and probes; a relay that cannot have it relays all the same."""
    task_figures.read_gauges_from(tasks)
    try:
        probes.serve(probes.create_app(pulse, KafkaCollector(settings)), settings.host, settings.port)
    except MlaasError as error:
        log.warning("relay.not_observed", extra={"fields": {"reason": error.detail, "remedy": error.remedy}})


if __name__ == "__main__":
    main()
