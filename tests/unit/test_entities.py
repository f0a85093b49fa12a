"""How tags are read as entities, and how entities are counted: what conlleval and seqeval give for the same tags."""

from __future__ import annotations

import pytest

from mlaas.entities import iob2, spans, tag_names

pytest.importorskip("torch")
from mlaas.training.entity_scores import EntityCounts


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("O I-A I-A B-A O", [("A", 1, 3), ("A", 3, 4)]),  # IOB1
        ("B-A I-A B-B I-B", [("A", 0, 2), ("B", 2, 4)]),  # IOB2
        ("B-A I-A E-A S-A S-B O", [("A", 0, 3), ("A", 3, 4), ("B", 4, 5)]),  # BIOES
        ("U-A B-B I-B L-B", [("A", 0, 1), ("B", 1, 4)]),  # BILOU
        ("I-A I-B", [("A", 0, 1), ("B", 1, 2)]),  # a type that changes
        ("E-A I-A", [("A", 0, 1), ("A", 1, 2)]),
        ("PER PER O", [("PER", 0, 2)]),  # no prefixes
        ("O O", []),
        ("", []),
    ],
)
def test_tags_of_every_scheme_are_read(tags: str, expected: list[tuple[str, int, int]]) -> None:
    assert [(one.label, one.start, one.end) for one in spans(tags.split())] == expected


def test_written_tags_are_read_as_the_same_entities() -> None:
    found = spans(["I-A", "B-A", "I-A", "O", "S-B", "B-B", "E-B"])
    assert iob2(found, 7) == ["B-A", "B-A", "I-A", "O", "B-B", "B-B", "I-B"]
    assert spans(iob2(found, 7)) == found
    assert tag_names(one.label for one in found) == ("O", "B-A", "I-A", "B-B", "I-B")


def test_an_entity_counts_only_with_the_right_words_and_the_right_type() -> None:
    # The example of seqeval's README, with its figures.
    counts = EntityCounts()
    counts.add(spans(["O", "O", "O", "B-MISC", "I-MISC", "I-MISC", "O"]), spans(["O", "O", "B-MISC", "I-MISC", "I-MISC", "I-MISC", "O"]))
    counts.add(spans(["B-PER", "I-PER", "O"]), spans(["B-PER", "I-PER", "O"]))
    figures = counts.figures()
    assert (figures["precision"], figures["recall"], figures["f1"], figures["macro_f1"]) == (0.5, 0.5, 0.5, 0.5)
    assert figures["per_type"]["MISC"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 1}
    assert figures["per_type"]["PER"]["f1"] == 1.0
