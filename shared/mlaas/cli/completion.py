"""What the shell proposes at TAB: names, aliases, versions and tasks, in bounded time, and nothing where nothing can be had."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

import typer

from ..catalog import KINDS
from ..errors import MlaasError
from ..settings import current
from .options import open_catalog, open_tasks

__all__ = ["aliases", "indexes", "kinds", "models", "names", "tasks", "versions"]

SECONDS = 1.0  # for which a user's TAB may take the store
_MOST = 200


def kinds(incomplete: str) -> list[str]:
    """The kinds of entries."""
    return _beginning(KINDS, incomplete)


def names(context: typer.Context, incomplete: str) -> list[str]:
    """Names of the kind that the command line says, models if it says none."""
    return _beginning(_found(lambda: [entry["name"] for entry in _entries(_kind(context))]), incomplete)


def models(incomplete: str) -> list[str]:
    """Models: NAME, and NAME@ALIAS."""
    return _beginning(_found(lambda: _referred("models")), incomplete)


def indexes(incomplete: str) -> list[str]:
    """Vector stores: NAME, and NAME@ALIAS."""
    return _beginning(_found(lambda: _referred("indexes")), incomplete)


def aliases(context: typer.Context, incomplete: str) -> list[str]:
    """Aliases of the name before."""
    return _beginning(_found(lambda: open_catalog().aliases_of(_kind(context), _name(context) or "")), incomplete)


def versions(context: typer.Context, incomplete: str) -> list[str]:
    """Versions of the name before, newest first."""

    def look() -> list[str]:
        name = _name(context)
        return [entry["version"] for entry in open_catalog().versions(_kind(context), name, limit=_MOST)] if name else []

    return _beginning(_found(look), incomplete)


def tasks(incomplete: str) -> list[str]:
    """The newest tasks."""
    return _beginning(_found(lambda: [task["task_id"] for task in open_tasks().find(limit=_MOST)[0]]), incomplete)


def _kind(context: typer.Context) -> Any:
    kind = context.params.get("kind")
    return kind if kind in KINDS else "models"


def _name(context: typer.Context) -> str | None:
    """The name before; where an option lacks its value, what stands there is not parsed yet."""
    return context.params.get("name") or next(iter(context.args), None)


def _entries(kind: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = open_catalog().versions(kind, limit=_MOST)
    return found


def _referred(kind: Any) -> list[str]:
    pointing = open_catalog().aliases(kind)
    known = dict.fromkeys(entry["name"] for entry in _entries(kind))
    return [one for name in known for one in (name, *(f"{name}@{alias}" for alias in pointing.get(name, ())))]


def _found(look: Callable[[], Iterable[str]]) -> list[str]:
    """What `look` finds within SECONDS; nothing where the store is away, slow, or was never made."""
    found: list[str] = []

    def ask() -> None:
        try:
            settings = current()
            if settings.documents is None and not (settings.home / "documents.sqlite").exists():
                return  # looking would make it
            found.extend(look())
        except MlaasError:
            return

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(SECONDS)
    return list(dict.fromkeys(found))


def _beginning(found: Iterable[str], incomplete: str) -> list[str]:
    return [one for one in found if one.startswith(incomplete)]
