"""How the platform is: each of its parts asked at the same time, and a part that is away says so with what to do."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

from cloudevents.http import CloudEvent

from . import kafka_lag
from .documents import shared
from .errors import MlaasError, Unavailable
from .ledger import Ledger
from .settings import Settings

__all__ = ["PARTS", "Part", "look"]

_SECONDS = 3.0
_STATUSES = ("accepted", "running", "succeeded", "failed", "cancelled")


@dataclass(frozen=True)
class Part:
    """One part of the platform: what is known of it, or the problem (detail, field, remedy) that keeps one from knowing."""

    name: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    problem: Mapping[str, str] | None = None

    def as_json(self) -> dict[str, Any]:
        """The part as one JSON object."""
        return {"well": self.problem is None, **(self.problem or {}), **self.facts}


def look(settings: Settings) -> list[Part]:
    """Every part, in the order of PARTS; it takes as long as the slowest one, some seconds where something is away."""
    with ThreadPoolExecutor(len(PARTS)) as pool:
        return list(pool.map(lambda part: _ask(part[0], part[1], settings), PARTS.items()))


def _ask(name: str, ask: Callable[[Settings], Mapping[str, Any]], settings: Settings) -> Part:
    try:
        return Part(name, ask(settings))
    except MlaasError as error:
        problem = {"detail": error.detail, "field": error.field, "remedy": error.remedy}
        return Part(name, problem={key: text for key, text in problem.items() if text})


def _platform(settings: Settings) -> dict[str, Any]:
    import requests

    if "{function}" in settings.url:  # no one port, and no state of them all
        return {"url": settings.url}
    try:
        answer = requests.get(settings.url, timeout=_SECONDS)
        state = answer.json() if answer.ok else {}
    except ValueError:
        state = {}
    except requests.RequestException:
        detail = f"no platform answers at {settings.url}"
        raise Unavailable(detail, field="MLAAS_URL", remedy="Start it with `mlaas up`, or set MLAAS_URL.") from None
    known = state if isinstance(state, dict) and isinstance(state.get("functions"), dict) else {}
    return {"url": settings.url, **{name: known[name] for name in ("functions", "triggers", "jobs") if name in known}}


def _kafka(settings: Settings) -> dict[str, Any]:
    waiting = kafka_lag.waiting(settings, newest=True)
    letters = waiting.dead_letters
    newest = {"newest": _letter(letters.newest)} if letters.newest else {}
    return {
        "bootstrap": settings.kafka,
        "lags": [asdict(one) for one in waiting.lags],
        "dead_letters": {"topic": kafka_lag.DEAD_LETTERS, "exists": letters.exists, "count": letters.count, **newest},
    }


def _letter(letter: CloudEvent) -> dict[str, Any]:
    """Which event it is and why it is there, without the data that a user sent."""
    named = {name: letter.get(name) for name in ("id", "type", "source", "subject", "time")}
    return {**named, "code": letter.get("knativeerrorcode"), "reason": kafka_lag.reason(letter)}


def _documents(settings: Settings) -> dict[str, Any]:
    documents = shared(settings)
    tasks = {status: documents.count("tasks", {"task_status": status}) for status in _STATUSES}
    return {
        "kind": settings.documents_url.partition(":")[0],
        "tasks": {status: count for status, count in tasks.items() if count},
        "outbox": documents.count("tasks", {"outbox_pending": True}),
        "parked": Ledger(documents).parked_count(),
    }


def _storage(settings: Settings) -> dict[str, Any]:
    folder = settings.artefacts
    while not folder.exists():
        folder = folder.parent
    facts: dict[str, Any] = {"free_bytes": shutil.disk_usage(folder).free}
    return facts | ({"s3_endpoint": _s3(settings.s3_endpoint)} if settings.s3_endpoint else {})


def _s3(endpoint: str) -> str:
    import requests

    try:
        requests.get(endpoint, timeout=_SECONDS)  # any answer will do: without a login it refuses
    except (requests.RequestException, ValueError):
        raise Unavailable("the object store does not answer", field="MLAAS_S3_ENDPOINT", remedy="Start it, or set its endpoint.") from None
    return endpoint


PARTS: Mapping[str, Callable[[Settings], Mapping[str, Any]]] = {
    "platform": _platform,
    "kafka": _kafka,
    "documents": _documents,
    "storage": _storage,
}
