"""What the ranks of a training take of a batch, what their gradients come to, and how one that is gone is noticed."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest

pytest.importorskip("torch")
import torch
from torch.distributed import PrefixStore, Store, TCPStore  # type: ignore[attr-defined]

from mlaas.contracts import ModelTrain, TrainRequest, parse
from mlaas.errors import InvalidRequest, Unavailable
from mlaas.testing.processes import until
from mlaas.training import meeting
from mlaas.training.batches import Batch
from mlaas.training.masking import IGNORED
from mlaas.training.meeting import GAVE_UP, First, Other
from mlaas.training.objectives import Scored
from mlaas.training.optimization import Compute
from mlaas.training.ranks import Ranks, buckets, share
from mlaas.training.steps import Stepper
from mlaas.training.supported import check_processes

CPU = torch.device("cpu")


class Nobody:
    """A meeting at which nobody is lost."""

    def check(self) -> None: ...

    def reason(self) -> Exception:
        return AssertionError("nobody is lost")


@dataclass
class Sum:
    """The addition of as many threads as there are ranks."""

    size: int
    parts: dict[int, torch.Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.barrier = threading.Barrier(self.size)

    def of(self, rank: int, tensor: torch.Tensor) -> None:
        self.parts[rank] = tensor.clone()
        self.barrier.wait(20)
        total = torch.stack([self.parts[each] for each in sorted(self.parts)]).sum(0)
        self.barrier.wait(20)
        tensor.copy_(total)


class Thread(Ranks):
    """A rank that is a thread."""

    def __init__(self, rank: int, together: Sum) -> None:
        super().__init__(rank, together.size, CPU, Nobody())
        self.together = together

    def _add(self, tensor: torch.Tensor) -> None:
        self.together.of(self.rank, tensor)


@dataclass
class Tagging:
    """A task whose rows have targets at some places only; `idle` is a parameter that no target reaches."""

    model: torch.nn.ModuleDict
    fresh: frozenset[str] = frozenset()

    def score(self, batch: Batch) -> Scored:
        read = batch.targets != IGNORED
        return Scored(self.model["used"](batch.inputs["x"])[read], batch.targets[read])


def batch_of(rows: int, seed: int = 7) -> Batch:
    """Rows of four places, of which the first rows have many targets and the last ones a single one."""
    draw = torch.Generator().manual_seed(seed)
    targets = torch.randint(0, 2, (rows, 4), generator=draw)
    for row in range(rows):
        targets[row, max(1, 4 - row) :] = IGNORED
    inputs = {"x": torch.rand((rows, 4, 3), generator=draw), "attention_mask": torch.ones((rows, 4), dtype=torch.long)}
    return Batch(inputs=inputs, targets=targets, tokens=4 * rows, origins=tuple(range(rows)))


def stepped(batches: list[Batch], ranks: Ranks | None) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Gradient and weights after a step, and its loss."""
    used = torch.nn.Linear(3, 2)
    with torch.no_grad():
        used.weight.copy_(torch.linspace(-1, 1, 6).view(2, 3))
        used.bias.zero_()
    model = torch.nn.ModuleDict({"used": used, "idle": torch.nn.Linear(2, 2)})
    stepper = Stepper(Tagging(model), ModelTrain(), Compute(CPU), 10, ranks)  # type: ignore[arg-type]
    loss = stepper.step(batches, 0)
    assert used.weight.grad is not None
    assert model["idle"].weight.grad is None, "what no target reaches has no gradient, and so no weight decay"
    return used.weight.grad.clone(), used.weight.detach().clone(), loss


def shared(batches: list[Batch], size: int) -> list[tuple[torch.Tensor, torch.Tensor, float]]:
    together, found = Sum(size), {}

    def run(rank: int) -> None:
        found[rank] = stepped(batches, Thread(rank, together))

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    return [found[rank] for rank in range(size)]


def test_each_row_of_a_batch_is_one_ranks_and_long_and_short_ones_are_spread() -> None:
    batch = batch_of(7)
    shares = [share(batch, rank, 3) for rank in range(3)]
    assert [one.origins for one in shares] == [(0, 3, 6), (1, 4), (2, 5)]
    assert torch.equal(shares[1].targets, batch.targets[[1, 4]])
    assert torch.equal(shares[1].inputs["x"], batch.inputs["x"][[1, 4]])
    assert sum(one.tokens for one in shares) == batch.tokens
    assert len(share(batch_of(2), 2, 3).targets) == 0


@pytest.mark.parametrize("batches", [[batch_of(7)], [batch_of(7), batch_of(3, 8)], [batch_of(2)]], ids=["one", "accumulated", "few"])
def test_a_shared_step_is_that_of_one_process_however_the_targets_fall(batches: list[Batch]) -> None:
    gradient, weights, loss = stepped(batches, None)
    for found in shared(batches, 3):
        assert torch.allclose(found[0], gradient, atol=1e-7)
        assert torch.allclose(found[1], weights, atol=1e-7)
        assert found[2] == pytest.approx(loss, rel=1e-6)


def test_the_mean_of_the_ranks_means_would_be_another_step() -> None:
    batch = batch_of(7)
    alone = [stepped([share(batch, rank, 3)], None)[2] for rank in range(3)]
    assert sum(alone) / 3 != pytest.approx(stepped([batch], None)[2], rel=1e-3)


def test_one_rank_that_is_told_to_stop_stops_all() -> None:
    together = Sum(2)
    ranks = [Thread(rank, together) for rank in range(2)]
    ranks[1].leaving = True
    threads = [threading.Thread(target=stepped, args=([batch_of(4)], each)) for each in ranks]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert [each.stopping for each in ranks] == [True, True]


def test_gradients_are_added_in_pieces_that_hold_each_of_them_once() -> None:
    tensors = [torch.zeros(size) for size in (5, 5, 1, 30, 2)]
    assert [[each.numel() for each in held] for held in buckets(tensors, 8)] == [[5, 5], [1, 30], [2]]


def test_dropout_differs_by_rank_and_step_and_is_the_same_again() -> None:
    def drawn(rank: int, number: int) -> float:
        Ranks(rank, 3, CPU, Nobody()).seed(5, number)
        return float(torch.rand(1))

    with torch.random.fork_rng(devices=[]):
        assert drawn(1, 4) == drawn(1, 4)
        assert len({drawn(1, 4), drawn(2, 4), drawn(1, 5)}) == 3


def asked(objective: str = "text-classification", **more: Any) -> TrainRequest:
    pair = {"pair_column": "abstract"} if objective == "sentence-embedding" else {}
    request = {"model": {"path": "m", "objective": objective}, "dataset": {"path": "d", **pair}, "model_save": {"path": "s"}, **more}
    return parse(TrainRequest, request)


def test_more_processes_than_rows_of_a_batch_are_refused_by_their_field() -> None:
    with pytest.raises(InvalidRequest, match="lower `processes`, or raise `batch_size`") as caught:
        asked(model_train={"processes": 9, "batch_size": 8})
    assert caught.value.field == "model_train.processes"
    assert asked(model_train={"processes": 8, "batch_size": 8}).model_train.processes == 8


@pytest.mark.parametrize(
    ("objective", "more", "said"),
    [
        ("sentence-embedding", {}, "compares all rows"),
        ("text-classification", {"search": {"parameters": {"model_train.epochs": {"low": 1, "high": 3}}}}, "trials"),
    ],
)
def test_what_processes_cannot_share_is_refused_by_their_field(objective: str, more: dict[str, Any], said: str) -> None:
    check_processes(asked(objective, **more))
    with pytest.raises(InvalidRequest, match=said) as caught:
        check_processes(asked(objective, **more, model_train={"processes": 2}))
    assert caught.value.field == "model_train.processes"
    assert caught.value.remedy


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr(meeting, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(meeting, "SILENCE", 0.5)
    monkeypatch.setattr(meeting, "LEAVING", 0.1)
    return TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=20))


def lost(rank: int) -> Unavailable:
    return Unavailable(f"rank {rank} is lost")


def test_a_rank_that_falls_silent_is_lost_and_one_that_has_yet_to_come_is_waited_for(store: Store) -> None:
    first = First(store, 3, lost)
    beats = PrefixStore("mlaas", store)
    time.sleep(0.8)
    first.check()
    beats.add("beat/2", 1)
    with pytest.raises(Unavailable, match="rank 2 is lost"):
        first.gather("same")
    assert first.reason().detail == "rank 2 is lost"
    first.end(75)


def test_ranks_that_have_read_the_same_meet(store: Store) -> None:
    ended: list[int] = []
    first, second = First(store, 2, lost), Other(store.clone(), 1, 2, ended.append)
    waiting = threading.Thread(target=second.gather, args=("same",))
    waiting.start()
    first.gather("same")
    waiting.join(5)
    assert not waiting.is_alive()
    assert ended == []
    first.end(75)
    until(lambda: ended == [75], 5, "the end of the other rank")


def test_a_rank_that_has_read_something_else_is_refused(store: Store) -> None:
    first = First(store, 2, lost)
    PrefixStore("mlaas", store).set("here/1", "other")
    with pytest.raises(InvalidRequest, match="rank 1 of 2 has another model, another data set"):
        first.gather("mine")
    first.end(0)


def test_why_a_rank_cannot_go_on_is_what_the_first_one_says(store: Store) -> None:
    first, second = First(store, 2, lost), Other(store.clone(), 1, 2, [].append)
    second.fail(InvalidRequest("the training does not fit into memory", field="model_train.batch_size", remedy="Lower it."))
    with pytest.raises(InvalidRequest, match="does not fit") as caught:
        first.gather("mine")
    assert (caught.value.field, caught.value.remedy) == ("model_train.batch_size", "Lower it.")
    first.end(0)


def test_a_rank_ends_when_the_first_one_falls_silent(store: Store) -> None:
    ended: list[int] = []
    PrefixStore("mlaas", store).add("beat/0", 1)
    Other(store.clone(), 1, 2, ended.append)
    until(lambda: ended == [GAVE_UP], 5, "the end of the other rank")
