"""What each setting of a run does to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
import onnx
import torch
from transformers import AutoModelForSequenceClassification

from mlaas.contracts import EarlyStopping, Lora, ModelTrain, TrainRequest, parse
from mlaas.errors import InvalidRequest
from mlaas.testing.tiny_checkpoints import write_checkpoint, write_rows
from mlaas.training import adapters, progress
from mlaas.training.batches import Batch
from mlaas.training.checkpoints import load_model, open_checkpoint
from mlaas.training.judge import Judge
from mlaas.training.memory import available, in_use
from mlaas.training.objectives import Scored
from mlaas.training.optimization import Compute, compute
from mlaas.training.progress import Meter, Report
from mlaas.training.run import Outcome, Sources, train
from mlaas.training.steps import Stepper, grouped
from mlaas.training.supported import FIGURES

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _one_thread_and_a_report_at_each_step(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(progress, "INTERVAL", 0.0)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    folder = tmp_path_factory.mktemp("sources")
    return Sources(checkpoint=write_checkpoint(folder / "encoder"), tokenizer=None, table=write_rows(folder / "rows.jsonl"))


@pytest.fixture
def run(sources: Sources, tmp_path: Path) -> Callable[..., Outcome]:
    def run(report: Callable[[Report], None] = lambda report: None, **model_train: Any) -> Outcome:
        request = {
            "model": {"path": "tiny", "objective": "text-classification"},
            "model_train": {"epochs": 4, "batch_size": 8, "optimizer": {"init_lr": 3e-3}, **model_train},
            "dataset": {"path": "rows.jsonl", "train_test_split": 0.2},
            "model_save": {"path": "trained"},
        }
        return train(parse(TrainRequest, request), sources, tmp_path / "bundle", report)

    return run


@dataclass
class Weighing:
    """A task of one weight matrix; the loss of a batch is the mean over its targets."""

    model: torch.nn.Linear
    fresh: frozenset[str] = frozenset()

    def score(self, batch: Batch) -> Scored:
        return Scored(self.model(batch.inputs["x"]), batch.targets)


def batch_of(rows: list[int]) -> Batch:
    draw = torch.Generator().manual_seed(7)
    x, targets = torch.rand((12, 3), generator=draw), torch.randint(0, 2, (12,), generator=draw)
    return Batch(inputs={"x": x[rows]}, targets=targets[rows], tokens=len(rows))


def stepped(parts: list[list[int]]) -> tuple[torch.Tensor, float]:
    """The gradient that a step was made of, and its loss."""
    torch.manual_seed(3)
    model = torch.nn.Linear(3, 2)
    stepper = Stepper(Weighing(model), ModelTrain(), Compute(CPU), 10)  # type: ignore[arg-type]
    loss = stepper.step([batch_of(rows) for rows in parts], 0)
    assert model.weight.grad is not None
    return model.weight.grad.clone(), loss


@pytest.mark.parametrize("parts", [[[0, 1, 2, 3], [4, 5, 6, 7]], [[0, 1, 2, 3, 4, 5], [6], [7]], [[0], [1, 2, 3, 4, 5, 6, 7]]])
def test_accumulated_batches_make_the_step_of_one_batch_of_all_their_rows(parts: list[list[int]]) -> None:
    at_once, loss = stepped([list(range(8))])
    gradient, mean = stepped(parts)
    assert torch.allclose(gradient, at_once, atol=1e-7)
    assert mean == pytest.approx(loss, rel=1e-6)
    assert not torch.allclose(stepped(parts[:1])[0], at_once, atol=1e-3)


def test_the_last_group_of_an_epoch_may_be_smaller() -> None:
    batches = [batch_of([number]) for number in range(7)]
    assert [len(group) for group in grouped(batches, 3)] == [3, 3, 1]


@pytest.mark.training
def test_accumulation_makes_fewer_steps_of_the_same_tokens(run: Callable[..., Outcome]) -> None:
    steps: list[int] = []
    outcome = run(lambda report: steps.append(report.steps), gradient_accumulation=5, epochs=1)
    assert steps[-1] == outcome.provenance["training"]["steps"] == 3  # 12 batches
    assert outcome.dataset["tokens_trained"] > outcome.dataset["tokens"] * 0.8


def test_fp16_scales_the_loss_and_leaves_steps_out_that_overflow() -> None:
    model = torch.nn.Linear(3, 2)
    stepper = Stepper(Weighing(model), ModelTrain(), Compute(CPU, torch.float16), 10)  # type: ignore[arg-type]
    assert stepper.scaler.get_scale() > 1
    stepper.scaler.load_state_dict({**stepper.scaler.state_dict(), "scale": 2.0**127})
    before, scale = model.weight.detach().clone(), stepper.scaler.get_scale()
    stepper.step([batch_of([0, 1, 2])], 0)
    assert torch.equal(model.weight, before)
    assert stepper.scaler.get_scale() < scale
    kept = stepper.state()
    again = Stepper(Weighing(model), ModelTrain(), Compute(CPU, torch.float16), 10)  # type: ignore[arg-type]
    again.restore(kept)
    assert again.scaler.get_scale() == stepper.scaler.get_scale()


def test_fp16_without_a_gpu_is_refused_with_the_remedy() -> None:
    with pytest.raises(InvalidRequest, match="needs a GPU") as caught:
        compute("fp16", CPU)
    assert caught.value.field == "model_train.precision"
    assert "auto" in str(caught.value.remedy)


@pytest.mark.parametrize(
    ("asked", "flags", "used", "noted"),
    [
        ("auto", "fpu amx_bf16", "bf16", False),
        ("auto", "fpu avx2", "fp32", False),
        ("bf16", "fpu avx512_bf16", "bf16", False),
        ("bf16", "fpu avx2", "fp32", True),
        ("fp32", "fpu amx_bf16", "fp32", False),
    ],
)
def test_the_precision_is_what_was_asked_for_as_far_as_the_hardware_has_it(
    asked: str, flags: str, used: str, noted: bool, tmp_path: Path
) -> None:
    (tmp_path / "cpuinfo").write_text(f"flags\t\t: {flags}\n")
    found = compute(asked, CPU, tmp_path / "cpuinfo")
    assert (found.name, bool(found.note)) == (used, noted)
    with found.autocast():
        assert (torch.rand(2, 2) @ torch.rand(2, 2)).dtype == found.dtype


@pytest.mark.training
def test_the_provenance_says_what_precision_was_used(run: Callable[..., Outcome]) -> None:
    assert run(precision="fp32", epochs=1).provenance["training"]["precision"] == "fp32"


@pytest.mark.training
def test_recomputed_activations_give_the_same_model(run: Callable[..., Outcome], sources: Sources) -> None:
    calls: list[int] = []
    plain = run(epochs=1, precision="fp32")
    original = torch.utils.checkpoint.checkpoint

    def counted(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        return original(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.utils.checkpoint, "checkpoint", counted)
        patch.setattr("transformers.modeling_utils.checkpoint", counted)
        again = train(
            parse(
                TrainRequest,
                {
                    **plain.provenance["request"],
                    "model_train": {**plain.provenance["request"]["model_train"], "gradient_checkpointing": True},
                },
            ),
            sources,
            plain.bundle.folder.parent / "again",
            lambda report: None,
        )
    assert calls
    assert again.history["loss"] == pytest.approx(plain.history["loss"], abs=1e-5)


class Figures:
    """Judges a series of losses as a run would."""

    def __init__(self, judge: Judge, values: list[float], metric: str = "loss") -> None:
        self.improved = []
        self.ended: int | None = None
        for step, value in enumerate(values, start=1):
            self.improved.append(judge.judge({metric: value, "label": "x"}, step))
            if judge.exhausted and self.ended is None:
                self.ended = step


def test_patience_runs_out_after_so_many_evaluations_without_improvement() -> None:
    judge = Judge.of(ModelTrain(early_stopping=EarlyStopping(patience=2)))
    assert Figures(judge, [3.0, 2.0, 2.5, 2.1, 1.0]).ended == 4
    assert (judge.best, judge.step) == (1.0, 5)


def test_an_improvement_below_the_delta_is_kept_as_the_best_but_does_not_renew_patience() -> None:
    judge = Judge.of(ModelTrain(early_stopping=EarlyStopping(patience=2, min_delta=0.5)))
    found = Figures(judge, [3.0, 2.9, 2.8])
    assert (found.improved, found.ended) == ([True, True, True], 3)


def test_a_figure_that_grows_is_better_unless_it_is_a_loss() -> None:
    judge = Judge.of(ModelTrain(early_stopping=EarlyStopping(metric="macro_f1")))
    assert Figures(judge, [0.1, 0.5, 0.4], "macro_f1").improved == [True, True, False]


def test_an_unknown_metric_names_those_there_are() -> None:
    judge = Judge.of(ModelTrain(early_stopping=EarlyStopping(metric="f2")))
    with pytest.raises(InvalidRequest) as caught:
        judge.judge({"loss": 1.0, "accuracy": 0.5, "confusion": {}}, 1)
    assert caught.value.field == "model_train.early_stopping.metric"
    assert caught.value.remedy == "Use one of: accuracy, loss."


def test_the_last_weights_are_kept_unless_best_or_early_stopping_is_asked_for() -> None:
    assert not Judge.of(ModelTrain()).keeps_best
    assert Judge.of(ModelTrain(keep="best")).keeps_best
    assert Judge.of(ModelTrain(early_stopping=EarlyStopping())).keeps_best
    assert not Judge.of(ModelTrain(early_stopping=EarlyStopping(), keep="last")).keeps_best


@pytest.mark.training
def test_the_best_epochs_weights_are_published_and_evaluated(run: Callable[..., Outcome]) -> None:
    outcome = run(keep="best", epochs=8, optimizer={"init_lr": 5e-2})  # a rate at which the loss goes up and down
    losses = outcome.history["validation_loss"]
    assert min(losses) < losses[-1], "the last epoch must not be the best, or this test shows nothing"
    assert outcome.evaluation["loss"] == pytest.approx(min(losses), abs=1e-5)
    assert outcome.provenance["training"]["best_step"] == (losses.index(min(losses)) + 1) * 12


@pytest.mark.training
def test_early_stopping_ends_the_run_and_says_so(run: Callable[..., Outcome]) -> None:
    outcome = run(early_stopping={"patience": 1, "metric": "accuracy", "min_delta": 1.0}, epochs=9)
    assert outcome.stopped == outcome.provenance["training"]["stopped"] == "early"
    assert len(outcome.history["loss"]) == 2


def test_a_metric_that_the_objective_has_not_is_refused_before_the_run(run: Callable[..., Outcome]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        run(lambda report: pytest.fail("nothing must have begun"), early_stopping={"metric": "perplexity"})
    assert caught.value.field == "model_train.early_stopping.metric"
    assert "macro_f1" in str(caught.value.remedy)


@pytest.mark.training
def test_every_figure_that_may_be_asked_for_is_in_the_evaluation(run: Callable[..., Outcome]) -> None:
    evaluation = run(epochs=1).evaluation
    assert {"loss", "accuracy", *FIGURES["text-classification"]} - {"accuracy_named"} <= set(evaluation)


@pytest.mark.training
def test_at_the_deadline_what_there_is_is_evaluated_and_published(run: Callable[..., Outcome]) -> None:
    outcome = run(deadline_minutes=1e-6, epochs=1000)
    assert outcome.stopped == "deadline"
    assert len(outcome.history["loss"]) == len(outcome.history["validation_loss"]) == 1
    assert outcome.provenance["training"]["steps"] == 1
    assert 0 <= outcome.evaluation["accuracy"] <= 1


@pytest.mark.training
def test_lora_trains_few_parameters_and_publishes_an_ordinary_model(run: Callable[..., Outcome]) -> None:
    outcome = run(lora={"rank": 4, "alpha": 16}, epochs=6, optimizer={"init_lr": 1e-2})
    assert outcome.evaluation["accuracy"] > 0.9
    said = outcome.provenance["training"]["lora"]
    assert said["parameters"] == 2 * 2 * (4 * 32 + 32 * 4)  # layers x (query, value) x two matrices
    assert said["bytes"] == said["parameters"] * 4
    assert said["target"] == ["query", "value"]
    assert not [tensor.name for tensor in onnx.load(outcome.bundle.graph).graph.initializer if "lora" in tensor.name]


def test_adapters_leave_everything_else_as_it_was_and_merge_to_the_same_function(sources: Sources) -> None:
    checkpoint = open_checkpoint(sources.checkpoint)
    loaded = load_model(AutoModelForSequenceClassification, checkpoint, num_labels=2)
    model = loaded.model.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    adapters.attach(model, Lora(rank=2), loaded.fresh)
    learning = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert all("lora_" in name or name in loaded.fresh for name in learning)
    assert loaded.fresh <= learning
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.1)
        ids = torch.tensor([[2, 5, 6, 3]])
        adapted = model(input_ids=ids).logits
        adapters.merge(model)
        assert torch.allclose(model(input_ids=ids).logits, adapted, atol=1e-5)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert set(model.state_dict()) == set(before)
    assert changed == {f"bert.encoder.layer.{layer}.attention.self.{part}.weight" for layer in (0, 1) for part in ("query", "value")}


def test_layers_that_the_model_has_not_are_refused_with_those_it_has(sources: Sources) -> None:
    loaded = load_model(AutoModelForSequenceClassification, open_checkpoint(sources.checkpoint), num_labels=2)
    with pytest.raises(InvalidRequest, match="`q_proj`") as caught:
        adapters.attach(loaded.model, Lora(target=["q_proj"]), loaded.fresh)
    assert caught.value.field == "model_train.lora.target"
    assert "query" in str(caught.value.remedy)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_time_left_after_a_resume_is_that_of_this_process_pace() -> None:
    clock, reports = Clock(), []
    first = Meter(report=reports.append, clock=clock, steps=100)
    first.phase("train")
    for _ in range(10):
        clock.now += 1.0
        first.count(5, 0.1, 1e-4)
    clock.now += 1000  # the machine was away; nobody trained
    second = Meter(report=reports.append, clock=clock, steps=100)
    second.restore(first.state() | {"elapsed": 10.0})
    second.phase("train")
    assert reports[-1].eta == 90.0
    for _ in range(5):
        clock.now += 2.0
        second.count(5, 0.1, 1e-4)
    second.tick()
    assert reports[-1].eta == 2.0 * 85
    assert reports[-1].percent > 10
    assert second.elapsed == 20.0
    assert second.tokens_per_second == 3.8  # 75 in 20 s, rounded


@pytest.mark.training
def test_a_report_tells_rate_and_memory(run: Callable[..., Outcome]) -> None:
    reports: list[Report] = []
    run(reports.append, epochs=1)
    last = reports[-1]
    assert last.learning_rate == pytest.approx(3e-3 / 12)
    assert 50e6 < last.memory["peak"] < 64e9


def test_the_memory_there_is_is_the_limit_of_the_group_or_what_the_machine_has_left(tmp_path: Path) -> None:
    limit, meminfo = tmp_path / "memory.max", tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 9 kB\nMemAvailable:       2048 kB\n")
    assert available((limit,), meminfo) == 2048 * 1024
    limit.write_text("max\n")
    assert available((limit,), meminfo) == 2048 * 1024
    limit.write_text("1000\n")
    assert available((limit,), meminfo) == 1000
    limit.write_text(str(2**63 - 4096))
    assert available((limit,), tmp_path / "absent") is None
    assert in_use()["peak"] > 10e6
