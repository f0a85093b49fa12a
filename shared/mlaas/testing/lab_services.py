"""MongoDB's wire protocol and S3 for a one-node cluster without either: `python -m mlaas.testing.lab_services --host ADDRESS`.

The servers of the tests (mongo-java-server, SeaweedFS) on an address of this machine that pods reach, at the ports and with
the credentials that `eventing/overlays/lab` names. For a laboratory: what they hold ends with them.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import MlaasError
from .mongo_server import MongoServer
from .s3_server import credentials, running_s3_server

__all__ = ["ACCESS_KEY", "HOST", "MONGO_PORT", "S3_PORT", "SECRET_KEY", "main", "running_lab_services"]

HOST, MONGO_PORT, S3_PORT = "10.250.0.1", 27117, 18333  # outside of the ranges of NodePorts and of ephemeral ports
ACCESS_KEY, SECRET_KEY = "development", "development-only"


@contextmanager
def running_lab_services(host: str = HOST, mongo_port: int = MONGO_PORT, s3_port: int = S3_PORT) -> Iterator[tuple[str, str]]:
    """The document store's URL and the S3 endpoint, with the bucket BUCKET in it. Raises Unavailable, RuntimeError."""
    with (
        MongoServer(port=mongo_port, host=host) as documents,
        running_s3_server(ACCESS_KEY, SECRET_KEY, host=host, port=s3_port) as store,
        credentials(store),
    ):
        yield documents.url, store.endpoint


def main(arguments: list[str] | None = None) -> None:
    """Run both until told to stop."""
    parser = argparse.ArgumentParser(prog="python -m mlaas.testing.lab_services", description="A document and an object store for pods.")
    parser.add_argument("--host", default=HOST, help=f"an address of this machine that pods reach ({HOST})")
    host = parser.parse_args(arguments).host
    signal.signal(signal.SIGTERM, _stop)
    with contextlib.suppress(KeyboardInterrupt):
        try:
            with running_lab_services(host) as (documents, store):
                print(f"documents at {documents}, objects at {store}; Ctrl-C ends both and what they hold", flush=True)
                signal.pause()
        except (MlaasError, RuntimeError) as error:
            sys.exit(f"{error}")


def _stop(_number: int, _frame: Any) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
