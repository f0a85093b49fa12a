"""Under which licence a checkpoint may be used, as far as its own files say so."""

from __future__ import annotations

import json
import re
from pathlib import Path

__all__ = ["licence_of"]

FRONT_MATTER = re.compile(r"\A---\s*\n(.*?)\n---\s*$", re.DOTALL | re.MULTILINE)
STATED = re.compile(r"^licen[cs]e:[ \t]*['\"]?([A-Za-z0-9][A-Za-z0-9.+-]{0,99})['\"]?[ \t]*$", re.MULTILINE)
SHORT = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]{0,99}")
LONGEST = 1_000_000  # bytes of a README that are read


def licence_of(folder: Path) -> str | None:
    """The licence that the front matter of README.md names, else that of config.json; None where neither does."""
    try:
        with (folder / "README.md").open(encoding="utf-8", errors="replace") as file:
            head = FRONT_MATTER.search(file.read(LONGEST))
    except OSError:
        head = None
    if head and (stated := STATED.search(head[1])):
        return stated[1].lower()
    try:
        config = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError):
        return None
    named = config.get("license") if isinstance(config, dict) else None
    return named.lower() if isinstance(named, str) and SHORT.fullmatch(named) else None
