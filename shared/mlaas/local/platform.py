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

import urllib3
from cloudevents.http import CloudEvent

from ..errors import Unavailable
from ..settings import Settings
from .dispatch import Broker, Subscription
from .gateway import Gateway
from .kafka_server import KafkaServer, free_port
from .manifests import Route, Workload, load
from .processes import JobSink, Process, Watchdog
from .records import to_http

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
        self._http, self._stops, self._asked = urllib3.PoolManager(32, maxsize=64), contextlib.ExitStack(), threading.Event()
        self.bootstrap, self.url = kafka_external or f"127.0.0.1:{kafka_port}", f"http://127.0.0.1:{port}"
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
        """Return when SIGINT or SIGTERM asks for the end; a second signal does not wait for a clean one."""
        before = {number: signal.signal(number, lambda *_: self._asked.set()) for number in (signal.SIGINT, signal.SIGTERM)}
        while not self._asked.wait(1.0):
            pass
        for number, handler in before.items():
            signal.signal(number, handler)

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
        self._watchdog = self._own(home / "platform.lock")
        kafka = None if self._external else KafkaServer(home / "kafka", self._kafka_port, free_port(), watchdog=self._watchdog)
        if kafka:
            self._say("starting Apache Kafka")
            self._stops.callback(kafka.stop)
            kafka.start()
        topics = {topic for route in wired.routes.values() for topic in route.topics}
        self._broker = Broker(self.bootstrap, topics | set(wired.sinks.values()))
        self._stops.callback(self._broker.close)
        self.functions = {name: Process(name, one, self._spawn) for name, one in wired.services.items()}
        processes = [*self.functions.values(), *(Process(name, one, self._spawn) for name, one in wired.deployments.items())]
        self._jobs = {name: JobSink(name, one, self._spawn, home / "jobs", self._broker.stopping) for name, one in wired.jobs.items()}
        self._stops.callback(_together, [process.stop for process in processes])
        publish = partial(self._broker.append, wired.broker_topic, patience=5.0)
        gateway = Gateway(self._port, self._settings.max_body_bytes, self.functions, self.state, publish)
        self._stops.callback(gateway.stop)
        self.url = gateway.url
        self._subscriptions = {name: self._subscription(route) for name, route in wired.routes.items()}
        loops = [partial(self._keep, kafka, processes), *(one.run for one in self._subscriptions.values())]
        threads = [threading.Thread(target=loop, daemon=True) for loop in loops]
        self._stops.callback(lambda: [thread.join(4.0) for thread in threads])
        self._stops.callback(self._broker.stopping.set)
        for thread in threads:
            thread.start()

    def _own(self, lock: Path) -> Watchdog:
        """Be the only platform on this home, also while the processes of one that was killed still end."""
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
        self._stops.callback(os.close, descriptor)
        deadline = time.monotonic() + 6.0
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    remedy = "Use the running one, stop it, or set MLAAS_HOME to another folder."
                    raise Unavailable("the platform already runs on this MLAAS_HOME", remedy=remedy) from None
                time.sleep(0.1)
        watchdog = Watchdog(descriptor)
        self._stops.callback(watchdog.close)
        return watchdog

    def _spawn(self, name: str, workload: Workload, **env: str) -> subprocess.Popen[bytes]:
        """Start a process; its environment is the manifest's, then this process' own, then what only the platform knows."""
        fields = [(spec.metadata["env"], getattr(self._settings, spec.name), spec.default) for spec in dataclasses.fields(self._settings)]
        given = {variable: str(value) for variable, value, default in fields if value not in (None, default)}
        url = self.url
        known = {"MLAAS_KAFKA": self.bootstrap, "MLAAS_HOST": "127.0.0.1", "MLAAS_URL": url, "K_SINK": f"{url}/broker", **env}
        known["MLAAS_HOME"] = str(self._settings.home)
        log_file = self._settings.home / "logs" / f"{name}.log"
        return self._watchdog.spawn(workload.command, log_file, {**workload.env, **os.environ, **given, **known}, self._folder)

    def _keep(self, kafka: KafkaServer | None, processes: list[Process]) -> None:
        """Start again what died and end what is idle; everything else waits for it meanwhile."""
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
        workers, send = 4, partial(self._broker.append, self._wired.sinks.get(route.target, self._wired.broker_topic))
        if route.kind == "JobSink":
            send = self._jobs[route.target].run
        elif route.kind == "Service":
            workers, send = self._wired.services[route.target].concurrency, partial(self._ask, route)
        return Subscription(route, send, self._broker, self._wired.broker_topic, self._wired.sinks[route.dead_letters], workers, self.url)

    def _ask(self, route: Route, event: CloudEvent) -> tuple[bytes, int, Any]:
        headers, body = to_http(event)
        with self.functions[route.target].use() as url:
            try:
                answer = self._http.request("POST", f"{url}/", headers=headers, body=body, timeout=route.timeout, retries=False)
            except urllib3.exceptions.HTTPError as error:
                return f"no answer: {type(error).__name__}".encode(), 0, {}
        return answer.data, answer.status, answer.headers


def _together(calls: list[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=call, daemon=True) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
