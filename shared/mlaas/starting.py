"""What lets a serving process start fast. Nothing but the standard library is imported: this is the first thing that it does."""

from __future__ import annotations

import gc
import os
import time

from .settings import SERVING_DEFAULTS, STARTING_DEFAULTS

__all__ = ["begin", "begun", "end"]

_set: list[str] = []
_begun = [time.monotonic()]


def begin() -> None:
    """Collect no garbage while everything is imported, all of which stays; tell libraries what they need not do for a function."""
    _begun[:] = [time.monotonic()]
    gc.disable()
    for name, value in SERVING_DEFAULTS.items():
        os.environ.setdefault(name, value)
    for name, value in STARTING_DEFAULTS.items():
        if name not in os.environ:
            os.environ[name] = value
            _set.append(name)


def begun() -> float:
    """Seconds since it began, or since this module was imported where it did not."""
    return time.monotonic() - _begun[0]


def end() -> None:
    """The process is ready: what is there by now is never looked at by the garbage collector, what comes is collected as usual."""
    while _set:
        os.environ.pop(_set.pop(), None)
    if not gc.isenabled():
        gc.freeze()
        gc.enable()
