"""Stands in for KafkaSinks on a cluster that has none: `python -m mlaas.local.kafka_sink events=mlaas.events`.

An event that is posted to /NAME is a record of that name's topic once it is answered with 202: binary, its key the event's
`partitionkey`. What is in it is passed on unread, so that a dead letter that is no JSON arrives as it was.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import signal
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any
from urllib.parse import unquote

import flask

from .. import events, http_server, logs
from ..errors import InvalidRequest, Malformed, MlaasError, NotFound, Unavailable
from ..runtime import check_size, problem_response
from ..settings import current
from .broker import RECORD_BYTES, UNWRITABLE, Broker

__all__ = ["create_app", "main", "record"]

PATIENCE_SECONDS = 10.0  # a broker that asks waits longer, and asks again after a 503
THREADS = 16

log = logging.getLogger("mlaas")
Record = tuple[list[tuple[str, bytes]], bytes | None, bytes]


def record(headers: Mapping[str, str], body: bytes) -> Record:
    """Headers, key and value of the Kafka record for the CloudEvent of an HTTP request. Raises Malformed if it is none."""
    lowered = {name.lower(): value for name, value in headers.items()}
    if lowered.get("content-type", "").startswith(events.STRUCTURED):
        try:
            return events.to_kafka(events.from_request(headers, body))
        except UNWRITABLE:
            raise Malformed("the event cannot be written to Kafka", remedy="Send attributes that are strings.") from None
    given = {name.removeprefix("ce-"): unquote(value) for name, value in lowered.items() if name.startswith("ce-")}
    for name in ("specversion", "id", "source", "type"):
        if not given.get(name):
            raise Malformed(f"the CloudEvent lacks `{name}`", field=name, remedy=f"Send a `ce-{name}` header.")
    key = given.get("partitionkey")
    found = {f"ce_{name}": value.encode() for name, value in given.items()}
    if "content-type" in lowered:
        found["content-type"] = lowered["content-type"].encode()
    return list(found.items()), key.encode() if key else None, body


def create_app(topics: Mapping[str, str], write: Callable[..., None]) -> flask.Flask:
    """The WSGI application: a path for each of `topics`' names; `write(topic, headers, key, value)` appends a record."""
    app = flask.Flask("mlaas.kafka_sink")
    app.register_error_handler(MlaasError, problem_response)

    @app.post("/<name>")
    def sink(name: str) -> tuple[str, int]:
        if name not in topics:
            raise NotFound("there is no such sink", remedy=f"Post to {', '.join(f'/{one}' for one in sorted(topics))}.")
        check_size(flask.request, RECORD_BYTES)
        write(topics[name], *record(dict(flask.request.headers), flask.request.get_data()))
        return "", 202

    @app.get("/health/liveness")
    @app.get("/health/readiness")
    def health() -> str:
        return "OK"

    return app


def main(arguments: list[str] | None = None) -> None:
    """Serve until told to stop."""
    parser = argparse.ArgumentParser(
        prog="python -m mlaas.local.kafka_sink",
        description="Append the events that are posted to /NAME to a topic of Kafka.",
        epilog="Example: python -m mlaas.local.kafka_sink events=mlaas.events dead-letters=mlaas.dead-letters",
    )
    parser.add_argument("sinks", nargs="+", metavar="NAME=TOPIC", type=_sink, help="a path, and the topic of what is posted there")
    topics = dict(parser.parse_args(arguments).sinks)
    logs.configure()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    settings = current()
    try:
        with contextlib.closing(Broker(settings, topics.values())) as broker:
            app = create_app(topics, partial(broker.write, patience=PATIENCE_SECONDS))
            log.info("kafka_sink.started", extra={"fields": {"port": settings.port, "topics": topics}})
            # The default limit of a waiting body is waitress' own; a larger one than Kafka takes is refused with a problem.
            http_server.create(app, host=settings.host, port=settings.port, threads=THREADS, ident="mlaas").run()
    except (InvalidRequest, Unavailable) as error:
        sys.exit(f"{error.detail}. {error.remedy or ''}")


def _sink(text: str) -> tuple[str, str]:
    name, equals, topic = text.partition("=")
    if not (name and equals and topic):
        raise argparse.ArgumentTypeError("give NAME=TOPIC")
    return name, topic


def _end(_number: int, _frame: Any) -> None:
    raise SystemExit(0)


if __name__ == "__main__":
    main()
