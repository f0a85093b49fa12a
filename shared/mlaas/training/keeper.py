"""When a run writes its checkpoints, and what they hold beside its state: the best weights so far."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from ..errors import Unavailable
from . import snapshot
from .drafts import Drafts
from .snapshot import Tensors

__all__ = ["Keeper"]

# Of the time since the last checkpoint, what writing one at the end of an epoch may take: epochs of seconds are not worth
# gigabytes each.
SHARE = 0.1
BEST = "best-{step}.safetensors"

log = logging.getLogger("mlaas")


@dataclass
class Keeper:
    """Writes checkpoints to `drafts`, if there are any, every `interval` seconds."""

    drafts: Drafts | None
    interval: float
    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    clock: Callable[[], float] = time.monotonic
    _took: float = 0.0
    _held: frozenset[str] = frozenset()  # files of the last checkpoint that the next one need not write

    def __post_init__(self) -> None:
        self._last = self.clock()

    def due(self) -> bool:
        """Whether the interval has passed."""
        return self.drafts is not None and self.clock() - self._last >= self.interval

    def worthwhile(self) -> bool:
        """Whether an epoch's end is worth a checkpoint."""
        return self.due() or (self.drafts is not None and self._took <= SHARE * (self.clock() - self._last))

    def save(self, state: Mapping[str, Any], best: Tensors | None, best_step: int | None) -> None:
        """Write a checkpoint; where the storage is away the run goes on and tries again after the interval."""
        if self.drafts is None:
            return
        started = self.clock()
        name = BEST.format(step=best_step)

        def write(folder: Path) -> None:
            snapshot.write(folder, self.model, self.optimizer, {**state, "best": name if best is not None else None})
            if best is not None and name not in self._held:
                save_file(best, folder / name)

        try:
            self.drafts.save(write, kept=frozenset({name}))
            self._held = frozenset({name}) if best is not None else frozenset()
        except Unavailable as error:
            log.warning("checkpoint.missed", extra={"fields": {"reason": error.detail}})
        self._last = self.clock()
        self._took = self._last - started

    def hurry(self, state: Mapping[str, Any], best: Tensors | None, best_step: int | None) -> None:
        """Write a checkpoint within the grace, or none: what is half written then does not count."""
        if self.drafts is None:
            return
        writing = threading.Thread(target=self.save, args=(state, best, best_step), daemon=True)
        writing.start()
        writing.join(self.drafts.grace)
        if writing.is_alive():
            log.warning("checkpoint.missed", extra={"fields": {"reason": "it took longer than the grace of a process that is to stop"}})

    def resume(self) -> tuple[dict[str, Any], Tensors | None] | None:
        """Put model, optimizer and generators into the last checkpoint's state; its state and best weights. None without one."""
        files = self.drafts.load() if self.drafts else None
        if files is None:
            return None
        try:
            state = snapshot.restore(files, self.model, self.optimizer)
        except ValueError as error:
            log.warning("checkpoint.ignored", extra={"fields": {"reason": str(error)}})
            return None
        best = state["best"]
        self._held = frozenset({best} if best else ())
        log.info("checkpoint.resumed", extra={"fields": {"step": state["meter"]["step"], "epoch": state["position"]["epoch"]}})
        return state, load_file(files[best]) if best else None
