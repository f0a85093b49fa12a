"""Everything that `mlaas up` runs, started and stopped in order, on one machine."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any
from zlib import crc32

import urllib3

from ..errors import MlaasError, Unavailable
from ..settings import Settings
from .broker import Journal, consumer, create_topics
from .dispatch import Dispatcher, Subscriber, Topics, to_job, to_service, to_topic
from .gateway import Gateway, create_app
from .jobs import Jobs
from .kafka_server import KafkaServer, free_port
from .manifests import Delivery, Manifests, Trigger, load
from .processes import Host, Process
from .subscription import Subscription
from .watchdog import Watchdog

__all__ = ["Platform"]

REPOSITORY = Path(__file__).parents[3]
PARTITIONS = 4
DRAIN_SECONDS = 2.0

log = logging.getLogger("mlaas")


class Platform:
    """The platform as a context: `Platform(settings) as platform: platform.wait()`.

    `manifests` is the folder with the wiring, `functions` the one with the functions; those of the repository by default.
    `kafka_external` names a Kafka to use instead of starting one. `say` gets one line at each step of the start.
    """

    def __init__(
        self,
        settings: Settings,
        manifests: Path | None = None,
        functions: Path | None = None,
        *,
        port: int = 8080,
        kafka_port: int = 9092,
        kafka_external: str | None = None,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._settings, self._say, self._port, self._kafka_port = settings, say, port, kafka_port
        self._folder = (functions or REPOSITORY / "functions").absolute().parent
        self._manifests: Manifests = load(manifests or REPOSITORY / "eventing" / "base")
        self.bootstrap = kafka_external or f"127.0.0.1:{kafka_port}"
        self._external = kafka_external is not None
        self._http = urllib3.PoolManager(num_pools=32, maxsize=64)
        self._stops = contextlib.ExitStack()
        self._asked, self._stopped = threading.Event(), threading.Event()
        self.functions: dict[str, Process] = {}
        self._dispatchers: dict[str, tuple[Dispatcher, Subscription]] = {}
        self._jobs: dict[str, Jobs] = {}
        self.url = f"http://127.0.0.1:{port}"

    def __enter__(self) -> Platform:
        started = time.monotonic()
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        self._say(f"ready in {time.monotonic() - started:.1f} s at {self.url}, Kafka at {self.bootstrap}")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def wait(self) -> None:
        """Return when SIGINT or SIGTERM asks for the end; a second signal does not wait for a clean one."""
        before = {number: signal.signal(number, lambda *_: self._asked.set()) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            while not self._asked.wait(1.0):
                pass
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def stop(self) -> None:
        """Stop everything in the reverse order of its start, in less than 10 s."""
        self._stopped.set()
        self._stops.close()

    def state(self) -> dict[str, Any]:
        """What runs: functions, triggers with their counts, jobs."""
        return {
            "functions": {name: process.state() for name, process in self.functions.items()},
            "triggers": {
                name: {
                    "lag": subscription.lag,
                    "in_flight": subscription.unfinished,
                    "delivered": one.delivered,
                    "retried": one.retried,
                    "dead_lettered": one.dead_lettered,
                }
                for name, (one, subscription) in self._dispatchers.items()
            },
            "jobs": {name: jobs.state() for name, jobs in self._jobs.items()},
        }

    def _start(self) -> None:
        home = self._settings.home
        for folder in ("logs", "jobs", "kafka"):
            (home / folder).mkdir(parents=True, exist_ok=True)
        self._stops.callback(self._http.clear)
        watchdog = self._own(home)
        gateway = Gateway(self._port)
        self._stops.callback(gateway.stop)
        self.url = gateway.url
        if not self._external:
            self._start_kafka(watchdog)
        self._create_topics()
        journal = Journal(self.bootstrap)
        self._stops.callback(journal.close)
        host = Host(watchdog, self._environment, self._folder, home / "logs", self._http)
        self._start_processes(host)
        create_app(
            gateway.app,
            self.functions,
            journal,
            self._manifests.broker_topic,
            lambda: {**self.state(), "kafka": self.bootstrap},
            self._settings.max_body_bytes,
            self._http,
        )
        gateway.start()
        self._start_dispatch(journal)

    def _own(self, home: Path) -> Watchdog:
        """Be the only platform on this home, also while the processes of one that was killed still end."""
        mine, children = (os.open(home / name, os.O_RDWR | os.O_CREAT, 0o600) for name in ("platform.lock", "processes.lock"))
        self._stops.callback(os.close, mine)
        self._stops.callback(os.close, children)
        if not _locked(mine):
            raise Unavailable(
                "the platform already runs on this MLAAS_HOME", remedy="Use the running one, stop it, or set MLAAS_HOME to another folder."
            )
        deadline = time.monotonic() + 15
        while not _locked(children):
            if time.monotonic() > deadline:
                raise Unavailable("processes of the last run do not end", remedy="End them by hand and start again.")
            time.sleep(0.05)
        watchdog = Watchdog(children)
        self._stops.callback(watchdog.close)
        return watchdog

    def _start_kafka(self, watchdog: Watchdog) -> None:
        self._say("starting Apache Kafka")
        kafka = KafkaServer(self._settings.home / "kafka", self._kafka_port, free_port(), watchdog=watchdog)
        self._stops.callback(kafka.stop)
        kafka.start()
        thread = threading.Thread(target=self._keep, args=(kafka,), name="kafka", daemon=True)
        thread.start()
        self._stops.callback(thread.join, 4.0)

    def _keep(self, kafka: KafkaServer) -> None:
        """Start Kafka again when it dies; everything else waits for it meanwhile."""
        while not self._stopped.wait(0.5):
            if not kafka.alive:
                log.error("kafka.died")
                try:
                    kafka.start()
                except MlaasError as error:
                    log.error("kafka.waiting", extra={"fields": {"reason": error.detail}})

    def _create_topics(self) -> None:
        manifests = self._manifests
        topics = {sink.topic: 1 for sink in manifests.sinks.values()} | {manifests.broker_topic: PARTITIONS}
        large = set(topics)  # what a client sent is bounded by Kafka's default, what is made of it may be larger
        topics |= {topic: PARTITIONS for source in manifests.sources.values() for topic in source.topics}
        create_topics(self.bootstrap, topics, large)

    def _environment(self, manifest: Mapping[str, str]) -> dict[str, str]:
        """A process' environment: the manifest's, then this process' own, then what only the platform knows."""
        given = {
            spec.metadata["env"]: str(value)
            for spec in dataclasses.fields(self._settings)
            if (value := getattr(self._settings, spec.name)) not in (None, spec.default)
        }
        known = {
            "MLAAS_HOME": str(self._settings.home),
            "MLAAS_KAFKA": self.bootstrap,
            "MLAAS_HOST": "127.0.0.1",
            "MLAAS_URL": self.url,
            "K_SINK": f"{self.url}/broker",
        }
        return {**manifest, **os.environ, **given, **known}

    def _start_processes(self, host: Host) -> None:
        manifests, home = self._manifests, self._settings.home
        self.functions = {name: Process(workload, host, probed=True) for name, workload in manifests.services.items()}
        deployments = [Process(workload, host, probed=False) for workload in manifests.deployments.values()]
        self._jobs = {name: Jobs(job, host, home / "jobs") for name, job in manifests.jobs.items()}
        everything: list[Process | Jobs] = [*self.functions.values(), *deployments, *self._jobs.values()]
        self._stops.callback(_stop_together, everything)
        for one in everything:
            one.start()

    def _start_dispatch(self, journal: Journal) -> None:
        manifests = self._manifests
        to_broker = to_topic(journal, manifests.broker_topic)
        for source in manifests.sources.values():
            forever = Delivery(retry=2**31, exponential=False, delay=0.5, dead_letters=source.dead_letters)
            trigger = Trigger(f"source-{source.name}", lambda event: True, "Broker", manifests.broker, forever, ordered=True)
            self._subscribe(self._dispatcher(trigger, journal, to_broker), trigger, source.group, source.topics, 8)
        for name, trigger in manifests.triggers.items():
            workers = manifests.services[trigger.subscriber].concurrency if trigger.kind == "Service" else 4
            dispatcher = self._dispatcher(trigger, journal, self._subscriber(trigger, journal))
            self._subscribe(dispatcher, trigger, f"knative-trigger-{name}", (manifests.broker_topic,), workers)
        subscriptions = [subscription for _, subscription in self._dispatchers.values()]
        self._stops.callback(_drain, journal, subscriptions)
        for subscription in subscriptions:
            subscription.start()

    def _subscriber(self, trigger: Trigger, journal: Journal) -> Subscriber:
        if trigger.kind == "KafkaSink":
            sink = self._manifests.sinks[trigger.subscriber]
            return to_topic(journal, sink.topic, structured=sink.structured)
        if trigger.kind == "JobSink":
            return to_job(self._jobs[trigger.subscriber])
        return to_service(self.functions[trigger.subscriber], self._http, trigger.delivery.timeout)

    def _dispatcher(self, trigger: Trigger, journal: Journal, subscriber: Subscriber) -> Dispatcher:
        letters = trigger.delivery.dead_letters
        topics = Topics(self._manifests.broker_topic, self._manifests.sinks[letters].topic if letters else None)
        target = f"{self.url}/{trigger.subscriber}" if trigger.kind == "Service" else f"{trigger.kind}/{trigger.subscriber}"
        return Dispatcher(trigger, subscriber, journal, topics, target)

    def _subscribe(self, dispatcher: Dispatcher, trigger: Trigger, group: str, topics: tuple[str, ...], workers: int) -> None:
        connect = partial(consumer, self.bootstrap, f"{crc32(str(self._settings.home).encode()):08x}")
        subscription = Subscription(dispatcher, connect, group, topics, workers=workers, ordered=trigger.ordered)
        self._dispatchers[trigger.name] = dispatcher, subscription


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _drain(journal: Journal, subscriptions: list[Subscription]) -> None:
    """Take no new events, give those in flight a moment, commit, leave the groups."""
    journal.stopping.set()
    for subscription in subscriptions:
        subscription.begin_stop()
    _together([partial(one.join, DRAIN_SECONDS) for one in subscriptions])


def _stop_together(things: list[Process | Jobs]) -> None:
    _together([thing.stop for thing in things])


def _together(calls: list[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=call, daemon=True) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
