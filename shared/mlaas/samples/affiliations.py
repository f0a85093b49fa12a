"""Synthetic author-affiliation strings with the INFN structure that they name, for training and demonstrations.

Generated, not collected: the names and addresses are public facts, their combinations are invented and no string was
taken from a publication.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from . import elsewhere
from .spelling import chance, respell, wos_style
from .structures import STRUCTURES, Address, Structure, University
from .typos import with_typos

__all__ = ["LABELS", "NO_SITE", "Affiliation", "affiliations"]

NO_SITE = "[NoSite]"
LABELS = (*(structure.code for structure in STRUCTURES), NO_SITE)

_INSTITUTE = ("INFN",) * 6 + (
    "Istituto Nazionale di Fisica Nucleare",
    "Istituto Nazionale di Fisica Nucleare",
    "Istituto Nazionale di Fisica Nucleare (INFN)",
    "National Institute for Nuclear Physics (INFN)",
    "National Institute for Nuclear Physics",
    "I.N.F.N.",
)
_SECTION = ("{i}, Sezione di {n}",) * 5 + (
    "{i} Sezione di {n}", "{i} - Sezione di {n}", "{i}-Sezione di {n}", "{i}, Sez. di {n}", "Sezione {i} di {n}", "Sezione di {n} dell'{i}",
    "{i}, {n}", "{i} {n}", "{i}-{n}", "{i} ({n})", "{i}, Sezione {n}", "{i} - {n}",
)  # fmt: skip
_SECTION_ENGLISH = (
    "{i} {n}",
    "{i}, {n} Section",
    "{i} Section of {n}",
    "{i}, Section of {n}",
    "{i} - {n}",
    "{i}, {n} Division",
    "{n} Section of {i}",
)
_LABORATORY = ("{i}, {n}",) * 3 + (
    "{i} {n}",
    "{i} - {n}",
    "{n} dell'{i}",
    "{n}, {i}",
    "{n} ({c}), {i}",
    "{i}, {n} ({c})",
    "{i}-{c}",
    "{c}-{i}",
    "{i} {c}",
    "{c}, {n}",
)
_LABORATORY_ENGLISH = ("{i} {n}", "{i}, {n}", "{i} - {n}", "{n}, {i}", "{n} of {i}", "{n} ({c}), {i}", "{i} {c}")
_WOS_INSTITUTE = ("Ist Nazl Fis Nucl", "Ist Nazl Fis Nucl", "INFN", "INFN", "Ist Nazl Fis Nucl INFN")
_AND = (" and ", " and ", " & ", " e ", ", and ", "; ", ", ", " / ", " - ")
_ITALY = ("Italy",) * 9 + ("Italia", "Italia", "ITALY", "IT", "")
_NO_SITE_PER_ROUND = len(STRUCTURES) // 2  # one string in three
_TRIES = 200


@dataclass(frozen=True)
class Affiliation:
    """A synthetic affiliation string and the code of the INFN structure that it names, or `[NoSite]`."""

    text: str
    label: str


def affiliations(count: int, seed: int = 0, typo_rate: float = 0.0) -> Iterator[Affiliation]:
    """`count` synthetic strings, the same for the same arguments, distinct as far as the spellings reach.

    Every structure comes equally often and one string in three is `[NoSite]`. `typo_rate` is the share of words that
    get a typing error (needs the library `typo`).
    """
    rng = random.Random(seed)  # noqa: S311 - sample data, not a secret
    deck: list[Structure | None] = []
    seen: set[str] = set()
    for _ in range(count):
        if not deck:
            deck = [*STRUCTURES, *[None] * _NO_SITE_PER_ROUND]
            rng.shuffle(deck)
        structure = deck.pop()
        text = _unseen(structure, rng, typo_rate, seen)
        seen.add(text)
        yield Affiliation(text, structure.code if structure else NO_SITE)


def _unseen(structure: Structure | None, rng: random.Random, typo_rate: float, seen: set[str]) -> str:
    text = ""
    for _ in range(_TRIES):
        text = with_typos(_spelled(structure, rng), rng, typo_rate)
        if text not in seen:
            break
    return text


def _spelled(structure: Structure | None, rng: random.Random) -> str:
    if structure is None:
        return respell(elsewhere.institution(rng), rng)
    kind = rng.random()
    if kind < 0.14:
        return _web_of_science(structure, rng)
    english = chance(rng, 0.35)
    if kind < 0.56:
        return respell(_tail(_unit(structure, rng, english), structure, rng, english), rng)
    return respell(_with_university(structure, rng, english), rng)


def _unit(structure: Structure, rng: random.Random, english: bool) -> str:
    """The structure's own name: `INFN, Sezione di Pisa`, `LNF-INFN`."""
    patterns = {
        ("section", False): _SECTION, ("section", True): _SECTION_ENGLISH,
        ("laboratory", False): _LABORATORY, ("laboratory", True): _LABORATORY_ENGLISH,
    }[structure.kind, english]  # fmt: skip
    name = rng.choice(structure.english if english else structure.names)
    if name == structure.code:  # `CNAF (CNAF)` says it twice
        patterns = tuple(pattern for pattern in patterns if "{c}" not in pattern)
    return rng.choice(patterns).format(i=rng.choice(_INSTITUTE), n=name, c=structure.code)


def _with_university(structure: Structure, rng: random.Random, english: bool) -> str:
    """A university's department together with INFN, as most authors in Italian universities sign."""
    department = _department(rng.choice(structure.universities), rng, english)
    bare = structure.kind == "section" and chance(rng, 0.4)  # the city says which section
    ours = (
        rng.choice(("INFN", "INFN", "Sezione INFN", "Istituto Nazionale di Fisica Nucleare", "INFN, Sezione"))
        if bare
        else _unit(structure, rng, english)
    )
    order = (ours, department) if chance(rng, 0.25) else (department, ours)
    joined = rng.choice(_AND).join(order)
    if not bare:
        return _tail(joined, structure, rng, english)
    named = (
        f"{joined}, {rng.choice(structure.english if english else structure.names)}"
        if chance(rng, 0.5) or _elsewhere_named(structure)
        else joined
    )
    return _tail(named, structure, rng, english)


def _elsewhere_named(structure: Structure) -> bool:
    """Whether one of the universities beside the structure does not carry the structure's town in its name."""
    town = structure.names[0]
    return any(town not in name for university in structure.universities for name in (*university.italian, *university.english))


def _department(university: University, rng: random.Random, english: bool) -> str:
    name = rng.choice(university.english if english else university.italian)
    if chance(rng, 0.2):
        return name
    department = rng.choice(university.departments)
    if "Università" in name and chance(rng, 0.15):
        return (
            f"{department} {name.replace('Università', 'dell' + chr(39) + 'Università', 1)}"
            if name.startswith("Università")
            else f"{department}, {name}"
        )
    return f"{department}, {name}" if chance(rng, 0.9) else f"{name}, {department}"


def _tail(text: str, structure: Structure, rng: random.Random, english: bool) -> str:
    """`text` with as much of an address as authors give."""
    address = rng.choice(structure.addresses)
    return ", ".join(part for part in (text, *address_parts(address, rng, english)) if part)


def address_parts(address: Address, rng: random.Random, english: bool) -> tuple[str, ...]:
    """Street, town and country in one of the usual orders; fewer parts, or none, now and then."""
    town = address.english if english or chance(rng, 0.2) else address.town
    code = rng.choice((address.postcode, f"I-{address.postcode}", f"I-{address.postcode}", f"IT-{address.postcode}"))
    country = rng.choice(_ITALY)
    kind = rng.random()
    if kind < 0.08:
        return (country,)
    if kind < 0.3:
        return (town, country)
    if kind < 0.5:
        return (f"{code} {town}", country)
    if kind < 0.78:
        return (address.street, f"{code} {town}", country)
    if kind < 0.9:
        return (address.street, town, code, country)
    return (town, code, country)


def _web_of_science(structure: Structure, rng: random.Random) -> str:
    """As Web of Science abbreviates: `Ist Nazl Fis Nucl, Sez Padova, I-35131 Padua, Italy`."""
    address = rng.choice(structure.addresses)
    institute, unit = rng.choice(_WOS_INSTITUTE), rng.choice(structure.wos)
    named = f"Sez {unit}" if structure.kind == "section" else unit
    parts = rng.choice(((institute, named), (institute, named), (f"{institute} {named}",), (named, institute)))
    if chance(rng, 0.4):
        parts = (rng.choice(structure.universities).wos, *rng.choice((("Dipartimento Fis",), ("Dept Phys",), ())), *parts)
    street = (address.street,) if chance(rng, 0.3) else ()
    town = rng.choice((address.english, address.english, f"I-{address.postcode} {address.english}"))
    text = ", ".join(wos_style(part) for part in (*parts, *street, town, "Italy"))
    return text.upper() if chance(rng, 0.1) else text
