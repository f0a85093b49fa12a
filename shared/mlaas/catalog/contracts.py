"""What the REST interface takes and gives; the OpenAPI description is made from these models."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, Field

from ..contracts import Contract, Licence, Name, Task
from ..objectives import Objective
from .audit import OutcomeOfChange
from .entries import Visibility
from .kinds import Kind
from .listing import Order, Query

__all__ = [
    "AliasShown",
    "AliasTarget",
    "AliasesShown",
    "ChangePage",
    "ChangeShown",
    "ChangesQuery",
    "EntryChange",
    "EntryName",
    "EntryPage",
    "EntryShown",
    "EventPage",
    "EventShown",
    "EventsQuery",
    "FileShown",
    "FilesShown",
    "Lineage",
    "ListQuery",
    "Move",
    "PageQuery",
    "Problem",
    "QuotaChange",
    "QuotaOf",
    "QuotaPage",
    "QuotaShown",
    "QuotasQuery",
    "TaskPage",
    "TasksQuery",
    "UploadQuery",
    "Uploaded",
    "Variation",
    "VersionPage",
    "VersionShown",
    "VersionSummary",
]

Tag = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,49}$", description="Lowercase letters, digits, `.`, `_` and `-`.")]
Language = Annotated[str, Field(pattern=r"^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$", description="A language tag (BCP 47), e.g. `en` or `it`.")]
Number = Annotated[str, Field(pattern=r"^[1-9][0-9]{0,8}$")]
Version = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,99}:[1-9][0-9]{0,8}$")]
Limit = Annotated[int, Field(ge=1, le=100)]
Moment = Annotated[AwareDatetime, Field(description="ISO 8601 with its offset from UTC, e.g. `2026-01-31T12:00:00Z`.")]
Cursor = Annotated[str, Field(max_length=2000, description="`next` of the page before.")]


class ListQuery(Contract):
    """Which entries, in which order."""

    q: str = Field("", max_length=200, description="Words, each of which is in the name, the description, the task or a tag.")
    task: str | None = Field(None, max_length=100)
    tag: list[Tag] = Field(default_factory=list, max_length=10, description="Each of them is a tag of the entry.")
    licence: Licence | None = None
    language: Language | None = None
    precision: str | None = Field(None, max_length=20, description="A precision in which the latest version can be had, e.g. `int8`.")
    owner: str | None = Field(None, max_length=100)
    visibility: Visibility | None = None
    sort: Order = "hotness"
    limit: Limit = 20
    cursor: Cursor | None = None

    def wanted(self) -> Query:
        """What the catalog is searched for."""
        same = ("task", "licence", "language", "precision", "owner", "visibility")
        return Query(text=self.q, tags=tuple(self.tag), order=self.sort, **{name: getattr(self, name) for name in same})


class PageQuery(Contract):
    """Which page."""

    limit: Limit = 20
    cursor: Cursor | None = None


class EntryChange(Contract):
    """What is said of a name; what is left out stays."""

    owner: str | None = Field(None, min_length=1, max_length=100)
    description: str | None = Field(None, max_length=2000)
    licence: Licence | None = None
    tags: list[Tag] | None = Field(None, max_length=30)
    languages: list[Language] | None = Field(None, max_length=30)
    visibility: Visibility | None = None
    card: str | None = Field(None, max_length=200_000, description="Markdown that stands for versions which have no card of their own.")


class EntryShown(Contract):
    """What is said of a name, and how much it is used; `hotness` halves every week in which nobody uses it."""

    kind: Kind
    name: str
    owner: str | None = None
    description: str
    task: str | None = None
    licence: str | None = None
    tags: list[str]
    languages: list[str]
    precisions: list[str]
    visibility: Visibility
    latest: str | None = Field(None, description="The number of the latest version.")
    created: str
    updated: str
    downloads: int
    served: int
    hotness: float
    aliases: dict[str, str] = Field(description="Alias to version.")
    href: str


class EntryPage(Contract):
    """Some entries; `next` is the cursor of the next page, `total` how many there are on all."""

    items: list[EntryShown]
    next: str | None = None
    total: int


class Variation(Contract):
    """A graph of a model's version, and what was measured of it."""

    precision: str
    file: str | None = None
    size: int | None = Field(None, description="Bytes.")
    languages: list[str] = Field([])
    served: bool = Field(False, description="Whether it answers where nothing else is asked for.")
    metrics: dict[str, float] = Field({})
    texts_per_second: float | None = None
    metric: str | None = Field(None, description="The main metric, which `accuracy_loss` is told in.")
    accuracy_loss: float | None = Field(
        None, description="By how much that is less than fp32's on the same held-out rows; null where it was not measured."
    )
    rows: int | None = Field(None, description="How many held-out rows those were.")
    note: str | None = Field(None, description="Why something was not measured.")


class Lineage(Contract):
    """What a version was made from."""

    task_id: str | None = None
    trace_id: str | None = None
    dataset: dict[str, Any] | None = Field(None, description="Name and version in the catalog, path, sha256: what is known of the data.")
    parent: dict[str, Any] | None = Field(None, description="The model it was made from: name and version in the catalog, or its place.")
    request: dict[str, Any] | None = None


class VersionSummary(Contract):
    """A version."""

    version: str
    digest: str
    created: str
    aliases: list[str]
    href: str


class VersionPage(Contract):
    """Some versions, newest first; `next` is the cursor of the next page."""

    items: list[VersionSummary]
    next: str | None = None


class VersionShown(VersionSummary):
    """A version with all that is known of it. What it has of `columns`, `count`, `labels`, ... follows from its kind."""

    kind: Kind
    name: str
    status: Literal["ready", "pending"] = "ready"
    task: str | None = None
    licence: str | None = None
    labels: list[str] = Field([])
    max_length: int | None = None
    metrics: dict[str, float] = Field({})
    variations: list[Variation] = Field([])
    lineage: Lineage
    count: int | None = Field(None, description="Documents of an index, rows of a data set.")
    dimension: int | None = None
    index_types: list[str] = Field([])
    recall: float | None = None
    columns: list[dict[str, Any]] = Field([], description="Name and type of each column of a data set; of an index: id, text and metadata.")
    preview: list[dict[str, Any]] = Field([], description="The first rows of a data set, or documents of an index.")
    has_card: bool = False
    path: str
    storage_type: str
    files_href: str


class UploadQuery(Contract):
    """What is sent, and what is said of it. What is said of the name holds where this is its first version."""

    filename: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$",
        description="Says what it is: .zip, .tar, .tar.gz or .tgz with a model or data files in it, or one data file (.csv, .tsv, .jsonl, "
        ".ndjson, each with .gz as well, .parquet).",
    )
    task: Objective | None = Field(None, description="What a model is for; as its configuration says, by default.")
    licence: Licence | None = None
    owner: str | None = Field(None, min_length=1, max_length=100)
    description: str | None = Field(None, max_length=2000)
    tag: list[Tag] = Field(default_factory=list, max_length=30)
    language: list[Language] = Field(default_factory=list, max_length=30)
    visibility: Visibility = "institute"
    parent: Version | None = Field(None, description="The model that it was made from, as NAME:VERSION.")
    dataset: Version | None = Field(None, description="The data set that it was trained on, as NAME:VERSION.")


class EntryName(Contract):
    """What something may be called."""

    name: Name


class Uploaded(Contract):
    """The version that was published; or, of a checkpoint without an ONNX graph, the task of the job that exports and publishes it."""

    status: Literal["published", "pending"]
    version: str | None = None
    task_id: str | None = None
    href: str


class FileShown(Contract):
    """A file of a version."""

    name: str
    size: int
    sha256: str | None = None
    href: str


class FilesShown(Contract):
    """The files of a version."""

    items: list[FileShown]


class AliasTarget(Contract):
    """Where an alias is to point."""

    version: Number


class Move(Contract):
    """A move of an alias; `version` is None for its removal, `moved` for one from before there was a history."""

    version: str | None = None
    moved: str | None = None
    by: str | None = None
    rollback: bool = False


class AliasShown(Contract):
    """An alias, and where it pointed, oldest first."""

    alias: str
    version: str
    history: list[Move]


class AliasesShown(Contract):
    """The aliases of a name."""

    items: list[AliasShown]


class TasksQuery(Contract):
    """Which tasks."""

    status: Literal["accepted", "running", "succeeded", "failed", "cancelled"] | None = None
    limit: Limit = 20
    cursor: Cursor | None = None


class TaskPage(Contract):
    """Some tasks, newest first; `next` is the cursor of the next page."""

    items: list[Task]
    next: str | None = None


class EventsQuery(Contract):
    """Which of the events that tasks made known."""

    task: str | None = Field(None, max_length=200, description="Only those of this task.")
    type: str | None = Field(None, max_length=200, description="`train.succeeded`, `train`, or a whole event type.")
    since: Moment | None = None
    until: Moment | None = None
    limit: Limit = 20
    cursor: Cursor | None = None


class EventShown(Contract):
    """An event that is kept; `event` is the CloudEvent in its structured form."""

    id: str
    task_id: str
    type: str
    time: str
    event: dict[str, Any]


class EventPage(Contract):
    """Some events, those kept last first; `next` is the cursor of the next page."""

    items: list[EventShown]
    next: str | None = None


class ChangesQuery(Contract):
    """Which changes of the audit log."""

    subject: str | None = Field(None, max_length=100, description="Only what this one asked for.")
    operation: str | None = Field(None, max_length=100, description="Only this operation, e.g. `deleteVersion`, `web.cancel`.")
    kind: Kind | None = None
    name: str | None = Field(None, max_length=200, description="Only changes of this name.")
    since: Moment | None = None
    until: Moment | None = None
    limit: Limit = 20
    cursor: Cursor | None = None


class ChangeShown(Contract):
    """Who asked for which change, and what became of it: `begun` is one that was cut off. `reason` is the class of a problem."""

    subject: str
    operation: str
    kind: str | None = None
    name: str | None = None
    target: str | None = Field(None, description="The version, alias, task, or owner of a quota that was meant.")
    time: str
    outcome: OutcomeOfChange
    reason: str | None = None
    made: str | None = Field(None, description="Where the result is.")


class ChangePage(Contract):
    """Some changes, newest first; `next` is the cursor of the next page."""

    items: list[ChangeShown]
    next: str | None = None


class QuotasQuery(Contract):
    """Whose quotas: an administrator sees those of all, anybody else their own and those of their groups."""

    owner: str | None = Field(None, min_length=1, max_length=100, description="Only this subject, or `group:NAME`.")
    limit: Limit = 20
    cursor: Cursor | None = None


class QuotaOf(Contract):
    """One quota."""

    limit: int = Field(description="0 is no limit.")
    used: int
    resets: str | None = Field(None, description="When there is room again by itself; never for storage.")
    own: bool = Field(description="Whether an administrator has set this limit for this owner.")


class QuotaShown(Contract):
    """What a subject, or all of a group together, may use, and have used."""

    owner: str
    requests_per_day: QuotaOf
    storage_bytes: QuotaOf
    training_seconds: QuotaOf = Field(description="Within the last 30 days.")


class QuotaPage(Contract):
    """The quotas of some owners, in the order of their names; `next` is the cursor of the next page."""

    items: list[QuotaShown]
    next: str | None = None


Quota = Annotated[int | None, Field(ge=0, le=2**53, description="0 is no limit, null what the settings say.")]


class QuotaChange(Contract):
    """The limits of one owner; what is left out is as the settings say."""

    requests_per_day: Quota = None
    storage_bytes: Quota = None
    training_seconds: Quota = None


class Problem(Contract):
    """What went wrong (RFC 9457), the field to blame and the remedy."""

    type: str
    title: str
    status: int
    detail: str
    field: str | None = None
    remedy: str | None = None
    error_id: str | None = None
    dependants: list[dict[str, str]] | None = Field(None, description="What is in the way of a deletion.")
