"""What the keys do."""

from __future__ import annotations

from typing import Any

from .page import Page, Visit

__all__ = ["KEYS", "PAGES"]

KEYS = (
    ("/", "to the search field of the page"),
    ("g m", "models"),
    ("g d", "data sets"),
    ("g v", "vector stores"),
    ("g t", "train"),
    ("g k", "tasks"),
    ("g e", "events"),
    ("g h", "start page"),
    ("?", "this page"),
)


def help_(visit: Visit) -> Any:
    """The keys."""
    return visit.show("help.html", keys=KEYS)


PAGES = (Page("/help", help_),)
