"""Named entities as tags and as ranges: how IOB1, IOB2, BIOES and BILOU tags are read, and IOB2 tags are written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

__all__ = ["OUTSIDE", "Span", "iob2", "spans", "tag_names"]

OUTSIDE = "O"
BEGINS, ENDS = frozenset("BSU"), frozenset("ESLU")  # prefixes that begin, and that end an entity, whatever is beside them
PREFIXES = frozenset("BIESLU")


@dataclass(frozen=True, order=True)
class Span:
    """An entity over the words from `start` to before `end`."""

    start: int
    end: int
    label: str


def spans(tags: Sequence[str]) -> list[Span]:
    """The entities of a sentence, in its order.

    Read as CoNLL's conlleval and seqeval's default mode do: an entity begins at B, S or U, and wherever the type changes; it ends
    after E, S, L or U, and before whatever begins. A tag without one of these prefixes counts as I.
    """
    found: list[Span] = []
    begun, current, closed = 0, "", True
    for place, tag in enumerate([*tags, OUTSIDE]):
        prefix, label = _parts(tag)
        if current and (closed or prefix in BEGINS or label != current):
            found.append(Span(begun, place, current))
            current = ""
        if label and not current:
            begun, current = place, label
        closed = prefix in ENDS
    return found


def iob2(found: Iterable[Span], length: int) -> list[str]:
    """The tags of a sentence of `length` words: B- at the first word of each entity, I- at its others, O outside."""
    tags = [OUTSIDE] * length
    for one in found:
        tags[one.start : one.end] = [f"B-{one.label}", *[f"I-{one.label}"] * (one.end - one.start - 1)]
    return tags


def tag_names(labels: Iterable[str]) -> tuple[str, ...]:
    """All IOB2 tags for the types `labels`, O first: the classes that a model is trained for."""
    return (OUTSIDE, *(f"{prefix}-{label}" for label in sorted(set(labels)) for prefix in "BI"))


def _parts(tag: str) -> tuple[str, str]:
    if tag == OUTSIDE or not tag:
        return "", ""
    if len(tag) > 2 and tag[0] in PREFIXES and tag[1] in "-_":
        return tag[0], tag[2:]
    return "I", tag
