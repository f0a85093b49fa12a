"""What the ranks of a training do together: share each batch, add up their gradients, and take the same step.

The step is that of one process with the whole batch: losses and gradients are sums over the targets of all ranks divided by how many
targets there are, and not means of the ranks' means, which would weigh a target by who has it. Therefore gradients are added here and
not by DistributedDataParallel, which averages; the same addition serves accumulated batches, shares without rows, and parameters that no
target reaches. Tensors and JSON travel; nothing is pickled.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, Protocol

import numpy as np
import torch
from torch import distributed
from torch.distributed import PrefixStore, Store  # type: ignore[attr-defined]

from .batches import Batch
from .snapshot import trained

__all__ = ["Meeting", "Order", "Ranks", "buckets", "share"]

Order = tuple[int, int, int]  # epoch, place of the group of batches in it, number of the step
BUCKET = 8_000_000  # elements that are added up at once
EVER = timedelta(days=7)  # waiting for others has no end by itself: the meeting says when one is lost
CONNECTING = timedelta(seconds=50)


class Meeting(Protocol):
    """What `First` and `Other` are to their rank."""

    def check(self) -> None:
        """Raise the reason for which the training cannot go on."""

    def reason(self) -> Exception:
        """Why another rank vanished."""


def share(batch: Batch, rank: int, size: int) -> Batch:
    """The rows of `batch` that are `rank`'s: each `size`-th, so that long and short ones are spread; perhaps none."""
    inputs = {name: tensor[rank::size] for name, tensor in batch.inputs.items()}
    tokens = int(inputs["attention_mask"].sum())
    return replace(batch, inputs=inputs, targets=batch.targets[rank::size], tokens=tokens, origins=batch.origins[rank::size])


def buckets(tensors: Iterable[torch.Tensor], elements: int = BUCKET) -> Iterator[list[torch.Tensor]]:
    """`tensors` in lists of about as many elements, none split."""
    held: list[torch.Tensor] = []
    for tensor in tensors:
        held.append(tensor)
        if sum(each.numel() for each in held) >= elements:
            yield held
            held = []
    if held:
        yield held


class Ranks:
    """One rank's part in the collective operations. `leaving`: this process was told to stop; `stopping`: one of them was."""

    def __init__(self, rank: int, size: int, where: torch.device, meeting: Meeting) -> None:
        self.rank, self.size, self.where, self._meeting = rank, size, where, meeting
        self.leaving = self.stopping = False

    @classmethod
    def join(cls, store: Store, rank: int, size: int, where: torch.device, meeting: Meeting) -> Ranks:
        """Connect with all others, which must have come to the meeting."""
        ranks = cls(rank, size, where, meeting)
        store, backend = PrefixStore("ranks", store), "nccl" if where.type == "cuda" else "gloo"
        with ranks._noticing():
            distributed.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=CONNECTING)
            distributed.set_timeout(EVER)
        return ranks

    def share(self, batch: Batch) -> Batch:
        """This rank's rows of `batch`."""
        return share(batch, self.rank, self.size)

    def order(self, order: Order | None = None) -> Order:
        """The step that all take now: the first rank says which, the others hear it."""
        words = torch.tensor(order or (0, 0, 0), dtype=torch.int64, device=self.where)
        self._from_first(words)
        epoch, place, number = words.tolist()
        return epoch, place, number

    def seed(self, seed: int, number: int) -> None:
        """Seed this rank's dropout for step `number`, so that a run that is resumed draws the same. The first rank's goes on as ever."""
        if self.rank:
            torch.manual_seed(int(np.random.SeedSequence([seed, self.rank, number]).generate_state(1, np.uint64)[0] >> 1))

    def combine(self, parameters: Sequence[torch.nn.Parameter], first: int, total: float, count: int) -> float:
        """Make each gradient that of the mean loss over all targets of all ranks; that loss.

        Given are this rank's `total` loss and `count` of targets, and gradients that were divided by `first`.
        """
        reached = [parameter.grad is not None for parameter in parameters]
        sums = torch.tensor([total, count, self.leaving, *reached], dtype=torch.float64, device=self.where)
        self._add(sums)
        total, targets, leaving, *by = sums.tolist()
        self.stopping = leaving > 0
        gradients = []
        for parameter, anywhere in zip(parameters, by, strict=True):
            if parameter.grad is not None:
                parameter.grad.mul_(first / targets)
            elif anywhere:
                parameter.grad = torch.zeros_like(parameter)
            if parameter.grad is not None:
                gradients.append(parameter.grad)
        for held in buckets(gradients):
            flat = torch.cat([gradient.reshape(-1) for gradient in held])
            self._add(flat)
            for gradient, piece in zip(held, torch.split(flat, [each.numel() for each in held]), strict=True):
                gradient.copy_(piece.view_as(gradient))
        return float(total / targets)

    def alike(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
        """Give every rank the first one's weights, optimizer and `state`, which is JSON serialisable and returned."""
        for tensor in trained(model).values():
            self._from_first(tensor)
        values: dict[int, dict[str, Any]] = optimizer.state_dict()["state"]
        places = [(key, name, value) for key, each in values.items() for name, value in each.items()]
        tensors = [(key, name, value) for key, name, value in places if isinstance(value, torch.Tensor)]
        others = [(key, name, value) for key, name, value in places if not isinstance(value, torch.Tensor)]
        described = [(key, name, list(value.shape), str(value.dtype).removeprefix("torch.")) for key, name, value in tensors]
        said = self._said({"state": state, "others": others, "tensors": described})
        heard: dict[int, dict[str, Any]] = {}
        for key, name, value in said["others"]:
            heard.setdefault(key, {})[name] = value
        given = iter(tensors)
        for key, name, shape, kind in said["tensors"]:
            empty = torch.empty(shape, dtype=getattr(torch, kind), device=self.where)
            tensor = empty if self.rank else next(given)[2].to(self.where).contiguous()
            self._from_first(tensor)
            heard.setdefault(key, {})[name] = tensor
        if self.rank:
            optimizer.load_state_dict({"state": heard, "param_groups": optimizer.state_dict()["param_groups"]})
        return dict(said["state"])

    def leave(self) -> None:
        """Let go of the others, before the process goes on alone or ends."""
        distributed.destroy_process_group()

    def _said(self, content: Any) -> Any:
        """The first rank's `content`."""
        text = json.dumps(content).encode()
        length = torch.tensor([len(text)], dtype=torch.int64, device=self.where)
        self._from_first(length)
        own = torch.tensor(list(text), dtype=torch.uint8, device=self.where) if self.rank == 0 else None
        letters = own if own is not None else torch.empty(int(length), dtype=torch.uint8, device=self.where)
        self._from_first(letters)
        return json.loads(bytes(letters.tolist()))

    def _add(self, tensor: torch.Tensor) -> None:
        self._done(lambda: distributed.all_reduce(tensor, async_op=True))

    def _from_first(self, tensor: torch.Tensor) -> None:
        self._done(lambda: distributed.broadcast(tensor, 0, async_op=True))

    def _done(self, begin: Callable[[], Any]) -> None:
        """Wait for a collective operation, and look meanwhile whether somebody is lost."""
        pause = 0.0
        with self._noticing():
            work = begin()
            while not work.is_completed():
                self._meeting.check()
                time.sleep(pause)
                pause = min(0.001, pause + 0.00005)
            work.wait()

    def _noticing(self) -> Any:
        return _Noticing(self._meeting)


class _Noticing:
    """Within, an error of torch's connections becomes the reason that the meeting knows."""

    def __init__(self, meeting: Meeting) -> None:
        self._meeting = meeting

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, RuntimeError):  # DistError is one
            raise self._meeting.reason() from None
