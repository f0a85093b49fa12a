"""The clean-up of texts that a request asks for. Imports no torch.

Mojibake is repaired by ftfy (Apache-2.0), which changes only what it recognises as text decoded wrongly. The package clean-text calls
ftfy too, but its own Unicode step then takes `\\b`, `\\n` and the like in a text for escapes and turns TeX's `$\\beta$` into a control
character and `eta`; the rest of it, addresses and spaces, is a few lines.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from typing import Any

from ..contracts import CleanUp

__all__ = ["cleaner"]

_URL = re.compile(r"\b(?:(?:https?|ftp)://|www\.)[^\s<>\"]*[^\s<>\".,;:!?)\]}']", re.IGNORECASE)
_EMAIL = re.compile(r"\b[\w.+-]+@[\w-]+(?:\.[\w-]+)+\b")
_UNSEEN = re.compile(r"[\u200b\u2060\ufeff\u00ad]")  # of no width: they part words that look whole; joiners are spelling in some scripts


def cleaner(asked: CleanUp | None) -> Callable[[str], str]:
    """The function that cleans one text; without `asked` it only takes the space at both ends away."""
    if asked is None:
        return str.strip
    repair = _repair() if asked.mojibake else None

    def clean(text: str) -> str:
        if repair is not None:
            text = repair(text)
        if asked.unicode is not None:
            text = unicodedata.normalize(asked.unicode, text)
        for pattern, becomes in ((_URL, asked.urls), (_EMAIL, asked.emails)):
            if becomes is not None:
                text = pattern.sub(lambda _, becomes=becomes: becomes, text)  # type: ignore[misc]
        if asked.whitespace:
            text = " ".join(_UNSEEN.sub("", text).split())
        return text.strip()

    return clean


def _repair() -> Callable[[str], str]:
    import ftfy

    # Quotes, ligatures and widths are the author's; `unicode: NFKC` is there for whoever wants the latter two gone.
    config = ftfy.TextFixerConfig(
        uncurl_quotes=False, fix_latin_ligatures=False, fix_character_width=False, normalization=None, explain=False
    )

    def repair(text: str) -> str:
        fixed: Any = ftfy.fix_text(text, config)
        return str(fixed)

    return repair
