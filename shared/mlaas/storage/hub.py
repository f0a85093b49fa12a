"""Storage on the Hugging Face Hub, read only, in the hub library's own cache (HF_HOME, HF_TOKEN, HF_HUB_OFFLINE)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import InvalidRequest, NotFound, Unavailable
from ..settings import Settings
from .presigned import Link
from .progress import Progress

__all__ = ["exists", "exists_matching", "fetch", "fetch_matching", "links", "names", "publish", "put", "remove"]

# What a bundle or a checkpoint is made of; never pickles, nor the quantised and optimised variants of a graph.
PATTERNS = (
    "*.json",
    "*.txt",
    "*.model",
    "*.safetensors",
    "README.md",  # names the licence
    *(f"{folder}model.onnx{suffix}" for folder in ("", "onnx/") for suffix in ("", "_data", "_data_*", ".data")),
)


def fetch(path: str, revision: str | None, settings: Settings, progress: Progress | None = None) -> Path:
    """The snapshot of a repository at `revision`, its default branch by default."""
    _check_allowed(settings)
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    with _mapped_errors(path):
        return Path(snapshot_download(path, revision=revision, allow_patterns=list(PATTERNS), max_workers=4))


def exists(path: str, revision: str | None, settings: Settings) -> bool:
    """Whether the hub has the repository, or its cache while offline."""
    _check_allowed(settings)
    from huggingface_hub import HfApi, constants, snapshot_download

    try:
        with _mapped_errors(path):
            if constants.HF_HUB_OFFLINE:
                snapshot_download(path, revision=revision, local_files_only=True)
            else:
                HfApi().model_info(path, revision=revision, timeout=10)
    except NotFound:
        return False
    return True


def fetch_matching(folder: str, pattern: str, settings: Settings, progress: Progress | None = None) -> Path:
    """Raises InvalidRequest: a repository's name has no wildcards."""
    raise _no_wildcards()


def exists_matching(folder: str, pattern: str, settings: Settings) -> bool:
    """Raises InvalidRequest: a repository's name has no wildcards."""
    raise _no_wildcards()


def publish(folder: Path, path: str, version: str, settings: Settings, progress: Progress | None = None) -> str:
    """Raises InvalidRequest: the hub is read only here."""
    raise _read_only()


def put(file: Path, path: str, settings: Settings, progress: Progress | None = None) -> None:
    """Raises InvalidRequest: the hub is read only here."""
    raise _read_only()


def names(path: str, settings: Settings) -> list[str]:
    """Raises InvalidRequest: the hub holds repositories, no folders of the platform's."""
    raise _read_only()


def remove(path: str, settings: Settings) -> None:
    """Raises InvalidRequest: the hub is read only here."""
    raise _read_only()


def links(path: str, revision: str | None, seconds: int, settings: Settings) -> list[Link]:
    """Raises InvalidRequest: the hub gives links of its own."""
    raise InvalidRequest(
        "there are links to what is on S3 only", field="storage_type", remedy="Copy the files with `mlaas catalog download NAME`."
    )


def _no_wildcards() -> InvalidRequest:
    return InvalidRequest("the name of a hub repository has no wildcards", field="path", remedy="Give `owner/name`.")


def _read_only() -> InvalidRequest:
    return InvalidRequest("nothing can be published or kept on the hub from here", field="storage_type", remedy="Use `local` or `s3`.")


def _check_allowed(settings: Settings) -> None:
    if not settings.hub_allowed:
        raise InvalidRequest(
            "this platform does not use the Hugging Face Hub",
            field="storage_type",
            remedy="Use `local` or `s3`, or set MLAAS_HUB_ALLOWED=true.",
        )


@contextmanager
def _mapped_errors(path: str) -> Iterator[None]:
    from huggingface_hub import constants, errors

    try:
        yield
    except errors.HFValidationError:
        raise InvalidRequest("this cannot be the name of a hub repository", field="path", remedy="Give `owner/name`.") from None
    except errors.LocalEntryNotFoundError as error:
        if constants.HF_HUB_OFFLINE:
            raise NotFound(
                f"`{path}` is not in the hub's local cache and the hub is switched off (HF_HUB_OFFLINE)",
                field="path",
                remedy="Download it into HF_HOME first, or switch the hub on.",
            ) from None
        if isinstance(cause := error.__cause__, errors.HfHubHTTPError):
            raise _of_answer(path, cause.response.status_code) from None
        raise Unavailable("the Hugging Face Hub cannot be reached", remedy="Try again later.") from None
    except errors.GatedRepoError:
        raise NotFound(
            f"`{path}` is gated", field="path", remedy="Accept its terms on the hub and give the platform a token (HF_TOKEN)."
        ) from None
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.EntryNotFoundError):
        raise _of_answer(path, 404) from None
    except errors.HfHubHTTPError as error:
        raise _of_answer(path, error.response.status_code) from None
    except OSError:  # requests' errors, timeouts and a full disk alike
        raise Unavailable("the Hugging Face Hub cannot be reached, or its cache not written", remedy="Try again later.") from None


def _of_answer(path: str, status: int) -> NotFound | Unavailable:
    if status in {401, 403, 404}:
        return NotFound(
            f"the hub has no repository or revision `{path}` that this platform may read",
            field="path",
            remedy="Check the name and the revision; a private repository needs a token (HF_TOKEN).",
        )
    return Unavailable("the Hugging Face Hub does not answer as it should", remedy="Try again later.")
