"""A classifier to begin with: one click trains it on synthetic affiliations, by the platform's own way."""

from __future__ import annotations

import csv
import io
from typing import Any

import flask

from .. import jobs
from ..catalog_api import uploads
from ..contracts import TrainRequest, parse
from ..settings import Settings
from .asking import ask
from .page import Page, Visit
from .task_pages import about

__all__ = ["NAME", "PAGES"]

NAME = "demo-structures"
DATA = "demo-affiliations"
ABOUT = "Which INFN structure an author's affiliation names; trained on synthetic ones, for a first look."
ROWS = 600


def demo(visit: Visit) -> Any:
    """Publish the data set, ask for the training, and show on the start page how far it is."""
    data = _dataset(visit.settings)
    asked = {
        "model": {"architecture": "tfidf-linear", "objective": "text-classification"},
        "dataset": {"path": data["path"], "storage_type": data["storage_type"], "text_column": "affiliation", "label_column": "label"},
        "model_save": {"path": f"models/{NAME}", "storage_type": data["storage_type"], "name": NAME, "licence": "cc0-1.0"},
    }
    visit.catalog.entries.ensure("models", NAME, {"description": ABOUT, "tags": ["demo"], "languages": ["en", "it"]})
    request = parse(TrainRequest, asked).model_dump(exclude_none=True, exclude_defaults=True)
    answer = ask(visit.settings, "train", request)
    return flask.redirect(f"/web/?task={answer.data['task_id']}", 303)


def demo_live(visit: Visit, task_id: str) -> Any:
    """How far it is."""
    return visit.show("part_demo.html", **about(visit, task_id))


def _dataset(settings: Settings) -> dict[str, Any]:
    """The version with the synthetic affiliations; the same each time."""
    from ..samples.affiliations import affiliations

    text = io.StringIO()
    table = csv.writer(text, delimiter="\t", lineterminator="\n")
    table.writerow(("affiliation", "label"))
    table.writerows((one.text, one.label) for one in affiliations(ROWS))
    entry = {"description": "Synthetic affiliations with the INFN structure that each names.", "tags": ["demo"], "languages": ["en", "it"]}
    with jobs.workspace(settings) as folder:
        file = folder / "affiliations.tsv"
        file.write_text(text.getvalue(), "utf-8")
        version = uploads.take("datasets", DATA, file, uploads.About(entry=entry, licence="cc0-1.0"), settings).version
    assert version, "a data set is published at once"
    return version


PAGES = (Page("/demo", demo, ("POST",)), Page("/demo/<task_id>", demo_live))
