"""How the first rank of a training gets its others: they come by themselves where torchrun or a Job of Kubernetes started all of them,
and are started on this machine where nobody did.
"""

from __future__ import annotations

import os
import socket
from datetime import timedelta
from typing import Protocol

import torch
from torch.distributed import Store, TCPStore  # type: ignore[attr-defined]

from ..errors import InvalidRequest, MlaasError, Unavailable
from ..settings import Settings
from .meeting import ARRIVAL, GAVE_UP, First
from .rank_launch import Launched
from .ranks import Ranks

__all__ = ["Crew", "Started", "Summoned", "connect", "gpu"]

LOOPBACK = "lo"


class Crew(Protocol):
    """The ranks of a training, as the first one sees them: `size` in all, `here` of them on this machine."""

    size: int
    here: int

    def check(self) -> None:
        """Raise why the training cannot go on."""

    def gather(self, mark: str, where: torch.device) -> Ranks:
        """Wait for the others, who must have read the same as `mark` stands for, and connect with them."""

    def trained(self) -> None:
        """The others have nothing left to compute."""

    def close(self, *, again: bool) -> None:
        """End the others; `again`: the task has no final state, and all of them are to be started again."""


class Started:
    """A crew whose other ranks are processes that this one starts once it knows that the run can begin."""

    def __init__(self, size: int) -> None:
        self.size = self.here = size
        self._launched: Launched | None = None
        self._meeting: First | None = None
        self._ranks: Ranks | None = None
        self._threads = torch.get_num_threads()

    def check(self) -> None:
        if self._meeting:
            self._meeting.check()

    def gather(self, mark: str, where: torch.device) -> Ranks:
        gpu(where, 0, self.size)
        os.environ.setdefault("GLOO_SOCKET_IFNAME", LOOPBACK)
        listening = socket.create_server(("127.0.0.1", 0))  # so that nobody else can come in; torch's own would be open to the network
        port = int(listening.getsockname()[1])
        store = TCPStore("127.0.0.1", port, is_master=True, wait_for_workers=False, master_listen_fd=listening.detach())
        self._launched = Launched(self.size, port)
        self._launched.start()
        torch.set_num_threads(self._launched.threads)
        self._meeting = First(store, self.size, self._silent, self._launched.died)
        self._meeting.gather(mark)
        self._ranks = Ranks.join(store, 0, self.size, where, self._meeting)
        return self._ranks

    def trained(self) -> None:
        self.close(again=False)

    def close(self, *, again: bool) -> None:
        if self._meeting:
            self._meeting.end(GAVE_UP if again else 0)
            self._meeting = None
        if self._launched:
            self._launched.end()
            self._launched = None
            torch.set_num_threads(self._threads)

    def _silent(self, rank: int) -> MlaasError:
        return InvalidRequest(
            f"process {rank + 1} of the {self.size} that share the training does not answer",
            field="model_train.processes",
            remedy="Lower `processes` if the machine has too little memory or too few cores for them, and send the request again.",
        )


class Summoned:
    """A crew whose ranks torchrun or Kubernetes has started. A lost one is replaced by starting all again, from the last checkpoint."""

    def __init__(self, settings: Settings) -> None:
        self.size, self.here, self._local = settings.world_size, settings.local_world_size, settings.local_rank
        self._store = connect(settings, ARRIVAL)
        self._meeting = First(self._store, self.size, self._lost)

    def check(self) -> None:
        self._meeting.check()

    def gather(self, mark: str, where: torch.device) -> Ranks:
        gpu(where, self._local, self.here)
        self._meeting.gather(mark)
        return Ranks.join(self._store, 0, self.size, where, self._meeting)

    def trained(self) -> None:
        """They stay until the task has its final state: a Job does not start a rank again that has ended well."""

    def close(self, *, again: bool) -> None:
        self._meeting.end(GAVE_UP if again else 0)

    def _lost(self, rank: int) -> MlaasError:
        return Unavailable(f"rank {rank} of {self.size} is lost: it did not come, was killed, or its machine is gone")


def connect(settings: Settings, timeout: float) -> Store:
    """The store that MASTER_ADDR and MASTER_PORT name: torchrun's agent serves it, else the first rank. Raises RuntimeError."""
    serves = settings.rank == 0 and not settings.agent_store
    place, within = (settings.master_addr, settings.master_port), timedelta(seconds=timeout)
    return TCPStore(*place, is_master=serves, wait_for_workers=False, multi_tenant=True, timeout=within)


def gpu(where: torch.device, local: int, here: int) -> None:
    """Take the GPU of the `local`-th of `here` ranks on this machine. Raises InvalidRequest where there are fewer GPUs than ranks."""
    if where.type != "cuda":
        return
    if here > torch.cuda.device_count():
        raise InvalidRequest(
            f"{here} processes need as many GPUs, and there are {torch.cuda.device_count()}",
            field="model_train.processes",
            remedy="Lower `processes` to the number of GPUs of one machine, or render pods with a GPU each: `mlaas render job`.",
        )
    torch.cuda.set_device(local)
