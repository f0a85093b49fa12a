"""The best model of a search so far: in the workspace, and as a draft in the request's storage. Imports no torch."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..bundles import open_bundle
from ..errors import InvalidRequest, Unavailable
from ..storage import manifests
from .drafts import StoredDrafts
from .outcome import Outcome

__all__ = ["BestModel"]

OUTCOME = "outcome.json"
BUNDLE = "bundle.json"  # the bundle's manifest, since a draft has a `manifest.json` of its own

log = logging.getLogger("mlaas")


@dataclass
class BestModel:
    """The bundle of one trial and what came with it. `folder` is in the job's workspace."""

    drafts: StoredDrafts
    folder: Path
    number: int | None = None
    outcome: Outcome | None = None

    def keep(self, number: int, bundle: Path, described: dict[str, Any]) -> None:
        """Keep the model of trial `number`, a bundle's folder, instead of the one before."""
        previous = self.outcome
        self.number, self.outcome = number, _outcome(bundle, described)
        if previous:
            shutil.rmtree(previous.bundle.folder, ignore_errors=True)

        def write(folder: Path) -> None:
            shutil.copytree(bundle, folder, dirs_exist_ok=True, copy_function=os.link)
            (folder / manifests.MANIFEST).rename(folder / BUNDLE)
            (folder / OUTCOME).write_text(json.dumps(described), "utf-8")

        try:
            self.drafts.of(_fingerprint(number))
            self.drafts.save(write)
        except Unavailable as error:  # should this process die, the trial is trained again
            log.warning("trial.not_kept", extra={"fields": {"trial": number, "reason": error.detail}})

    def find(self, number: int) -> Outcome | None:
        """The model of trial `number`, where it is kept. Raises Unavailable."""
        if self.number == number:
            return self.outcome
        self.drafts.of(_fingerprint(number))
        files = self.drafts.load()
        if files is None or OUTCOME not in files:
            return None
        target = self.folder / f"kept-{number}"
        target.mkdir(parents=True, exist_ok=True)
        try:
            for name, file in files.items():
                (target / name).parent.mkdir(parents=True, exist_ok=True)  # of a variant
                shutil.copyfile(file, target / name)
            (target / BUNDLE).rename(target / manifests.MANIFEST)
            described = manifests.read_json(target / OUTCOME)
            (target / OUTCOME).unlink()
            self.number, self.outcome = number, _outcome(target, described)
        except (InvalidRequest, KeyError, TypeError, FileNotFoundError):
            return None
        return self.outcome


def _outcome(bundle: Path, described: Mapping[str, Any]) -> Outcome:
    return Outcome(bundle=open_bundle(bundle), **{**described, "variants": tuple(described.get("variants", ()))})


def _fingerprint(number: int) -> str:
    return f"trial-{number}"
