"""What the commands share: options, how errors become exit statuses, and how an argument names a model, a place or JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, ParamSpec, TypeVar

import typer

from .. import display
from ..errors import InvalidRequest, MlaasError, Unavailable

P = ParamSpec("P")
T = TypeVar("T")

FAILED, REFUSED, NOT_NOW, INTERRUPTED = 1, 3, 4, 130

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Texts = Annotated[list[str] | None, typer.Argument(help="Texts; one a line from standard input if none is given.")]
Model = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        metavar="MODEL",
        help="NAME, NAME@ALIAS, NAME:VERSION of the catalog, or local:PATH, s3:BUCKET/KEY, hub:ORG/REPO.",
        autocompletion=lambda incomplete: _completed("models", incomplete),
    ),
]
Variant = Annotated[str | None, typer.Option("--variant", help="fp32 (the default), bf16, int8, int8-dynamic or fp16, whatever it loses.")]
MaxLoss = Annotated[
    float | None,
    typer.Option("--max-accuracy-loss", help="The fastest variant that was measured to lose at most this (0.01: one in a hundred)."),
]
Kafka = Annotated[bool, typer.Option("--kafka", help="Ask by an event on Kafka instead of HTTP.")]
TopK = Annotated[int, typer.Option("--top-k", "-k", min=1)]
Timeout = Annotated[float, typer.Option("--timeout", help="Seconds to wait for the answer.")]


def says_why(command: Callable[P, T]) -> Callable[P, T]:
    """Errors as one sentence on standard error and an exit status that scripts can rely on."""

    @wraps(command)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return command(*args, **kwargs)
        except MlaasError as error:
            display.error(error)
            raise typer.Exit(
                REFUSED if isinstance(error, InvalidRequest) else NOT_NOW if isinstance(error, Unavailable) else FAILED
            ) from None
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            sys.stderr.close()
            raise typer.Exit(0) from None

    return wrapper


@contextmanager
def interruptible(goes_on: str) -> Iterator[None]:
    """Ctrl-C ends the watching, not the task: `goes_on` says so."""
    try:
        yield
    except KeyboardInterrupt:
        display.note(goes_on)
        raise


def read_texts(texts: list[str] | None) -> list[str]:
    if texts:
        return texts
    if sys.stdin.isatty():
        raise InvalidRequest("there is no text", field="TEXTS", remedy="Give texts as arguments or, one a line, on standard input.")
    return [line.rstrip("\n") for line in sys.stdin]


def json_argument(text: str) -> Any:
    try:
        return json.loads(sys.stdin.read() if text == "-" else Path(text[1:]).read_text() if text.startswith("@") else text)
    except (ValueError, OSError):
        raise InvalidRequest("the data cannot be read as JSON", field="DATA", remedy="Give JSON, @FILE, or - for standard input.") from None


def text_argument(text: str, field: str) -> str:
    """The text itself, or that of the file which `@FILE` names."""
    try:
        return Path(text[1:]).read_text("utf-8") if text.startswith("@") else text
    except (ValueError, OSError):
        raise InvalidRequest("the file cannot be read as UTF-8 text", field=field, remedy="Give a text, or @FILE.") from None


def given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _completed(what: str, incomplete: str) -> list[str]:
    from . import completion  # which needs what is below

    found: list[str] = getattr(completion, what)(incomplete)
    return found


def open_tasks() -> Any:
    from ..documents import shared
    from ..tasks import Tasks

    return Tasks(shared())


def open_catalog() -> Any:
    from ..catalog import Catalog
    from ..documents import shared

    return Catalog(shared())
