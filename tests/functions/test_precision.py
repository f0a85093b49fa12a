"""Which variant of a model answers: fp32 unless a request or the platform says what may be lost, and never without saying so."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from mlaas import bundles, classifier, embedder, engine, events, indexing, jobs, models, settings, storage
from mlaas.catalog import Catalog
from mlaas.contracts import ClassifyRequest, IndexRequest, ModelRef, SearchRequest, TrainRequest, VectorStoreRef, parse
from mlaas.documents import shared
from mlaas.errors import InvalidRequest
from mlaas.precision import FILES, Variant, choose, pinned, read, runnable
from mlaas.settings import BadSetting, Settings
from mlaas.tasks import Tasks
from mlaas.testing import tiny_models

Client = Callable[[str], Any]
TEXT = "INFN Frascati"
SHIFT = 0.5


def with_int8(bundle: bundles.Bundle, **measured: Any) -> bundles.Bundle:
    """The bundle with a variant int8 whose first weights are other ones, so that its answers are known from those of fp32."""
    graph = onnx.load(bundle.graph)
    for tensor in graph.graph.initializer:
        if tensor.name in ("bias", "vectors"):
            values = onnx.numpy_helper.to_array(tensor).copy()
            values[..., 0] += SHIFT
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    (bundle.folder / "variants").mkdir()
    onnx.save(graph, bundle.folder / FILES["int8"])
    said = {"objective": bundle.objective, "labels": bundle.labels, "pooling": bundle.pooling, "normalize": bundle.normalize}
    variant = Variant(name="int8", file=FILES["int8"], metric="accuracy", rows=1000, **{"accuracy_loss": 0.01, "pace": 2.0, **measured})
    return bundles.write_manifest(bundle.folder, **said, max_length=bundle.max_length, provenance={}, variants=[variant])


@pytest.fixture
def published(home: Settings, tmp_path: Path) -> Settings:
    """The home, where the classifier `quick` and the embedder `vectors` have a variant int8."""
    made = {"quick": tiny_models.classifier(tmp_path / "quick"), "vectors": tiny_models.embedder(tmp_path / "vectors")}
    for name, bundle in made.items():
        changed = with_int8(bundle)
        path = storage.publish(changed.folder, f"models/{name}-{tmp_path.name}", "local", changed.digest[:16], settings=home)
        entry = {"path": path, "storage_type": "local", "objective": changed.objective}
        Catalog(shared(home)).publish("models", name, changed.digest, entry)
    return home


def classified(client_of: Client, **model: Any) -> Any:
    request = {"model": {"name": "quick", **model}, "predict_input": {"input_text": [TEXT]}, "top_k": 4}
    return client_of("classify").post("/", json=request)


def answered_by(answer: Any) -> tuple[str, str]:
    assert answer.status_code == 200, answer.json
    return answer.json["model"]["variant"], answer.json["model"]["provider"]


@pytest.mark.parametrize(
    ("asked", "variant"),
    [
        ({}, "fp32"),
        ({"max_accuracy_loss": 0}, "fp32"),
        ({"max_accuracy_loss": 0.0099}, "fp32"),
        ({"max_accuracy_loss": 0.01}, "int8"),
        ({"max_accuracy_loss": 1}, "int8"),
        ({"variant": "int8"}, "int8"),
        ({"variant": "fp32"}, "fp32"),
    ],
)
def test_the_answer_is_that_of_the_variant_which_it_names(
    client_of: Client, published: Settings, asked: dict[str, Any], variant: str
) -> None:
    answer = classified(client_of, **asked)
    assert answered_by(answer) == (variant, "CPUExecutionProvider")
    folder = storage.fetch(Catalog(shared()).resolve("models", "quick")["path"], "local", settings=published)
    expected = classifier.classify(engine.load(bundles.open_bundle(folder), variant=variant), [TEXT], 4)
    assert answer.json["predictions"][0] == expected[0].model_dump()


def test_variants_differ_and_only_the_chosen_one_is_loaded(client_of: Client, published: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []
    real = engine.load

    def load(bundle: bundles.Bundle, **given: Any) -> engine.Model:
        loaded.append(given["variant"])
        return real(bundle, **given)

    monkeypatch.setattr(engine, "load", load)
    quick = classified(client_of, max_accuracy_loss=0.05)
    assert loaded == ["int8"]
    exact = classified(client_of)
    assert loaded == ["int8", "fp32"]
    assert quick.json["predictions"] != exact.json["predictions"]
    assert quick.json["model"]["digest"] == exact.json["model"]["digest"]


def test_the_platform_has_a_policy_which_a_request_overrides(
    client_of: Client, published: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLAAS_MAX_ACCURACY_LOSS", "0.02")
    settings.current.cache_clear()
    assert answered_by(classified(client_of))[0] == "int8"
    assert answered_by(classified(client_of, max_accuracy_loss=0))[0] == "fp32"
    assert answered_by(classified(client_of, variant="fp32"))[0] == "fp32"


@pytest.mark.parametrize("text", ["-0.1", "1.5", "nan", "inf", "much"])
def test_a_platform_whose_policy_is_no_share_does_not_start(text: str) -> None:
    with pytest.raises(BadSetting, match="MLAAS_MAX_ACCURACY_LOSS"):
        settings.load({"MLAAS_MAX_ACCURACY_LOSS": text})


def test_a_model_without_variants_answers_in_fp32_and_says_so(client_of: Client, home: Settings) -> None:
    request = {"model": {"name": "infn-structures", "max_accuracy_loss": 0.5}, "predict_input": {"input_text": [TEXT]}}
    assert answered_by(client_of("classify").post("/", json=request)) == ("fp32", "CPUExecutionProvider")


@pytest.mark.parametrize(
    ("asked", "field", "said"),
    [
        ({"max_accuracy_loss": -0.1}, "model.max_accuracy_loss", "greater than or equal to 0"),
        ({"max_accuracy_loss": 2}, "model.max_accuracy_loss", "less than or equal to 1"),
        ({"max_accuracy_loss": math.nan}, "model.max_accuracy_loss", "finite"),
        ({"max_accuracy_loss": "little"}, "model.max_accuracy_loss", "valid number"),
        ({"variant": "int4"}, "model.variant", "'fp32', 'bf16', 'int8', 'int8-dynamic' or 'fp16'"),
        ({"variant": "int8", "max_accuracy_loss": 0.1}, "model", "either `variant` or `max_accuracy_loss`"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_its_field(asked: dict[str, Any], field: str, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said) as caught:
        parse(ClassifyRequest, {"model": {"name": "quick", **asked}, "predict_input": {"input_text": [TEXT]}})
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("name", "variant", "said"),
    [
        ("quick", "fp16", "no variant fp16: it has fp32, bf16, int8"),
        ("infn-structures", "int8", "no variant int8: it has fp32, bf16"),
        ("physics-writer", "bf16", "no variant bf16: it has fp32"),
        ("quick", "bf16", "needs OpenVINO and a processor that computes in bfloat16"),
    ],
)
def test_a_variant_that_is_not_there_or_not_for_this_machine_is_refused_by_name(
    published: Settings, monkeypatch: pytest.MonkeyPatch, name: str, variant: str, said: str
) -> None:
    monkeypatch.setattr("mlaas.sessions.runnable", lambda: ("int8",))
    with pytest.raises(InvalidRequest, match=said) as caught:
        models.load(ModelRef(name=name, variant=variant))
    assert caught.value.field == "model.variant"
    assert caught.value.remedy


def test_what_is_trained_has_no_variant_and_an_index_only_a_named_one() -> None:
    model = {"path": "tiny", "objective": "text-classification", "variant": "int8"}
    with pytest.raises(InvalidRequest, match="not a field of this request"):
        parse(TrainRequest, {"model": model, "dataset": {"path": "a.csv"}, "model_save": {"path": "m"}})
    index = {"dataset": {"path": "a.csv"}, "vector_store_save": {"path": "i"}}
    with pytest.raises(InvalidRequest, match="embedded by one variant") as caught:
        parse(IndexRequest, {"model": {"name": "m", "max_accuracy_loss": 0.1}, **index})
    assert caught.value.field == "model"
    assert parse(IndexRequest, {"model": {"name": "m", "variant": "int8"}, **index}).model.variant == "int8"


ONE = Variant(name="int8", file="a", metric="accuracy", accuracy_loss=0.01, rows=10, pace=2.0)
CUDA, OPENVINO = "CUDAExecutionProvider", "OpenVINOExecutionProvider"


@pytest.mark.parametrize(
    ("changes", "limit", "here", "chosen"),
    [
        ({}, 0.01, ("int8",), "int8"),
        ({}, 0.01, ("fp16",), "fp32"),
        ({}, 0.01, ("bf16", "int8"), "int8"),
        ({"accuracy_loss": None}, 1.0, ("int8",), "fp32"),
        ({"accuracy_loss": -0.002}, 0.0, ("int8",), "int8"),
        ({"pace": 0.9}, 1.0, ("int8",), "fp32"),
        ({"pace": None}, 1.0, ("int8",), "int8"),
        ({}, None, ("int8",), "fp32"),
    ],
)
def test_the_policy_takes_the_fastest_that_was_measured_to_lose_no_more(
    changes: dict[str, Any], limit: float | None, here: tuple[str, ...], chosen: str
) -> None:
    known = Variant(**{**ONE.table(), **changes})
    assert choose([known], limit, here) == chosen


def test_of_several_the_fastest_is_taken_and_of_equals_the_first_in_the_order_of_this_machine() -> None:
    both = [ONE, Variant(**{**ONE.table(), "name": "bf16", "accuracy_loss": 0.001})]
    here = runnable([OPENVINO, "CPUExecutionProvider"], ["avx512_bf16"])
    assert here == ("bf16", "int8-dynamic", "int8")
    assert (choose(both, 0.02, here), choose(both, 0.0005, here)) == ("bf16", "fp32")
    dynamic = Variant(**{**ONE.table(), "name": "int8-dynamic", "pace": 2.5})
    assert (choose([*both, dynamic], 0.02, here), choose([*both, dynamic], 0.005, here)) == ("int8-dynamic", "bf16")
    assert choose(both, 0.02, runnable([OPENVINO], ["avx2"])) == "int8"
    assert choose(both, 0.02, runnable([CUDA, OPENVINO], ["avx512_bf16"])) == "fp32"
    assert pinned("int8", both, bf16=True, here=("fp16",)) == "int8", "it is computed by the CPU beside a GPU"


@pytest.mark.parametrize(
    "change",
    [
        {"name": "fp32"},
        {"name": "int4"},
        {"file": "other"},
        {"accuracy_loss": math.nan},
        {"accuracy_loss": "0"},
        {"rows": None},
        {"more": 1},
    ],
)
def test_variants_of_a_manifest_that_cannot_be_meant_are_refused(change: dict[str, Any], tmp_path: Path) -> None:
    assert read([{**ONE.table(), **change}], ["a"]) is None
    assert read([ONE.table()], ["a"]) == (ONE,)
    assert read([ONE.table()] * 2, ["a"]) is None


def test_a_bundle_says_what_its_variants_cost_and_a_broken_say_is_refused(tmp_path: Path) -> None:
    bundle = with_int8(tiny_models.classifier(tmp_path / "model"), accuracy_loss=0.25)
    (found,) = bundles.open_bundle(bundle.folder).variants
    assert (found.accuracy_loss, found.file, bundle.graph_of("int8")) == (0.25, FILES["int8"], bundle.folder / FILES["int8"])
    manifest = bundle.folder / "manifest.json"
    manifest.write_text(manifest.read_text().replace("0.25", '"little"'))
    with pytest.raises(InvalidRequest, match="`variants` are not ones"):
        bundles.open_bundle(bundle.folder)


def test_a_bundle_that_was_made_before_there_were_variants_opens(tmp_path: Path) -> None:
    bundle = tiny_models.classifier(tmp_path / "model")
    manifest = bundle.folder / "manifest.json"
    manifest.write_text(manifest.read_text().replace(' "variants": [],\n', ""))
    assert "variants" not in manifest.read_text()
    assert bundles.open_bundle(bundle.folder).variants == ()


def build(request: dict[str, Any], home: Settings) -> None:
    task = str(indexing.accept(parse(IndexRequest, request), events.new("index", request), False)["subject"])
    run = Tasks(shared()).begin(task)
    assert run
    indexing.build(jobs.Job(run, Tasks(shared()), home))


def indexed(home: Settings, name: str, **model: Any) -> VectorStoreRef:
    (home.artefacts / "few.jsonl").write_text('{"text": "dark matter interacts through gravity"}\n{"text": "the higgs boson"}\n')
    request = {"model": {"name": "vectors", **model}, "dataset": {"path": "few.jsonl"}, "vector_store_save": {"path": f"indexes/{name}"}}
    build(request, home)
    return VectorStoreRef(name=name)


def searched(client_of: Client, store: VectorStoreRef, **model: Any) -> Any:
    more = {"model": {"name": "vectors", **model}} if model else {}
    request = {"dataset": store.model_dump(exclude_none=True), "search_input": {"input_text": ["dark matter"]}, **more}
    parse(SearchRequest, request)
    answer = client_of("search").post("/", json=request).json
    return answer["index"]["variant"], answer["model"]["variant"], answer["results"][0][0]["score"]


def test_an_index_is_searched_by_the_variant_that_embedded_it_unless_the_request_says_otherwise(
    client_of: Client, published: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLAAS_MAX_ACCURACY_LOSS", "1")
    settings.current.cache_clear()
    exact, quick = indexed(published, "exact"), indexed(published, "quick", variant="int8")
    scores: dict[tuple[str, str], set[float]] = {}
    for store, asked in [(exact, {}), (quick, {}), (exact, {"objective": "no-objective"}), (exact, {"variant": "int8"}),
                         (exact, {"max_accuracy_loss": 0.5}), (quick, {"variant": "fp32"})]:  # fmt: skip
        index, model, score = searched(client_of, store, **asked)
        scores.setdefault((index, model), set()).add(score)
    assert set(scores) == {("fp32", "fp32"), ("int8", "int8"), ("fp32", "int8"), ("int8", "fp32")}, "and each answer says so"
    assert all(len(found) == 1 for found in scores.values())
    assert len({score for found in scores.values() for score in found}) == 4


def test_an_update_by_another_variant_embeds_everything_again(published: Settings) -> None:
    indexed(published, "moved")
    (published.artefacts / "more.jsonl").write_text('{"text": "neutrinos have mass", "id": "9"}\n')
    request = {"model": {"name": "vectors", "variant": "int8"}, "vector_store_save": {"path": "indexes/moved"}, "update": {},
               "dataset": {"path": "more.jsonl", "loader_kwargs": {"id_column": "id"}}}  # fmt: skip
    build(request, published)
    store = models.load_store(VectorStoreRef(name="moved")).store
    loaded = models.load(ModelRef(name="vectors", variant="int8"))
    texts = [document.text for document in store.head(10)]
    assert (store.manifest.variant, len(texts)) == ("int8", 3)
    near = store.search(embedder.embed(loaded.model, texts)[0], 1)
    assert np.allclose([found[0].score for found in near], 0, atol=1e-3), "each is found where int8 has put it"
