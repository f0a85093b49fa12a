"""Model cards: true figures, pictures that parse, nothing that does not belong there, and the catalog's copy."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pytest

pytest.importorskip("torch")
import onnx
import torch
import yaml
from typer.testing import CliRunner

from mlaas import bundles, classifier, documents, models, sessions, settings, storage
from mlaas.catalog import Catalog
from mlaas.catalog_api.shown import variations
from mlaas.cli import app
from mlaas.contracts import ModelRef, ModelSave, TrainRequest, parse
from mlaas.errors import InvalidRequest
from mlaas.precision import FILES
from mlaas.settings import Settings
from mlaas.testing.tiny_checkpoints import write_checkpoint, write_rows
from mlaas.training import pipelines, quantization, variants
from mlaas.training.batches import Batch
from mlaas.training.card import Lineage, describe
from mlaas.training.licence import licence_of
from mlaas.training.outcome import Outcome
from mlaas.training.pictures import SHOWN, confusion_matrix, loss_curves
from mlaas.training.publish import export_and_publish, publish
from mlaas.training.run import Sources, train
from mlaas.training.supported import check_architecture

pytestmark = pytest.mark.training
SVG = "{http://www.w3.org/2000/svg}"
LINEAGE = Lineage(task_id="task-1", trace_id="0af7651916cd43dd8448eb211c80319c", data_sha256="ab" * 32)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def asking(**model_save: Any) -> dict[str, Any]:
    return {
        "model": {"path": "tiny", "objective": "text-classification"},
        "model_train": {"epochs": 2, "batch_size": 8, "optimizer": {"init_lr": 3e-3}},
        "dataset": {"path": "rows.jsonl", "train_test_split": 0.2},
        "model_save": {"path": "models/birds", **model_save},
    }


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("data") / "rows.jsonl")


@pytest.fixture(scope="module")
def trained(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    folder = tmp_path_factory.mktemp("training")
    checkpoint = write_checkpoint(folder / "checkpoint")
    (checkpoint / "README.md").write_text("---\nlicense: mit\n---\n# tiny\n")
    sources = Sources(checkpoint=checkpoint, tokenizer=None, table=table)
    return train(
        parse(TrainRequest, asking(variants=["bf16", "int8", "int8-dynamic", "fp16"])), sources, folder / "bundle", lambda report: None
    )


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """This process is configured for an empty home."""
    monkeypatch.setenv("MLAAS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MLAAS_DOCUMENTS", f"sqlite:///{tmp_path}/documents.sqlite")
    settings.current.cache_clear()
    yield settings.current()
    documents.shared().close()
    settings.current.cache_clear()


@pytest.fixture
def outcome(trained: Outcome, tmp_path: Path) -> Outcome:
    """The trained one, in a folder of its own."""
    folder = Path(shutil.copytree(trained.bundle.folder, tmp_path / "bundle"))
    return dataclasses.replace(trained, bundle=bundles.open_bundle(folder))


def front_matter(markdown: str) -> dict[str, Any]:
    found = yaml.safe_load(markdown.split("---\n")[1])
    assert isinstance(found, dict)
    return found


def numbers(evaluation: dict[str, Any]) -> dict[str, float]:
    return {name: value for name, value in evaluation.items() if isinstance(value, int | float)}


def test_the_figures_are_those_of_the_evaluation(outcome: Outcome) -> None:
    card = describe(outcome, ModelSave(path="models/birds"), LINEAGE)
    assert card.figures["metrics"] == numbers(outcome.evaluation)
    head = front_matter(card.markdown)
    (results,) = head["model-index"][0]["results"]
    assert {each["type"]: each["value"] for each in results["metrics"]} == pytest.approx(numbers(outcome.evaluation), rel=1e-5)
    assert (head["license"], head["objective"], head["pipeline_tag"]) == ("mit", "text-classification", "text-classification")
    assert f"| held-out rows | {outcome.dataset['samples_test']} |" in card.markdown
    bird = outcome.evaluation["per_class"]["bird"]
    assert f"| bird | {bird['precision']:.4f} | {bird['recall']:.4f} | {bird['f1']:.4f} | {bird['support']} |" in card.markdown
    assert f"by at most {outcome.evaluation['parity']['max_abs_diff']:.2g} over" in card.markdown
    json.dumps(card.figures, allow_nan=False)


def test_the_card_says_where_the_model_comes_from(outcome: Outcome) -> None:
    card = describe(outcome, ModelSave(path="models/birds"), LINEAGE)
    lineage = card.figures["lineage"]
    assert lineage["digest"] == outcome.bundle.digest
    assert lineage["base"]["digest"] == outcome.provenance["base"]["digest"]
    assert lineage["request"]["model_train"]["epochs"] == 2
    for said in (LINEAGE.task_id, LINEAGE.trace_id, LINEAGE.data_sha256, outcome.bundle.digest, '"epochs": 2'):
        assert str(said) in card.markdown


def test_each_variant_has_its_size_its_pace_and_what_it_costs_in_accuracy(outcome: Outcome) -> None:
    served, bf16, *others = outcome.variants
    assert [one["variant"] for one in others] == ["int8", "int8-dynamic", "fp16"]
    assert bf16["variant"] == "bf16"
    computes = "bf16" in sessions.runnable()
    assert (bf16["accuracy_loss"] is not None, "not measured here" not in bf16.get("note", "")) == (computes, computes)
    assert (served["variant"], served["served"], served["texts"]) == ("fp32", True, outcome.dataset["samples_test"])
    assert served["metrics"] == pytest.approx({name: outcome.evaluation[name] for name in served["metrics"]}, rel=1e-4)
    for one in (served, *others):
        assert one["bytes"] == (outcome.bundle.folder / one["file"]).stat().st_size
        assert one["texts_per_second"] > 0
    for one in others:
        assert not one["served"]
        assert one["accuracy_loss"] == pytest.approx(served["metrics"]["accuracy"] - one["metrics"]["accuracy"], abs=1e-6)
        assert 0.9 < one["cosine"] <= 1.0
        assert one["cosine"] != 1.0 or one["variant"] == "fp16", "int8 is rounded"
    bundles.verify(outcome.bundle.folder)


def test_a_variant_is_other_numbers_and_no_copy_of_the_served_graph(outcome: Outcome) -> None:
    files = {one["file"] for one in outcome.variants}
    hashes = {hashlib.sha256((outcome.bundle.folder / file).read_bytes()).hexdigest() for file in files}
    assert len(hashes) == 4


def test_a_variant_that_cannot_be_made_is_left_out_and_costs_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no graph")
    assert variants.make(tmp_path, ["int8", "fp16"], list) == {}
    assert list((tmp_path / "variants").iterdir()) == []
    assert caplog.messages.count("variant.not_made") == 2


def test_the_manifest_says_what_the_policy_goes_by(outcome: Outcome) -> None:
    figures = {one["variant"]: one for one in outcome.variants}
    found = {one.name: one for one in outcome.bundle.variants}
    assert list(found) == ["bf16", "int8", "int8-dynamic", "fp16"]
    for name, one in found.items():
        assert (one.accuracy_loss, one.file) == (figures[name]["accuracy_loss"], figures[name]["file"])
    assert (found["int8"].metric, found["int8"].rows) == ("accuracy", outcome.dataset["samples_test"])
    pace = figures["int8"]["texts_per_second"] / figures["fp32"]["texts_per_second"]
    assert found["int8"].pace == pytest.approx(pace, abs=0.01)
    assert found["fp16"].pace is None, "it was not measured on a GPU"


def test_a_trained_model_answers_in_the_variant_that_is_allowed(outcome: Outcome, home: Settings) -> None:
    lossless = tuple(dataclasses.replace(one, accuracy_loss=0.0, pace=2.0) for one in outcome.bundle.variants if one.name == "int8")
    said = {"objective": "text-classification", "labels": outcome.bundle.labels, "max_length": outcome.bundle.max_length}
    bundle = bundles.write_manifest(outcome.bundle.folder, **said, provenance={}, variants=lossless)
    publish(dataclasses.replace(outcome, bundle=bundle), ModelSave(path="models/birds"), home, LINEAGE)
    texts = ["the sparrow flies", "a trout swims in the river"]
    exact, quick = (models.load(ModelRef(name="birds", max_accuracy_loss=limit)) for limit in (None, 0.0))
    assert (exact.version.variant, quick.version.variant) == ("fp32", "int8")
    ours, theirs = (classifier.classify(each.model, texts, 4) for each in (exact, quick))
    assert ours != theirs
    for one, other in zip(ours, theirs, strict=True):
        assert {each.label: each.score for each in one.scores} == pytest.approx({each.label: each.score for each in other.scores}, abs=0.1)


def test_int8_has_ranges_of_training_rows_and_leaves_layers_that_narrow_in_float32(outcome: Outcome) -> None:
    graph = onnx.load(outcome.bundle.folder / FILES["int8"]).graph
    kinds = Counter(node.op_type for node in graph.node)
    assert kinds["QuantizeLinear"] > 0
    assert kinds["DynamicQuantizeLinear"] == 0, "its ranges are calibrated"
    narrow = quantization.narrowing(outcome.bundle.graph)
    assert narrow
    known = {each.name: each.data_type for each in graph.initializer}
    assert {known.get(node.input[1]) for node in graph.node if node.name in narrow} == {onnx.TensorProto.FLOAT}


def test_calibration_is_bounded_and_takes_rows_of_many_batches() -> None:
    batch = Batch(inputs={"input_ids": torch.zeros(100, 5, dtype=torch.long)}, targets=torch.zeros(100), tokens=500)
    asked = []

    def batches() -> Iterator[Batch]:
        for number in range(1000):
            asked.append(number)
            yield batch

    fed = [len(one["input_ids"]) for one in quantization.sampled(batches())]
    assert sum(fed) == quantization.ROWS
    assert max(fed) == quantization.SLICE
    assert len(asked) == quantization.ROWS // quantization.PER_BATCH


def test_a_beginning_of_the_rows_that_are_looked_at_is_a_fair_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    made = [Batch(inputs={"input_ids": torch.full((10, 1), number)}, targets=torch.zeros(10), tokens=10) for number in range(200)]
    task = SimpleNamespace(held_out=lambda: iter(made))
    monkeypatch.setattr(variants, "ROWS", 500)
    places = [int(batch.inputs["input_ids"][0, 0]) for batch in variants._chosen(task)]  # type: ignore[arg-type]
    assert len(places) == 50 == len(set(places))
    for few in (10, 20):
        assert 80 < sum(places[:few]) / few < 120, "it does not begin with the longest"


def test_the_catalog_shows_what_each_variant_loses(outcome: Outcome, home: Settings) -> None:
    entry = publish(outcome, ModelSave(path="models/birds"), home, LINEAGE)
    shown = {one.precision: one for one in variations(entry["card"]["figures"], [])}
    assert list(shown) == ["fp32", "bf16", "int8", "int8-dynamic", "fp16"]
    figures = {one["variant"]: one for one in outcome.variants}
    for name in ("int8", "int8-dynamic", "fp16"):
        assert (shown[name].accuracy_loss, shown[name].metric) == (figures[name]["accuracy_loss"], "accuracy")
        assert f"{figures[name]['accuracy_loss']:.4f}" in entry["card"]["markdown"]
    if "bf16" not in sessions.runnable():
        assert "not measured here" in str(shown["bf16"].note)
        assert "not measured here" in entry["card"]["markdown"]


def test_a_batch_whose_output_would_be_large_is_computed_in_parts_that_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, tokens, width = 5, 4, 10
    inputs = {"input_ids": torch.arange(rows * tokens).reshape(rows, tokens), "attention_mask": torch.ones(rows, tokens)}
    batch = Batch(inputs=inputs, targets=torch.arange(rows), tokens=rows * tokens, origins=tuple("abcde"))
    monkeypatch.setattr(variants, "OUTPUT_BYTES", 2 * tokens * width * 4)
    parts = list(variants._fitting(batch, width))
    assert [len(part.targets) for part in parts] == [2, 2, 1]
    assert torch.equal(torch.cat([part.inputs["input_ids"] for part in parts]), inputs["input_ids"])
    assert [one for part in parts for one in part.origins] == list("abcde")
    (whole,) = variants._fitting(dataclasses.replace(batch, targets=torch.arange(2)), width)
    assert whole.inputs is inputs, "pairs stay together"


def test_the_loss_curve_has_a_dot_for_each_point_of_the_history(outcome: Outcome) -> None:
    picture = ElementTree.fromstring(str(loss_curves(outcome.history)))
    dots = picture.findall(f".//{SVG}circle")
    assert len(dots) == len(outcome.history["steps"]) + len(outcome.history["validation_loss"])
    heights = [float(dot.attrib["cy"]) for dot in dots]
    losses = [*(point["loss"] for point in outcome.history["steps"]), *outcome.history["validation_loss"]]
    assert heights.index(min(heights)) == losses.index(max(losses)), "the highest dot is the largest loss"


def test_the_confusion_matrix_has_the_counts_of_the_evaluation(outcome: Outcome) -> None:
    counted = outcome.evaluation["confusion"]
    picture = ElementTree.fromstring(str(confusion_matrix(counted["labels"], counted["matrix"])))
    drawn = [int(str(each.text)) for each in picture.iter(f"{SVG}text") if each.attrib.get("font-size") == "9"]
    assert sorted(drawn) == sorted(count for row in counted["matrix"] for count in row if count)
    assert sum(drawn) == outcome.dataset["samples_test"]


def test_pictures_hold_for_any_label_and_number_of_classes_and_for_nothing_at_all() -> None:
    labels = [f"<&\"'\x00\x1b{number}" * 9 for number in range(SHOWN + 5)]
    matrix = [[int(row == column) * (row + 1) for column in range(len(labels))] for row in range(len(labels))]
    picture = ElementTree.fromstring(str(confusion_matrix(labels, matrix)))
    drawn = [int(str(each.text)) for each in picture.iter(f"{SVG}text") if each.attrib.get("font-size") == "9"]
    assert drawn == list(range(6, SHOWN + 6)), "the classes with the fewest rows are left out"
    assert confusion_matrix(["a"], [[0]]) is None
    assert loss_curves({}) is None


def test_neither_paths_of_the_machine_nor_texts_of_the_data_are_in_a_card(outcome: Outcome, table: Path, tmp_path: Path) -> None:
    card = describe(outcome, ModelSave(path="models/birds"), LINEAGE)
    whole = json.dumps([card.markdown, card.figures, *card.pictures.values()])
    for secret in (str(tmp_path), str(table.parent), str(Path.home()), "/tmp"):
        assert secret not in whole
    texts = {json.loads(line)["text"] for line in table.read_text().splitlines()}
    assert not [text for text in texts if text.strip() and text in whole]


def test_labels_stand_in_tables_as_they_are(outcome: Outcome) -> None:
    figures = {"precision": 1.0, "recall": 1.0, "f1": 0.25, "support": 12}
    per_class = {"a|b <img src=x> [NoSite]\n# c": figures, "rare": {**figures, "support": 1}}
    changed = dataclasses.replace(outcome, evaluation={**outcome.evaluation, "per_class": per_class})
    markdown = describe(changed, ModelSave(path="m"), LINEAGE).markdown
    shown = "a\\|b \\<img src=x\\> \\[NoSite\\] \\# c"
    assert f"| {shown} | 1.0000 |" in markdown
    assert f"- Classes with an F1 below 0.5: {shown}." in markdown
    assert "whose figures say little: rare." in markdown


@pytest.mark.parametrize(
    ("readme", "config", "expected"),
    [
        ("---\nlanguage: en\nlicense: Apache-2.0\n---\n# x", {}, "apache-2.0"),
        ("---\nlicense: 'cc-by-4.0'\n---\n", {"license": "mit"}, "cc-by-4.0"),
        ("# x\n\nlicense: mit\n", {}, None),
        ("---\nlanguage: en\n---\n", {"license": "MIT"}, "mit"),
        (None, {"license": {"id": "mit"}}, None),
        (None, {"license": "see /etc/passwd\n# x"}, None),
    ],
)
def test_the_licence_of_a_checkpoint_is_what_its_files_say(
    readme: str | None, config: dict[str, Any], expected: str | None, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    if readme is not None:
        (tmp_path / "README.md").write_text(readme)
    assert licence_of(tmp_path) == expected


def test_the_licence_is_the_request_s_then_the_base_model_s_and_else_unknown(outcome: Outcome) -> None:
    asked = describe(outcome, ModelSave(path="m", licence="EUPL-1.2"), LINEAGE)
    assert asked.figures["licence"] == {"id": "EUPL-1.2", "from": "request"}
    assert front_matter(asked.markdown)["license"] == "eupl-1.2"
    assert describe(outcome, ModelSave(path="m"), LINEAGE).figures["licence"] == {"id": "mit", "from": "base model"}
    nobody = describe(dataclasses.replace(outcome, provenance={}), ModelSave(path="m"), LINEAGE)
    assert nobody.figures["licence"]["id"] == "unknown"
    assert "Its licence is unknown" in nobody.markdown


def test_a_card_does_not_change_the_digest_and_the_same_content_again_is_the_same_version(outcome: Outcome, home: Settings) -> None:
    save = ModelSave(path="models/birds")
    first = publish(outcome, save, home, LINEAGE)
    assert first["digest"] == outcome.bundle.digest == bundles.open_bundle(outcome.bundle.folder).digest
    faster = tuple({**one, "texts_per_second": 1e9} for one in outcome.variants)
    again = publish(dataclasses.replace(outcome, variants=faster), save, home, LINEAGE)
    assert again == first
    folder = storage.fetch(first["path"], "local", settings=home)
    assert (folder / "README.md").read_text() == first["card"]["markdown"]
    bundles.verify(folder)


def test_every_picture_that_a_card_names_lies_beside_it(outcome: Outcome, home: Settings) -> None:
    entry = publish(outcome, ModelSave(path="models/birds"), home, LINEAGE)
    folder = storage.fetch(entry["path"], "local", settings=home)
    for name in ("pictures/loss.svg", "pictures/confusion.svg"):
        assert f"({name})" in entry["card"]["markdown"]
        ElementTree.parse(folder / name)


def said(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["catalog", "card", *arguments])


def test_the_command_line_shows_the_card_of_a_version_or_an_alias(outcome: Outcome, home: Settings) -> None:
    entry = publish(outcome, ModelSave(path="models/birds", licence="mit"), home, LINEAGE)
    Catalog(documents.shared(home)).publish("models", "birds", "another", {"card": {"markdown": "other", "figures": {}}})
    Catalog(documents.shared(home)).set_alias("models", "birds", "production", "1")
    assert said("birds", "--alias", "production", "--raw").stdout == entry["card"]["markdown"]
    assert said("birds", "--raw").stdout == "other"
    assert json.loads(said("birds", "--version", "1", "--json").stdout) == entry["card"]
    shown = said("birds", "--version", "1").stdout
    assert "Intended use" in shown
    assert "library_name" not in shown


def test_an_entry_without_a_card_says_what_to_do(home: Settings) -> None:
    Catalog(documents.shared(home)).publish("models", "old", "d1", {"objective": "masked-lm", "path": "old"})
    done = said("old")
    assert done.exit_code == 3
    assert "has no card" in done.stderr
    assert "mlaas catalog edit old --card" in done.stderr.replace("\n", " ")


def test_the_list_of_models_is_not_filled_with_cards(outcome: Outcome, home: Settings) -> None:
    publish(outcome, ModelSave(path="models/birds"), home, LINEAGE)
    listed = CliRunner().invoke(app, ["catalog", "--json"])
    assert json.loads(listed.stdout)["models"]["versions"][0]["name"] == "birds"
    assert "card" not in json.loads(listed.stdout)["models"]["versions"][0]


def test_an_export_has_a_card_that_claims_no_figures(home: Settings) -> None:
    write_checkpoint(home.artefacts / "checkpoint")
    entry = export_and_publish(ModelRef(path="checkpoint"), "no-objective", ModelSave(path="models/tiny"), home)
    card = entry["card"]
    assert card["figures"]["metrics"] == {}
    assert card["figures"]["lineage"]["base"]["digest"]
    assert "not evaluated here" in card["markdown"]
    assert "model-index" not in front_matter(card["markdown"])
    assert "over 4 rows" in card["markdown"]


def test_a_model_without_a_neural_network_has_a_card_too_but_no_variants(table: Path, tmp_path: Path) -> None:
    asked = asking()
    asked["model"], asked["model_train"] = {"architecture": "tfidf-linear", "objective": "text-classification"}, {"seed": 1}
    made = pipelines.train(parse(TrainRequest, asked), table, tmp_path / "out", lambda report: None)
    card = describe(made, ModelSave(path="m"), LINEAGE)
    assert card.figures["metrics"]["accuracy"] == made.evaluation["accuracy"]
    (only,) = card.figures["variants"]
    assert (only["variant"], only["bytes"]) == ("fp32", made.bundle.graph.stat().st_size)
    assert "tokens are read" not in card.markdown
    asked["model_save"]["variants"] = ["int8"]
    with pytest.raises(InvalidRequest, match="no smaller variants"):
        check_architecture(parse(TrainRequest, asked))


def test_the_card_of_a_search_says_how_the_settings_were_found(outcome: Outcome) -> None:
    name = "model_train.optimizer.init_lr"
    trials = [
        {"number": number, "state": state, "parameters": {name: number / 100}, "value": value}
        for number, state, value in [(1, "complete", 0.5), (2, "complete", 0.75), (3, "pruned", None), (4, "complete", 0.75)]
    ]
    search = {"trial": 2, "parameters": {name: 0.02}, "metric": "accuracy", "value": 0.75, "direction": "maximize"}
    found = dataclasses.replace(
        outcome, history={**outcome.history, "trials": trials}, search={**search, "trials": {"complete": 3, "pruned": 1}}
    )
    section = describe(found, ModelSave(path="models/birds"), LINEAGE).markdown.split("## Search\n")[1].split("\n## ")[0]
    assert "trial 2 of a search for the greatest `accuracy`; its trials: 3 complete, 1 pruned." in section
    assert [line.split(" | ")[0] for line in section.splitlines() if line.startswith("| ")] == ["| trial", "| 2", "| 4", "| 1"]
    assert "## Search" not in describe(outcome, ModelSave(path="models/birds"), LINEAGE).markdown
