"""The card of a model version: what it is, what it was made from, how good it is, what it is for. Imports no torch.

The card lies beside the bundle's manifest, which does not list it: a version's digest is over what is served, and must not
depend on how fast this machine was. The same content published again under a name is the version that is there, with its card.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..catalog import name_of
from ..contracts import ModelSave
from . import card_markdown
from .outcome import Outcome
from .pictures import confusion_matrix, loss_curves

__all__ = ["README", "Card", "Lineage", "describe"]

README = "README.md"
NOT_METRICS = frozenset({"parity", "per_class", "per_type", "confusion"})


@dataclass(frozen=True, kw_only=True)
class Lineage:
    """What a version comes from, beside what its provenance says: the task, the trace of its events, the data's sha256."""

    task_id: str | None = None
    trace_id: str | None = None
    data_sha256: str | None = None


@dataclass(frozen=True, kw_only=True)
class Card:
    """`figures` is JSON serialisable; `pictures` are SVG by file name, which the Markdown names."""

    markdown: str
    figures: dict[str, Any]
    pictures: Mapping[str, str] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Put the card beside the manifest in `folder`."""
        for name, picture in self.pictures.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(picture, "utf-8")
        (folder / README).write_text(self.markdown, "utf-8")

    def entry(self) -> dict[str, Any]:
        """What the catalog keeps of it."""
        return {"markdown": self.markdown, "figures": self.figures}


def describe(outcome: Outcome, save: ModelSave, lineage: Lineage) -> Card:
    """The card of what a run, or an export, came to."""
    evaluation, pictures = outcome.evaluation, {}
    if curves := loss_curves(outcome.history):
        pictures["pictures/loss.svg"] = curves
    if (counted := evaluation.get("confusion")) and (drawn := confusion_matrix(counted["labels"], counted["matrix"])):
        pictures["pictures/confusion.svg"] = drawn
    figures = _figures(outcome, save, lineage)
    details = card_markdown.Details(
        history=outcome.history, classes=evaluation.get("per_class") or evaluation.get("per_type") or {}, pictures=tuple(pictures)
    )
    return Card(markdown=card_markdown.render(figures, details), figures=figures, pictures=pictures)


def _figures(outcome: Outcome, save: ModelSave, lineage: Lineage) -> dict[str, Any]:
    bundle, made = outcome.bundle, outcome.provenance
    request = made.get("request") or {}
    base = dict(made.get("base") or {})
    known = {"task_id": lineage.task_id, "trace_id": lineage.trace_id, "data_sha256": lineage.data_sha256}
    return {
        "name": name_of(save.path, save.name),
        "objective": str(made.get("objective") or bundle.objective),
        "served_as": bundle.objective,
        "labels": len(bundle.labels),
        "max_length": bundle.max_length,
        "architecture": bundle.config.get("model_type"),
        "licence": _licence(save, base.get("licence")),
        "data": {"split": (request.get("dataset") or {}).get("train_test_split"), **outcome.dataset} if outcome.dataset else {},
        "settings": request.get("model_train") or {},
        "training": {**(made.get("training") or {}), **({"stopped": outcome.stopped} if outcome.stopped else {})},
        "search": outcome.search or {},
        "metrics": _metrics(outcome.evaluation),
        "parity": outcome.evaluation.get("parity") or made.get("parity") or bundle.provenance.get("parity") or {},
        "variants": list(outcome.variants),
        "lineage": {
            "digest": bundle.digest,
            "base": base,
            **{name: value for name, value in known.items() if value},
            "created": made.get("created"),
            "versions": made.get("versions") or {},
            "request": request,
        },
    }


def _licence(save: ModelSave, of_base: str | None) -> dict[str, str]:
    if save.licence:
        return {"id": save.licence, "from": "request"}
    return {"id": of_base, "from": "base model"} if of_base else {"id": "unknown", "from": "nobody"}


def _metrics(evaluation: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of an evaluation, those one level down with a name such as `misspelt_accuracy`."""
    found: dict[str, float] = {}
    for name, value in evaluation.items():
        if name in NOT_METRICS:
            continue
        for inner, number in value.items() if isinstance(value, dict) else [("", value)]:
            if isinstance(number, int | float) and not isinstance(number, bool):
                found[f"{name}_{inner}" if inner else name] = number
    return found
