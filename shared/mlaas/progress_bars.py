"""Progress for people: bars on a terminal, a line that changes in a notebook, lines in a log."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from rich import filesize
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

__all__ = ["console", "following", "phase", "progress_bar", "transfer"]

console = Console(stderr=True, highlight=False)
_WIDTH = 30  # characters of a bar that is text

Show = Callable[[Mapping[str, Any]], None]


@contextmanager
def following(task_id: str, *, disable: bool = False) -> Iterator[Show]:
    """How far a task is; gives the function that takes the task each time somebody has looked."""
    if disable:
        yield lambda one: None
    elif console.is_jupyter:
        yield _in_notebook()
    elif not console.is_terminal:
        yield _in_lines()
    else:
        with progress_bar() as bar:
            row = bar.add_task(f"task {task_id[:8]}", total=100.0)
            yield lambda one: bar.update(row, completed=_percent(one), description=phase(one))


def _in_notebook() -> Show:
    """One line that changes; rich would need a package of widgets for it."""
    display: Any = import_module("IPython.display").display  # who asks is a notebook, so it is there

    handle: list[Any] = []

    def show(one: Mapping[str, Any]) -> None:
        done = round(_percent(one) / 100 * _WIDTH)
        text = {"text/plain": f"[{'#' * done}{'.' * (_WIDTH - done)}] {_percent(one):3.0f}% {phase(one)}"}
        if handle:
            handle[0].update(text, raw=True)
        else:
            handle.append(display(text, raw=True, display_id=True))

    return show


def _in_lines() -> Show:
    """A line for each status and phase, and for each tenth of the way."""
    last: list[Any] = [None]

    def show(one: Mapping[str, Any]) -> None:
        now = (one["task_status"], one.get("progress", {}).get("phase"), int(_percent(one) // 10))
        if now != last[0]:
            last[0] = now
            print(f"{_percent(one):3.0f}% {phase(one)}", file=sys.stderr, flush=True)

    return show


def _percent(one: Mapping[str, Any]) -> float:
    return 100.0 if one["task_status"] == "succeeded" else float(one.get("progress", {}).get("percent", 0.0))


def progress_bar(*, disable: bool = False) -> Progress:
    """A progress bar with a spinner, the percentage and the time."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        console=console,
        disable=disable,
    )


@contextmanager
def transfer(description: str, *, disable: bool = False) -> Iterator[Callable[[int, int], None]]:
    """A bar for a transfer, shown from its first bytes on; gives the function that takes the bytes done and the bytes in all."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=console, disable=disable)
    row = bar.add_task(description, total=None)

    def show(done: int, total: int) -> None:
        bar.update(row, completed=done, total=total)
        bar.start()

    try:
        yield show
    finally:
        if bar.live.is_started:
            bar.stop()


def phase(one: Mapping[str, Any]) -> str:
    """What a task is at, in some words."""
    progress = one.get("progress", {})
    words = [f"{one['capability']} {one['task_status']}", progress.get("phase", "")]
    if progress.get("of_bytes"):
        words.append(f"{filesize.decimal(progress['bytes'])} of {filesize.decimal(progress['of_bytes'])}")
    if trials := progress.get("trials"):
        words.append(f"{sum(trials.get(state, 0) for state in trials if state not in ('of', 'running'))} of {trials['of']} trials")
        words.append(f"best {progress['best']['value']:.4g}" if progress.get("best") else "")
    if progress.get("loss") is not None:
        words.append(f"loss {progress['loss']:.3f}")
    if progress.get("rows_per_second"):
        words.append(f"{progress['rows']:,} of {progress['of']:,} rows, {progress['rows_per_second']:,.0f} rows/s")
    if one["task_status"] == "running":
        words += _pace(progress)
    return " ".join(word for word in words if word)


def _pace(progress: Mapping[str, Any]) -> list[str]:
    words = []
    if progress.get("learning_rate") is not None:
        words.append(f"rate {progress['learning_rate']:.1e}")
    if progress.get("tokens_per_second") is not None:
        words.append(f"{progress['tokens_per_second']:,.0f} tokens/s")
    if memory := progress.get("memory"):
        words.append(f"{(memory.get('gpu_peak') or memory['peak']) / 1e9:.1f} GB")
    if progress.get("eta") is not None:
        words.append(f"{_duration(progress['eta'])} left")
    return words


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
