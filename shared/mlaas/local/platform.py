"""Everything that `mlaas up` runs, started and stopped in order, on one machine."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import flask
from cloudevents.http import CloudEvent

from .. import events, protocols
from ..errors import Unavailable
from ..kafka_metrics import KafkaCollector
from ..settings import Settings
from . import runner_metrics
from .broker import Broker, own_kafka
from .dispatch import Send, Subscription
from .gateway import create_app, serve
from .kafka_server import KafkaServer, free_port
from .manifests import Route, Workload, load
from .processes import GRACE_SECONDS, JobSink, Process, Watchdog
from .records import Records

__all__ = ["Platform"]

REPOSITORY = Path(__file__).parents[3]

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
        self._settings, self._say, self._port, self._kafka_port, self._external = settings, say, port, kafka_port, kafka_external
        self._folder = (functions or REPOSITORY / "functions").absolute().parent
        self._wired = load(manifests or REPOSITORY / "eventing" / "base")
        self._stops = contextlib.ExitStack()
        self._kafka = dataclasses.replace(settings, kafka=kafka_external) if kafka_external else own_kafka(settings, kafka_port)
        self.bootstrap, self.url = self._kafka.kafka, f"http://127.0.0.1:{port}"
        self.functions: dict[str, Process] = {}
        self._jobs: dict[str, JobSink] = {}
        self._subscriptions: dict[str, Subscription] = {}

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
        """Return when SIGINT or SIGTERM asks for the end."""
        asked = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: asked.set())
        while not asked.wait(1.0):
            pass

    def stop(self) -> None:
        """Stop everything in the reverse order of its start, in less than 10 s."""
        self._stops.close()

    def state(self) -> dict[str, Any]:
        """What runs: functions, triggers with their counts, jobs."""
        return {
            "kafka": self.bootstrap,
            "broker": f"{self.url}/broker",
            "functions": {name: {"url": f"{self.url}/{name}", **process.state()} for name, process in self.functions.items()},
            "triggers": {name: dict(one.counts) for name, one in self._subscriptions.items()},
            "jobs": {name: jobs.state() for name, jobs in self._jobs.items()},
        }

    def _start(self) -> None:
        home, wired = self._settings.home, self._wired
        for folder in ("logs", "jobs", "kafka"):
            (home / folder).mkdir(parents=True, exist_ok=True)
        self._watchdog = Watchdog(self._own(home / "platform.lock"))
        self._stops.callback(self._watchdog.close)
        kafka = None
        if not self._external:
            self._say("starting Apache Kafka")
            kafka = KafkaServer(home / "kafka", self._kafka_port, free_port(), watchdog=self._watchdog)
            kafka.start()
        topics = {topic for route in wired.routes.values() for topic in route.topics}
        self._broker, self._records = Broker(self._kafka, topics | set(wired.sinks.values())), Records()
        self._stops.callback(self._broker.close)
        self.functions = {name: Process(name, one, self._spawn) for name, one in wired.services.items()}
        deployments = [Process(name, one, self._spawn) for name, one in wired.deployments.items()]
        self._jobs = {name: JobSink(name, one, self._spawn, home / "jobs", self._broker.stopping) for name, one in wired.jobs.items()}
        publish = partial(self._broker.append, wired.broker_topic, patience=5.0)
        self.url, stop = serve(self._app(publish), self._port)
        self._stops.callback(stop)
        self._subscriptions = {name: self._subscription(route) for name, route in wired.routes.items()}
        self._run(partial(self._keep, kafka, [*self.functions.values(), *deployments]))
        for one in self._subscriptions.values():
            self._run(one.run)
        self._stops.callback(self._broker.stopping.set)

    def _app(self, publish: Callable[[CloudEvent], None]) -> flask.Flask:
        metrics = partial(runner_metrics.render, self.state, KafkaCollector(self._kafka))
        owner_of = partial(protocols.owner_of, settings=self._settings)
        large = {"catalog": self._settings.upload_bytes}
        return create_app(self.functions, self.state, publish, self._settings.max_body_bytes, metrics, large, owner_of)

    def _run(self, loop: Callable[[], None]) -> None:
        thread = threading.Thread(target=loop, daemon=True)
        self._stops.callback(thread.join, 4.0)
        thread.start()

    def _own(self, path: Path) -> int:
        """Lock this home; a platform that was killed holds it until its processes have ended."""
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        self._stops.callback(os.close, lock)
        for _ in range(60):
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return lock
            time.sleep(0.1)
        remedy = "Use the running one, stop it, or set MLAAS_HOME to another folder."
        raise Unavailable("the platform already runs on this MLAAS_HOME", remedy=remedy)

    def _spawn(self, name: str, workload: Workload, **env: str) -> subprocess.Popen[bytes]:
        """Start a process; its environment is the manifest's, then this process' own, then what only the platform knows."""
        home = self._settings.home
        where = {"MLAAS_HOME": str(home), "MLAAS_KAFKA": self.bootstrap, "MLAAS_URL": self.url, "K_SINK": f"{self.url}/broker"}
        where |= {"MLAAS_TOKEN": self._settings.token} if self._settings.token else {}
        where["MLAAS_GRACE_SECONDS"] = str(GRACE_SECONDS - 1)  # a job told to stop has less time here than on a cluster
        env = {**workload.env, **os.environ, **where, "MLAAS_HOST": "127.0.0.1", **env}
        return self._watchdog.spawn(workload.command, home / "logs" / f"{name}.log", env=env, cwd=self._folder)

    def _keep(self, kafka: KafkaServer | None, processes: list[Process]) -> None:
        """Start again what died and end what is idle; all else waits for it meanwhile."""
        while not self._broker.stopping.wait(0.1):
            try:
                for process in processes:
                    process.tend()
                if kafka and not kafka.alive:
                    log.error("kafka.died")
                    kafka.start()
            except Exception:  # a full disk, say; it is tried again
                log.exception("keeper.failed")

    def _subscription(self, route: Route) -> Subscription:
        wired, workers = self._wired, 4
        send: Send = partial(self._broker.append, wired.sinks[route.target] if route.kind == "KafkaSink" else wired.broker_topic)
        if route.kind == "JobSink":
            workers, send = 1, self._jobs[route.target].run  # one job at a time, in the order of their events
        elif route.kind == "Service":
            # While some wait until Kafka has their replies, as many others are at the function; what is too much waits there.
            workers, send = 2 * wired.services[route.target].concurrency, partial(self._ask, route)
        return Subscription(
            route, send, self._broker, wired.broker_topic, wired.sinks[route.dead_letters], workers, self.url, self._records
        )

    def _ask(self, route: Route, event: CloudEvent) -> tuple[bytes, int, Any]:
        headers, body = events.to_http(event)
        answer = self.functions[route.target].ask("POST", "/", headers=headers, body=body, timeout=route.timeout)
        return answer.data, answer.status, answer.headers
