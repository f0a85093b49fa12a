"""References instead of data (a claim check): what is too large for an event lies in a storage, and the event says where.

A reference is `{path, storage_type, size, sha256}`; size (bytes) and sha256 (hex) are verified when what it names is read.
What the platform and the command line put there lies in the exchange (MLAAS_EXCHANGE):

    <exchange>/uploads/<sha256[:16]>/<name>     files that the command line sent, by their content
    <exchange>/results/<task id>/               results of tasks that name no place of their own
    <exchange>/replies/<event id>.json          the data of replies that would be larger than MLAAS_MAX_EVENT_BYTES
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote

from . import dataset_files, events, storage
from .errors import InvalidRequest, TooLarge, within
from .settings import Settings
from .storage.manifests import digest_of, files_of, sha256_of

if TYPE_CHECKING:
    from cloudevents.http import CloudEvent

__all__ = ["Reference", "check_event_size", "digest", "fetch", "fitted", "in_exchange", "refer_to", "resolved", "verify"]

REPLIES = "replies"


class Reference(Protocol):
    """What a request says about a data set: where it is, which split of it, and a file's size and sha256 if the sender knows them."""

    @property
    def path(self) -> str: ...
    @property
    def storage_type(self) -> str: ...
    @property
    def size(self) -> int | None: ...
    @property
    def sha256(self) -> str | None: ...
    @property
    def split(self) -> str | None: ...


def in_exchange(settings: Settings, *names: str) -> tuple[str, str]:
    """Path and storage type of something in the exchange."""
    storage_type, _, path = settings.exchange.partition(":")
    return "/".join((path, *names)), storage_type


def refer_to(file: Path, path: str, storage_type: str) -> dict[str, Any]:
    """The reference to `file`, which is stored at `path`; reads all of it."""
    return {"path": path, "storage_type": storage_type, "size": file.stat().st_size, "sha256": sha256_of(file)}


def fetch(ref: Reference, *, part: str, settings: Settings, progress: Callable[[int, int], None] | None = None) -> Path:
    """What `ref`, the request's field `part`, refers to, as a verified local file, or as a place that `dataset_files.files` reads.

    `progress` is called with the bytes done and the bytes in all while it is downloaded. Raises NotFound, Unavailable, and
    InvalidRequest naming `<part>.size` or `<part>.sha256` where the file is another one than the sender meant, or `<part>.split`.
    """
    with within(part):
        place = storage.fetch_dataset(ref.path, ref.storage_type, settings=settings, progress=progress)
        verify(place, ref.size, ref.sha256)
        return dataset_files.of_split(place, ref.split)


def digest(place: Path) -> str:
    """The sha256, in hex, of a data set's file, or over the names and sha256s of its files; reads all of them."""
    if place.is_file():
        return sha256_of(place)
    names = {name: place / name for name in files_of(place)} if place.is_dir() else dataset_files.members(place)
    return digest_of({name: sha256_of(file) for name, file in names.items()})


def verify(place: Path, size: int | None, sha256: str | None) -> None:
    """Raise InvalidRequest, naming `size` or `sha256`, unless `place` is a file with them; None is not looked at."""
    if size is None and sha256 is None:
        return
    if not place.is_file():
        raise InvalidRequest(
            "the data set is no single file: it has no size and no sha256 of its own",
            field="sha256" if sha256 else "size",
            remedy="Name one file, or leave `size` and `sha256` out.",
        )
    remedy = "The file is not the one that was meant, or has changed: send the request for the file as it is now."
    if size is not None and size != (found := place.stat().st_size):
        raise InvalidRequest(f"the file has {found} bytes, not {size}", field="size", remedy=remedy)
    if sha256 is not None and sha256 != sha256_of(place):
        raise InvalidRequest("the file has another sha256", field="sha256", remedy=remedy)


def check_event_size(size: int, limit: int) -> None:
    """Raise TooLarge if a request that is an event of `size` bytes has more than `limit`."""
    if size > limit:
        raise TooLarge(
            f"the event is larger than {limit} bytes",
            field="$",
            remedy="Put the texts into a file and send a reference to it as `dataset`; `mlaas classify --file FILE` does both.",
        )


def fitted(event: CloudEvent, settings: Settings) -> CloudEvent:
    """`event`, or where it would be too large the same event with a reference to its data, which is stored first.

    The event has CloudEvents' `dataref` then, and the data `{"reference": {...}}`. Raises Unavailable where the storage is away.
    """
    if _size(event) <= settings.max_event_bytes:
        return event
    from cloudevents.http import CloudEvent

    path, storage_type = in_exchange(settings, REPLIES, f"{event['id']}.json")
    with tempfile.TemporaryDirectory(prefix="mlaas-reply-") as folder:
        file = Path(folder) / "data.json"
        file.write_text(json.dumps(event.data, ensure_ascii=False), encoding="utf-8")
        reference = refer_to(file, path, storage_type)
        storage.put(file, path, storage_type, settings=settings)
    return CloudEvent({**event.get_attributes(), "dataref": f"{storage_type}:{quote(path)}"}, {"reference": reference})


def resolved(event: CloudEvent, settings: Settings) -> CloudEvent:
    """`event` with its data, read from the storage and verified if the event only refers to them.

    Raises NotFound, Unavailable, and InvalidRequest where the data are not those that were referred to.
    """
    if not event.get("dataref") or not isinstance(event.data, dict) or "reference" not in event.data:
        return event
    try:
        reference = dict(event.data["reference"])
        path, storage_type = str(reference["path"]), str(reference["storage_type"])
        size, sha256 = int(reference["size"]), str(reference["sha256"])
    except (TypeError, ValueError, KeyError):
        raise InvalidRequest("the event's reference is malformed", field="data.reference", remedy="Ask again.") from None
    from cloudevents.http import CloudEvent

    with within("data.reference"):
        place = storage.fetch(path, storage_type, settings=settings)
        verify(place, size, sha256)
    return CloudEvent(dict(event.get_attributes()), json.loads(place.read_bytes()))


def _size(event: CloudEvent) -> int:
    """Bytes of `event` as a message with headers and a body."""
    headers, body = events.to_http(event)
    return len(body) + sum(len(name) + len(value) for name, value in headers.items())
