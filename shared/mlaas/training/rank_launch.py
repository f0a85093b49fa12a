"""The other ranks of a training on this machine: processes that the first one starts, watches and ends. Imports no torch.

Each has a pipe as its standard input. When that ends, the first rank is dead, however it died, and the process exits.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

from .. import limits
from ..errors import InvalidRequest
from ..settings import named

__all__ = ["Launched"]


@dataclass
class Launched:
    """Ranks 1 to `size` - 1, which meet the first at `port` of this machine and share the cores with it."""

    size: int
    port: int
    _children: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def threads(self) -> int:
        """Threads of each."""
        return max(1, limits.cpus() // self.size)

    def start(self) -> None:
        """Start the processes; what they write goes where this one's standard error goes."""
        for rank in range(1, self.size):
            command = [sys.executable, "-m", "mlaas.training.rank"]
            environ = {**os.environ, **self._environment(rank)}
            self._children.append(subprocess.Popen(command, env=environ, stdin=subprocess.PIPE, stdout=sys.stderr))  # noqa: S603 - our own

    def died(self) -> InvalidRequest | None:
        """The error of the first one that has ended before its time."""
        for rank, child in enumerate(self._children, 1):
            if (status := child.poll()) is not None:
                how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
                return InvalidRequest(
                    f"process {rank + 1} of the {self.size} that share the training {how}",
                    field="model_train.processes",
                    remedy="If memory was short: lower `processes`, `batch_size` or `max_length`, or give the job more memory.",
                )
        return None

    def end(self, patience: float = 5.0) -> None:
        """End those that still run: their standard input ends, and after `patience` seconds they are killed."""
        for child in self._children:
            with contextlib.suppress(OSError):
                if child.stdin:
                    child.stdin.close()
        for child in self._children:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(patience)
            child.kill()
            child.wait()

    def _environment(self, rank: int) -> Mapping[str, str]:
        return {
            **named(rank=str(rank), world_size=str(self.size), local_rank=str(rank), local_world_size=str(self.size)),
            **named(master_addr="127.0.0.1", master_port=str(self.port)),
            "OMP_NUM_THREADS": str(self.threads),
        }
