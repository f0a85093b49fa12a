"""How values are written on pages."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

__all__ = ["FILTERS"]

_UNITS = ("B", "kB", "MB", "GB", "TB")


def number(value: Any) -> str:
    """A figure with as many digits as are worth reading."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}" if abs(value) >= 1e-4 or value == 0 else f"{value:.2e}"
    return str(value)


def size(count: int | None) -> str:
    """Bytes in decimal units."""
    if count is None:
        return "–"
    value = float(count)
    for unit in _UNITS:
        if value < 1000 or unit == _UNITS[-1]:
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"


def moment(text: str | None) -> str:
    """A time in ISO 8601, to the minute in UTC."""
    found = _read(text)
    return found.strftime("%Y-%m-%d %H:%M UTC") if found else (text or "–")


def clock(text: str | None) -> str:
    """The time of the day in UTC, to the millisecond."""
    found = _read(text)
    return found.strftime("%H:%M:%S.") + f"{found.microsecond // 1000:03}" if found else (text or "–")


def ago(text: str | None) -> str:
    """How long ago a time was."""
    found = _read(text)
    if found is None:
        return "–"
    seconds = max((datetime.now(UTC) - found).total_seconds(), 0)
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= length:
            count = int(seconds // length)
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    return "just now"


def duration(seconds: float | None) -> str:
    """Seconds as people say them."""
    if seconds is None:
        return "–"
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def words(name: str) -> str:
    """A name of the contract as words."""
    return name.replace("_", " ").replace("-", " ")


def short(text: Any, length: int = 12) -> str:
    """The beginning of an id."""
    return str(text or "")[:length]


def host(url: str | None) -> str:
    """The host of an address."""
    return urlsplit(url or "").hostname or ""


def sentence(text: str) -> str:
    """A problem's text, as a sentence begins."""
    return text[:1].upper() + text[1:]


def pretty(value: Any) -> str:
    """JSON over several lines."""
    return json.dumps(value, indent=2, ensure_ascii=False)


def compact(value: Any) -> str:
    """JSON in one line."""
    return json.dumps(value, ensure_ascii=False)


def _read(text: str | None) -> datetime | None:
    try:
        found = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)


FILTERS: Mapping[str, Callable[..., str]] = {
    "number": number, "size": size, "moment": moment, "clock": clock, "ago": ago, "duration": duration, "words": words, "short": short,
    "host": host,
    "sentence": sentence, "pretty": pretty, "compact": compact,
}  # fmt: skip
