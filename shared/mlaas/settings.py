"""The platform's settings: read once from the environment, every name spelled here and nowhere else.

`load(environ)` takes the environment as an argument, so a test passes a dict. A value that cannot be cast stops the
start and names the key. Secrets are hidden in repr. S3 credentials come from the usual AWS_ variables or files and the
hub's token from HF_TOKEN, both read by their own libraries and never here.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .errors import MlaasError

__all__ = ["LIBRARY_DEFAULTS", "SERVING_DEFAULTS", "STARTING_DEFAULTS", "Settings", "current", "load", "named", "table"]

# Read by libraries, where nobody has set them otherwise: ONNX Runtime's and the hub's own reports of their use to their makers are off.
LIBRARY_DEFAULTS = {"ORT_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
# The same in a function's process: pydantic looks for plugins in every package that is installed.
SERVING_DEFAULTS = {"PYDANTIC_DISABLE_PLUGINS": "__all__"}
# And while it starts: numpy's linear algebra, of which a function needs little, starts a thread for each core. FAISS, which is loaded
# later and is built on the same library, does not see it.
STARTING_DEFAULTS = {"OPENBLAS_NUM_THREADS": "1"}
_FOLDERS_AND_FILES = ("home", "root", "cache", "staged", "kafka_ca", "kafka_certificate", "kafka_key")


class BadSetting(MlaasError):
    """A setting in the environment cannot be used."""


def _boolean(text: str) -> bool:
    known = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
    return known[text.strip().lower()]


def _place(text: str) -> str:
    storage_type, _, path = text.partition(":")
    if storage_type not in ("local", "s3") or not path.strip("/"):
        raise ValueError(text)
    return text.rstrip("/")


def _one_of(*names: str) -> Callable[[str], str]:
    known = {name: name for name in names}
    return lambda text: known[text.strip().upper()]


def _at_least(least: int) -> Callable[[str], int]:
    def parsed(text: str) -> int:
        number = int(text)
        if number < least:
            raise ValueError(text)
        return number

    return parsed


_natural, _positive = _at_least(0), _at_least(1)


def _share(text: str) -> float:
    number = float(text)
    if not 0 <= number <= 1:  # nor is NaN
        raise ValueError(text)
    return number


def _issuer(text: str) -> str:
    found = urlsplit(text)
    loopback = found.scheme == "http" and found.hostname in ("127.0.0.1", "localhost", "::1")
    if not found.hostname or found.query or found.fragment or found.username or not (found.scheme == "https" or loopback):
        raise ValueError(text)
    return text


def _callback(text: str) -> str:
    if urlsplit(_issuer(text)).path != "/web/login/callback":
        raise ValueError(text)
    return text


def _origins(text: str) -> str:
    for one in filter(None, (origin.strip() for origin in text.split(","))):
        found = urlsplit(one)
        if found.scheme not in ("http", "https") or not found.netloc or one != f"{found.scheme}://{found.netloc}":
            raise ValueError(text)
    return text


def _role_map(text: str) -> str:
    for one in filter(None, (row.strip() for row in text.split(","))):
        name, _, role = one.rpartition("=")
        if not name.strip() or role.strip() not in ("reader", "user", "admin"):
            raise ValueError(text)
    return text


def _setting(env: str, default: Any, cast: Callable[[str], Any], help: str, *, secret: bool = False) -> Any:
    return field(default=default, repr=not secret, metadata={"env": env, "cast": cast, "help": help})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that can be configured. Field metadata carry the environment name, the cast and a sentence of help."""

    home: Path = _setting(
        "MLAAS_HOME", Path("~/.local/share/mlaas"), Path, "Folder of all local state: artefacts, documents, Kafka's data, logs."
    )
    root: Path | None = _setting("MLAAS_ROOT", None, Path, "The one folder under which `local` paths live; `<home>/artefacts` by default.")
    cache: Path | None = _setting("MLAAS_CACHE", None, Path, "Folder of verified downloads; `<home>/cache` by default.")
    staged: Path | None = _setting(
        "MLAAS_STAGED", None, Path, "Folder of models that were put here beforehand, a folder for each version; used before a download."
    )
    cache_bytes: int = _setting(
        "MLAAS_CACHE_BYTES", 20 * 1024**3, int, "Size in bytes beyond which the least recently used downloads are removed."
    )
    documents: str | None = _setting(
        "MLAAS_DOCUMENTS",
        None,
        str,
        "URL of the document store: `sqlite:///path` or `mongodb://...`; `<home>/documents.sqlite` by default.",
        secret=True,
    )
    kafka: str = _setting("MLAAS_KAFKA", "127.0.0.1:9092", str, "Kafka bootstrap servers, comma separated.")
    kafka_security: str = _setting(
        "MLAAS_KAFKA_SECURITY",
        "PLAINTEXT",
        _one_of("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"),
        "How Kafka is spoken to: PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL (TLS and a login).",
    )
    kafka_sasl_mechanism: str | None = _setting(
        "MLAAS_KAFKA_SASL_MECHANISM",
        None,
        _one_of("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"),
        "How to log in to Kafka: PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512.",
    )
    kafka_username: str | None = _setting("MLAAS_KAFKA_USERNAME", None, str, "User who logs in to Kafka.")
    kafka_password: str | None = _setting("MLAAS_KAFKA_PASSWORD", None, str, "Password of that user.", secret=True)
    kafka_ca: Path | None = _setting(
        "MLAAS_KAFKA_CA", None, Path, "PEM file of the authorities that sign Kafka's certificate; those of the system by default."
    )
    kafka_certificate: Path | None = _setting(
        "MLAAS_KAFKA_CERTIFICATE", None, Path, "PEM file of this client's certificate, where Kafka asks for one (mutual TLS)."
    )
    kafka_key: Path | None = _setting("MLAAS_KAFKA_KEY", None, Path, "PEM file of that certificate's key, without a passphrase.")
    kafka_partitions: int = _setting(
        "MLAAS_KAFKA_PARTITIONS", 4, _positive, "Partitions of the topics that `mlaas up` makes; those that exist keep theirs."
    )
    url: str = _setting(
        "MLAAS_URL",
        "http://127.0.0.1:8080",
        str,
        "Where the command line and the web app find the platform: its HTTP port, or each function by its name, "
        "e.g. `http://{function}.mlaas.svc.cluster.local`.",
    )
    token: str | None = _setting(
        "MLAAS_TOKEN",
        None,
        str,
        "Token with which the catalog is changed, and read as a whole; `mlaas up` makes one, without it nobody can change it by HTTP.",
        secret=True,
    )
    oidc_issuer: str | None = _setting(
        "MLAAS_OIDC_ISSUER", None, _issuer, "URL of the OpenID Connect issuer whose tokens are taken, exactly as it names itself; https."
    )
    oidc_audience: str | None = _setting(
        "MLAAS_OIDC_AUDIENCE", None, str, "Audience (`aud`) that its tokens must have; needed with MLAAS_OIDC_ISSUER."
    )
    oidc_subject: str = _setting(
        "MLAAS_OIDC_SUBJECT", "sub", str, "Claim by which somebody is known, as an owner too; one that nobody can choose for themselves."
    )
    oidc_groups: str = _setting(
        "MLAAS_OIDC_GROUPS", "groups", str, "Claim with somebody's groups: its name, or a path such as `realm_access.roles`."
    )
    oidc_roles: str = _setting("MLAAS_OIDC_ROLES", "roles", str, "Claim with somebody's roles at the issuer, in the same way.")
    oidc_role_map: str = _setting(
        "MLAAS_OIDC_ROLE_MAP",
        "*=reader",
        _role_map,
        "Which groups or roles of the issuer are which role here (reader, user, admin), e.g. `*=reader,ml-users=user,ml-admins=admin`; "
        "`*` is everybody.",
    )
    oidc_client_id: str | None = _setting(
        "MLAAS_OIDC_CLIENT_ID", None, str, "Client that the web app is registered as at the issuer; people then log in there."
    )
    oidc_client_secret: str | None = _setting(
        "MLAAS_OIDC_CLIENT_SECRET", None, str, "Secret of that client; a public client, which PKCE protects, has none.", secret=True
    )
    oidc_redirect_uri: str | None = _setting(
        "MLAAS_OIDC_REDIRECT_URI",
        None,
        _callback,
        "Where the issuer sends browsers back to, as it is registered there: `https://HOST/web/login/callback`; "
        "by default at the host that the browser asked.",
    )
    oidc_scope: str = _setting("MLAAS_OIDC_SCOPE", "openid", str, "Scopes that a login asks the issuer for, with spaces between them.")
    requests_per_minute: int = _setting(
        "MLAAS_REQUESTS_PER_MINUTE",
        1200,
        int,
        "Requests that one person, or one address without a token, may send to the catalog and its pages in a minute, to each process; "
        "0 is no limit, and the platform's token has none.",
    )
    quota_requests_per_day: int = _setting(
        "MLAAS_QUOTA_REQUESTS_PER_DAY",
        0,
        _natural,
        "Requests that one person with a token may send to the catalog in a day (UTC), to all its processes together; 0 is no limit, and "
        "administrators have none.",
    )
    quota_storage_bytes: int = _setting(
        "MLAAS_QUOTA_STORAGE_BYTES", 0, _natural, "Bytes that the entries of one person may have in the catalog together; 0 is no limit."
    )
    quota_training_seconds: int = _setting(
        "MLAAS_QUOTA_TRAINING_SECONDS", 0, _natural, "Seconds that the trainings of one person may run within 30 days; 0 is no limit."
    )
    quota_group_requests_per_day: int = _setting(
        "MLAAS_QUOTA_GROUP_REQUESTS_PER_DAY", 0, _natural, "The same requests, for all members of a group together."
    )
    quota_group_storage_bytes: int = _setting(
        "MLAAS_QUOTA_GROUP_STORAGE_BYTES", 0, _natural, "The same bytes, for the entries that belong to a group."
    )
    quota_group_training_seconds: int = _setting(
        "MLAAS_QUOTA_GROUP_TRAINING_SECONDS", 0, _natural, "The same seconds, for the trainings that belong to a group."
    )
    cors_origins: str = _setting(
        "MLAAS_CORS_ORIGINS",
        "",
        _origins,
        "Sites whose scripts may use the catalog, comma separated, e.g. `https://notebooks.example.org`.",
    )
    sink: str | None = _setting("K_SINK", None, str, "URL of the Broker's ingress; set by Knative's SinkBinding and by `mlaas up`.")
    event_path: Path | None = _setting(
        "K_EVENT_PATH", None, Path, "The event a job was started with: a file, or a folder that holds a file `event`; set by JobSink."
    )
    s3_endpoint: str | None = _setting("MLAAS_S3_ENDPOINT", None, str, "Endpoint of the S3 object store; AWS itself by default.")
    exchange: str = _setting(
        "MLAAS_EXCHANGE",
        "local:exchange",
        _place,
        "Where the command line puts files for the platform and the platform puts large results: `local:PATH` or `s3:BUCKET/PREFIX`.",
    )
    uploads: str = _setting(
        "MLAAS_UPLOADS", "local:uploads", _place, "Where the catalog keeps what was uploaded to it: `local:PATH` or `s3:BUCKET/PREFIX`."
    )
    upload_bytes: int = _setting(
        "MLAAS_UPLOAD_BYTES", 1024**3, _positive, "Largest upload to the catalog in bytes, as it is sent and as it is unpacked."
    )
    s3_public_endpoint: str | None = _setting(
        "MLAAS_S3_PUBLIC_ENDPOINT",
        None,
        str,
        "Endpoint that presigned links name, where their users reach the object store by another address than the platform.",
    )
    function: Path | None = _setting(
        "MLAAS_FUNCTION", None, Path, "Folder of the function that `python -m mlaas.serve` serves where its argument names none."
    )
    port: int = _setting("PORT", 8080, int, "Port a function listens on, and the relay for its metrics.")
    host: str = _setting("MLAAS_HOST", "0.0.0.0", str, "Address a function and the relay listen on.")  # noqa: S104 - a pod is reached from outside
    threads: int = _setting("MLAAS_THREADS", 16, int, "Requests a function answers at once.")
    waiting: int = _setting("MLAAS_WAITING", 256, int, "Requests that may wait for a thread; further ones get 429 with Retry-After.")
    compute_threads: int = _setting(
        "MLAAS_COMPUTE_THREADS", 0, int, "Threads of one ONNX Runtime session; 0 means one per core that the container may use."
    )
    loaded_models: int = _setting("MLAAS_LOADED_MODELS", 4, int, "Models one process keeps loaded.")
    loaded_bytes: int = _setting(
        "MLAAS_LOADED_BYTES", 0, int, "Bytes that their graphs may have together, or one alone; 0 means half of the container's memory."
    )
    preload_model: str | None = _setting(
        "MLAAS_PRELOAD_MODEL", None, str, 'JSON of a `model` to load before the function is ready, e.g. {"name": "infn-structures"}.'
    )
    max_accuracy_loss: float | None = _setting(
        "MLAAS_MAX_ACCURACY_LOSS",
        None,
        _share,
        "What a faster variant of a model may lose of its main metric (0 to 1), where a request does not say; fp32 answers without.",
    )
    token_budget: int = _setting(
        "MLAAS_TOKEN_BUDGET", 0, int, "Tokens, padding included, that an inference batch may hold; 0 means 1024 on a CPU, 16384 on a GPU."
    )
    batch_wait_ms: float = _setting(
        "MLAAS_BATCH_WAIT_MS",
        3.0,
        float,
        "Milliseconds that a batch may wait for requests that have just come in; with 0 requests share none.",
    )
    queue_seconds: float = _setting(
        "MLAAS_QUEUE_SECONDS",
        10.0,
        float,
        "Seconds that a request may wait before its inference begins; one that waits longer, or would have to, gets 429 with Retry-After.",
    )
    max_body_bytes: int = _setting("MLAAS_MAX_BODY_BYTES", 1024**2, int, "Largest request body in bytes.")
    max_event_bytes: int = _setting(
        "MLAAS_MAX_EVENT_BYTES", 256 * 1024, int, "Largest event in bytes; larger requests are refused, larger replies carry a reference."
    )
    batch_rows: int = _setting(
        "MLAAS_BATCH_ROWS", 4096, int, "Rows of a file that are predicted and then kept: what a killed job repeats at most."
    )
    index_shards: int = _setting(
        "MLAAS_INDEX_SHARDS",
        1,
        _positive,
        "Processes that share the documents of an index build: on one machine, or pods of an Indexed Job.",
    )
    completion_index: int | None = _setting(
        "JOB_COMPLETION_INDEX", None, int, "Which shard of an index build a process is; set by Kubernetes in the pods of an Indexed Job."
    )
    rank: int | None = _setting(
        "RANK", None, int, "Which of the processes of one training this is, from 0; set by torchrun and in the pods of a rendered Job."
    )
    world_size: int = _setting("WORLD_SIZE", 1, _positive, "How many processes the training has; set with RANK.")
    master_addr: str = _setting("MASTER_ADDR", "127.0.0.1", str, "Where the ranks of a training meet: the first one's host; set with RANK.")
    master_port: int = _setting("MASTER_PORT", 29500, int, "The port there; set with RANK.")
    agent_store: bool = _setting(
        "TORCHELASTIC_USE_AGENT_STORE", False, _boolean, "Whether torchrun itself listens there instead of the first rank; set by torchrun."
    )
    local_rank: int = _setting("LOCAL_RANK", 0, int, "Which of those on this machine, from 0: its GPU; set by torchrun.")
    local_world_size: int = _setting("LOCAL_WORLD_SIZE", 1, _positive, "How many of them are on this machine; set by torchrun.")
    job_patience: int = _setting(
        "MLAAS_JOB_PATIENCE", 900, int, "Seconds that a job waits for a store that is away before it gives its attempt up."
    )
    # Longer than a controller takes to start a killed job again (Kubernetes: 10 s, then 20 s), and with the relay's sweeps below a minute.
    stale_after: int = _setting("MLAAS_STALE_AFTER", 45, int, "Seconds without a heartbeat after which a running task is marked failed.")
    grace_seconds: float = _setting(
        "MLAAS_GRACE_SECONDS", 2.0, float, "Seconds that a training which is told to stop may take to write a checkpoint."
    )
    event_attempts: int = _setting(
        "MLAAS_EVENT_ATTEMPTS", 5, _positive, "Times that an event which asks for long work is tried before it is parked."
    )
    otlp_endpoint: str | None = _setting(
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        None,
        str,
        "URL of an OTLP/HTTP collector that gets traces (at /v1/traces), e.g. http://collector:4318; none are sent without.",
        secret=True,
    )
    otlp_traces_endpoint: str | None = _setting(
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", None, str, "The whole URL that gets traces, instead of the above.", secret=True
    )
    hub_allowed: bool = _setting("MLAAS_HUB_ALLOWED", True, _boolean, "Whether `hugging_face_hub` may be used as storage.")

    @property
    def artefacts(self) -> Path:
        """The root of `local` storage."""
        return self.root or self.home / "artefacts"

    @property
    def downloads(self) -> Path:
        """The folder of verified downloads."""
        return self.cache or self.home / "cache"

    @property
    def documents_url(self) -> str:
        """The document store's URL."""
        return self.documents or f"sqlite:///{self.home / 'documents.sqlite'}"

    @property
    def trace_endpoint(self) -> str | None:
        """The URL that gets traces, if there is one."""
        return self.otlp_traces_endpoint or (f"{self.otlp_endpoint.rstrip('/')}/v1/traces" if self.otlp_endpoint else None)


def load(environ: Mapping[str, str]) -> Settings:
    """Settings from `environ`. Raises BadSetting, naming the key, where a value cannot be cast."""
    values: dict[str, Any] = {}
    for spec in dataclasses.fields(Settings):
        text = environ.get(spec.metadata["env"], "")
        if not text:
            continue
        try:
            value = spec.metadata["cast"](text)
        except (ValueError, KeyError) as error:
            raise BadSetting(
                f"{spec.metadata['env']} cannot be used: expected {spec.type}", field=spec.metadata["env"], remedy=spec.metadata["help"]
            ) from error
        values[spec.name] = value
    settings = Settings(**values)
    if settings.oidc_issuer and not settings.oidc_audience:
        remedy = "Name the audience that tokens for this platform have: another's must not be good here."
        raise BadSetting("MLAAS_OIDC_AUDIENCE is needed with MLAAS_OIDC_ISSUER", field="MLAAS_OIDC_AUDIENCE", remedy=remedy)
    if settings.oidc_client_id and not settings.oidc_issuer:
        remedy = "Name the issuer at which it is registered."
        raise BadSetting("MLAAS_OIDC_ISSUER is needed with MLAAS_OIDC_CLIENT_ID", field="MLAAS_OIDC_ISSUER", remedy=remedy)
    expanded = {name: path.expanduser().absolute() for name in _FOLDERS_AND_FILES if (path := getattr(settings, name))}
    return dataclasses.replace(settings, **expanded)


def named(**values: str) -> dict[str, str]:
    """The environment of another process, from settings' field names to values."""
    names = {spec.name: spec.metadata["env"] for spec in dataclasses.fields(Settings)}
    return {names[name]: value for name, value in values.items()}


@lru_cache(maxsize=1)
def current() -> Settings:
    """The settings of this process."""
    return load(os.environ)


def table() -> list[tuple[str, str, str]]:
    """Rows of environment name, default and help, for the documentation."""
    return [
        (spec.metadata["env"], "" if spec.default is None else str(spec.default), spec.metadata["help"])
        for spec in dataclasses.fields(Settings)
    ]
