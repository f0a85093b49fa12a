"""Sample data of the platform, all of it synthetic: affiliation strings, physics abstracts, and where checkpoints are."""

from __future__ import annotations

import csv
import io
import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path

from .affiliations import LABELS, NO_SITE, Affiliation
from .affiliations import affiliations as _generated
from .checkpoints import checkpoint, copy_checkpoint

__all__ = ["LABELS", "NO_SITE", "Abstract", "Affiliation", "Written", "abstracts", "checkpoint", "copy_checkpoint", "write"]


@dataclass(frozen=True)
class Abstract:
    """A synthetic physics abstract of 50 to 150 words, written for this project; no real measurement stands behind it."""

    id: str
    title: str
    abstract: str
    field: str


@dataclass(frozen=True)
class Written:
    """The files that `write` made: affiliation and label (TSV); id, title, abstract, field (JSONL); id and text (JSONL)."""

    affiliations: Path
    abstracts: Path
    texts: Path


def abstracts() -> list[Abstract]:
    """The synthetic abstracts that come with the package, in the order of their ids."""
    lines = files(__package__).joinpath("data", "abstracts.jsonl").read_text(encoding="utf-8").splitlines()
    return [Abstract(**json.loads(line)) for line in lines]


def write(folder: Path, *, affiliations: int = 2000, seed: int = 0) -> Written:
    """Writes the synthetic samples into `folder`, each file atomically: `affiliations` strings, all abstracts, and the
    abstracts' plain texts for masked language modelling. The same arguments give the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    known = abstracts()
    written = Written(folder / "affiliations.tsv", folder / "abstracts.jsonl", folder / "texts.jsonl")
    _replace(written.affiliations, _tsv(_generated(affiliations, seed)))
    _replace(written.abstracts, _jsonl(asdict(each) for each in known))
    _replace(written.texts, _jsonl({"id": each.id, "text": f"{each.title}. {each.abstract}"} for each in known))
    return written


def _tsv(rows: Iterable[Affiliation]) -> str:
    text = io.StringIO()
    table = csv.writer(text, delimiter="\t", lineterminator="\n")
    table.writerow(("affiliation", "label"))
    table.writerows((row.text, row.label) for row in rows)
    return text.getvalue()


def _jsonl(rows: Iterable[Mapping[str, str]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _replace(target: Path, text: str) -> None:
    with tempfile.TemporaryDirectory(prefix=".write-", dir=target.parent) as staging:
        staged = Path(staging) / target.name
        staged.write_text(text, encoding="utf-8", newline="\n")
        os.replace(staged, target)
