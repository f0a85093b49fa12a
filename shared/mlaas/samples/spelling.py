"""How one affiliation comes to be spelled in many ways: accents, quotes, dashes, commas, case, footnote markers."""

from __future__ import annotations

import random
import re
import unicodedata
from collections.abc import Callable

__all__ = ["chance", "respell", "wos_style"]

_LATEX = {"\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0308": '"', "\u030c": "v", "\u0327": "c"}
_ACCENTED = re.compile(
    "[" + "".join(chr(code) for code in range(0xC0, 0x17F) if unicodedata.normalize("NFD", chr(code))[1:] in _LATEX) + "]"
)
_QUOTES = (("“", "”"), ('"', '"'), ("``", "''"), ("‘", "’"), ("'", "'"), ("", ""), ("", ""))
_SHORTER = (
    ("Dipartimento", "Dip."),
    ("Dipartimento", "Dipart."),
    ("Department", "Dept."),
    ("Sezione", "Sez."),
    ("Laboratori Nazionali", "Lab. Naz."),
    ("University", "Univ."),
    ("Via ", "via "),
    ("degli Studi ", ""),
    ("Piazzale", "P.le"),
    ("and", "&"),
    ("Università", "Univ."),
)
_NO_DECOMPOSITION = str.maketrans({"ł": "l", "ø": "o", "ß": "ss", "Ł": "L", "Ø": "O"})


def chance(rng: random.Random, probability: float) -> bool:
    """Whether something that happens with `probability` happens now."""
    return rng.random() < probability


def respell(text: str, rng: random.Random) -> str:
    """`text` as one author, editor or database might have it; the words that name the institute stay."""
    for longer, shorter in _SHORTER:
        if chance(rng, 0.08):
            text = re.sub(rf"\b{longer}(?!\w)" if longer[-1] != " " else rf"\b{longer}", shorter, text)
    opening, closing = rng.choice(_QUOTES)
    text = text.replace("“", opening).replace("”", closing)
    text = text.replace("-", rng.choice("–—−")) if chance(rng, 0.08) else text
    text = text.replace("'", "’") if chance(rng, 0.25) else text
    text = _separators(text, rng)
    text = text.upper() if chance(rng, 0.06) else text
    text = _accents(text, rng)
    return _margins(text, rng)


def wos_style(text: str) -> str:
    """`text` as Web of Science writes addresses: no accents, no quotes, no full stops, & for and."""
    bare = re.sub(r"[“”\"'.()]", " ", _unaccented(text)).replace(" e ", " & ")
    return re.sub(r"\s+", " ", bare).strip()


def _separators(text: str, rng: random.Random) -> str:
    kind = rng.random()
    if kind < 0.08:
        return text.replace(", ", " - ")
    if kind < 0.13:
        return text.replace(", ", ",")
    if kind < 0.16:
        return text.replace(", ", " , ")
    if kind < 0.19:
        return text.replace(", ", "; ")
    if kind < 0.22:
        return text.replace(", ", " ")
    commas = [match.start() for match in re.finditer(",", text)]
    if kind < 0.34 and commas:
        gone = rng.choice(commas)
        return text[:gone] + text[gone + 1 :]
    return text


def _unaccented(text: str) -> str:
    decomposed = unicodedata.normalize("NFD", text.translate(_NO_DECOMPOSITION))
    return "".join(character for character in decomposed if not unicodedata.combining(character))


def _latex(text: str, pattern: Callable[[str, str], str]) -> str:
    def one(match: re.Match[str]) -> str:
        letter, accent = tuple(unicodedata.normalize("NFD", match[0]))
        return pattern(_LATEX[accent], letter)

    return _ACCENTED.sub(one, text)


def _accents(text: str, rng: random.Random) -> str:
    kind = rng.random()
    if kind < 0.6:
        return text
    if kind < 0.68:
        return _latex(text, lambda accent, letter: f"\\{accent}{{{letter}}}")
    if kind < 0.76:
        return _latex(text, lambda accent, letter: f"\\{accent} {letter}" if accent.isalpha() else f"\\{accent}{letter}")
    if kind < 0.81:
        return re.sub(r"([Uu]niversit)[àÀ]", r"\1a'", text)
    if kind < 0.84:
        return text.replace("à", "á")  # the wrong accent is frequent in print
    if kind < 0.87:
        return text.replace("à", "Ã").replace("è", "Ã¨").replace("é", "Ã©").replace("ü", "Ã¼")  # UTF-8 read as Latin-1
    return _unaccented(text)


def _margins(text: str, rng: random.Random) -> str:
    number, letter = rng.randint(1, 120), rng.choice("abcdefgh")
    markers = (
        f"{number}{letter} ",
        f"{number} ",
        f"{letter}) ",
        f"{letter}",
        f"({letter}) ",
        f"({number}) ",
        f"$^{{{number}}}$",
        f"[{number}] ",
        f"{letter} ",
    )
    before = rng.choice(markers) if chance(rng, 0.1) else ""
    after = rng.choice("..;,") if chance(rng, 0.07) else ""
    return re.sub(r" {2,}", " ", f"{before}{text}{after}").strip()
