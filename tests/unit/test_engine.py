"""The engine on tiny models, with the real ONNX Runtime."""

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import threading
import time
import warnings
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import onnxruntime
import pytest
from tokenizers import Tokenizer, processors

from mlaas import callers, classifier, engine, models, precision, provider_switch, sessions, timing
from mlaas.contracts import ModelRef
from mlaas.errors import InvalidRequest
from mlaas.settings import Settings
from mlaas.testing import tiny_models

TEXTS = ["INFN Frascati", "", "the cnaf at bologna in italy has dark matter " * 3, "Florence", "no known words here: xyz"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return tiny_models.classifier(tmp_path_factory.mktemp("classifier") / "model")


@pytest.fixture(scope="module")
def model(bundle):
    return engine.load(bundle)


def logits_of(model, texts):
    rows = {}
    for indices, values, _ in model.run(model.encode(texts)):
        rows.update(zip(indices, values, strict=True))
    return np.array([rows[index] for index in range(len(texts))])


def test_a_text_is_its_tokens_between_the_special_ones(model):
    (encoded,) = model.encode(["INFN Frascati"])
    assert [model.tokenizer.id_to_token(token) for token in encoded.ids] == ["[CLS]", "infn", "frascati", "[SEP]"]
    assert (encoded.truncated, encoded.offsets) == (False, [])


def test_offsets_are_character_ranges_also_after_letters_of_several_bytes(model):
    (encoded,) = model.encode(["Università di Firenze"], offsets=True)
    start, stop = encoded.offsets[-2]
    assert "Università di Firenze"[start:stop] == "Firenze"


@pytest.mark.parametrize("length", [3, 8, 9])
def test_a_text_is_cut_to_the_maximum_length_special_tokens_counted(bundle, length):
    model = engine.load(dataclasses.replace(bundle, max_length=length))
    fits, cut = model.encode(["infn " * (length - 2), "infn " * (length - 1)])
    assert (len(fits.ids), fits.truncated) == (length, False)
    assert (len(cut.ids), cut.truncated) == (length, True)
    assert model.tokenizer.id_to_token(cut.ids[-1]) == "[SEP]"


def test_padding_and_truncation_that_the_tokenizer_file_sets_are_not_followed(bundle, tmp_path):
    words = Tokenizer.from_file(str(bundle.tokenizer))
    words.enable_truncation(4)
    words.enable_padding(length=50)
    words.save(str(tmp_path / "tokenizer.json"))
    (encoded,) = engine.load(bundle, tokenizer=tmp_path / "tokenizer.json").encode(["infn " * 20])
    assert (len(encoded.ids), encoded.truncated) == (22, False)


def test_an_empty_text_is_one_padding_token_where_the_tokenizer_adds_none(bundle, tmp_path):
    words = tiny_models.wordpiece(["frascati"])
    words.post_processor = processors.TemplateProcessing(single="$A", pair="$A $B", special_tokens=[])
    words.save(str(tmp_path / "tokenizer.json"))
    model = engine.load(bundle, tokenizer=tmp_path)
    (encoded,) = model.encode([""])
    assert (encoded.ids, encoded.type_ids, encoded.truncated) == ([bundle.config["pad_token_id"]], [0], False)
    assert logits_of(model, [""]).shape == (1, 4)


def test_every_text_comes_back_once_and_no_batch_exceeds_the_token_budget(bundle):
    model = engine.load(bundle, token_budget=40)
    encoded = model.encode(TEXTS * 5)
    seen = []
    for indices, values, mask in model.run(encoded):
        assert mask.shape[0] == values.shape[0] == len(indices)
        assert mask.size <= 40
        assert mask.sum(axis=1).tolist() == [len(encoded[index].ids) for index in indices]
        seen += indices
    assert sorted(seen) == list(range(25))
    assert seen != sorted(seen)  # texts of like length go together


def test_a_text_longer_than_the_budget_is_a_batch_of_its_own(bundle):
    model = engine.load(bundle, token_budget=2)
    assert [len(indices) for indices, _, _ in model.run(model.encode(TEXTS))] == [1] * len(TEXTS)


def test_an_answer_does_not_depend_on_what_shares_its_batch(bundle, model):
    together = logits_of(model, TEXTS)
    alone = logits_of(engine.load(bundle, token_budget=1), TEXTS)
    np.testing.assert_array_equal(together, alone)


def test_a_wide_output_makes_batches_smaller(model, monkeypatch):
    wide = dataclasses.replace(model, outputs={"logits": ["batch", "length", 120_000]})
    assert model._budget("logits") == 1024
    assert wide._budget("logits") == engine.OUTPUT_BYTES // (4 * 120_000) < 1024


@pytest.mark.parametrize("inputs", [("input_ids", "attention_mask"), ("attention_mask", "position_ids", "input_ids", "token_type_ids")])
def test_the_graph_gets_the_inputs_that_it_declares_and_no_others(tmp_path, inputs):
    model = engine.load(tiny_models.classifier(tmp_path / "model", inputs=inputs))
    assert set(model.inputs) == set(inputs)
    assert classifier.classify(model, ["Frascati"])[0].label == "LNF"


def test_inputs_take_the_element_type_that_the_graph_declares(bundle, tmp_path):
    graph = onnx.load(bundle.graph)
    for node in graph.graph.input:
        node.type.tensor_type.elem_type = onnx.TensorProto.INT32
    onnx.save(graph, tmp_path / "model.onnx")
    model = engine.load(dataclasses.replace(bundle, graph=tmp_path / "model.onnx"))
    assert classifier.classify(model, ["Frascati"])[0].label == "LNF"


def test_a_graph_that_takes_something_else_than_text_is_refused(tmp_path):
    with pytest.raises(InvalidRequest, match="takes other inputs") as caught:
        engine.load(tiny_models.classifier(tmp_path / "model", inputs=("input_ids", "attention_mask", "pixel_values")))
    assert "input_ids" in caught.value.remedy


@pytest.mark.parametrize("damage", [b"", b"not a graph", None])
def test_a_damaged_graph_is_refused_without_saying_where_it_lies(bundle, tmp_path, damage):
    graph = tmp_path / "model.onnx"
    graph.write_bytes(bundle.graph.read_bytes()[:-200] if damage is None else damage)
    with pytest.raises(InvalidRequest, match="the model cannot be loaded: its ONNX graph") as caught:
        engine.load(dataclasses.replace(bundle, graph=graph))
    assert str(tmp_path) not in caught.value.detail + caught.value.remedy
    assert (caught.value.field, bool(caught.value.remedy)) == ("model", True)


def test_a_damaged_or_missing_tokenizer_is_refused_as_the_part_that_it_is(bundle, tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(InvalidRequest, match=r"the model cannot be loaded: its tokenizer\.json"):
        engine.load(dataclasses.replace(bundle, tokenizer=tmp_path / "tokenizer.json"))
    with pytest.raises(InvalidRequest, match="the tokenizer cannot be loaded") as caught:
        engine.load(bundle, tokenizer=tmp_path / "absent")
    assert caught.value.field == "tokenizer"


def test_a_maximum_length_without_room_for_a_text_is_refused(bundle):
    with pytest.raises(InvalidRequest, match="leaves no room"):
        engine.load(dataclasses.replace(bundle, max_length=2))


def test_another_tokenizer_is_used_in_place_of_the_models_own(bundle, tmp_path):
    words = tiny_models.wordpiece(["frascati"])
    words.save(str(tmp_path / "tokenizer.json"))
    model = engine.load(bundle, tokenizer=tmp_path)
    assert "[UNK]" not in {model.tokenizer.id_to_token(token) for token in model.encode(["frascati"])[0].ids}
    assert model.tokenizer.get_vocab_size() == words.get_vocab_size() < engine.load(bundle).tokenizer.get_vocab_size()


def test_a_tokenizer_with_more_tokens_than_the_model_knows_is_refused(bundle, tmp_path):
    tiny_models.wordpiece([f"word{chr(97 + i)}{chr(97 + j)}" for i in range(26) for j in range(26)]).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(InvalidRequest, match="more tokens than the model knows") as caught:
        engine.load(bundle, tokenizer=tmp_path)
    assert caught.value.field == "tokenizer"


def with_external_evidence(bundle, folder, location):
    """The bundle with its `evidence` matrix outside the graph, where `location` says."""
    graph = onnx.load(bundle.graph)
    tensor = next(tensor for tensor in graph.graph.initializer if tensor.name == "evidence")
    content = onnx.numpy_helper.to_array(tensor).tobytes()
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    tensor.external_data.add(key="length", value=str(len(content)))
    (folder / "bundle").mkdir()
    (folder / "bundle" / "model.onnx").write_bytes(graph.SerializeToString())
    return dataclasses.replace(bundle, folder=folder / "bundle", graph=folder / "bundle" / "model.onnx"), content


def test_external_data_beside_the_graph_are_read(bundle, tmp_path):
    moved, content = with_external_evidence(bundle, tmp_path, "model.onnx_data")
    (tmp_path / "bundle" / "model.onnx_data").write_bytes(content)
    assert classifier.classify(engine.load(moved), ["Frascati"])[0].label == "LNF"


@pytest.mark.parametrize("way_out", ["parent", "absolute", "link"])
def test_external_data_outside_the_bundle_are_refused(bundle, tmp_path, way_out):
    outside = tmp_path / "outside.bin"
    location = {"parent": "../outside.bin", "absolute": str(outside), "link": "link.bin"}[way_out]
    moved, content = with_external_evidence(bundle, tmp_path, location)
    outside.write_bytes(content)
    os.symlink(outside, tmp_path / "bundle" / "link.bin")
    with pytest.raises(InvalidRequest, match="the model cannot be loaded"):
        engine.load(moved)


@pytest.mark.parametrize(
    ("available", "flags", "variant", "names"),
    [
        ("CPU", "amx_bf16", "fp32", "CPU"),
        ("CUDA CPU", "", "fp32", "CUDA CPU"),
        ("CPU OpenVINO CUDA", "amx_bf16", "fp32", "CUDA OpenVINO CPU"),
        ("OpenVINO CPU", "amx_bf16", "fp32", "OpenVINO CPU"),
        ("OpenVINO CPU", "avx2 avx512f", "bf16", ""),
        ("OpenVINO CPU", "avx512_bf16", "bf16", "OpenVINO"),
        ("OpenVINO CPU", "amx_bf16", "bf16", "OpenVINO"),
        ("CPU", "amx_bf16", "bf16", ""),
        ("OpenVINO CPU", "amx_bf16", "int8", "CPU"),
        ("CUDA CPU", "", "int8", "CPU"),
        ("CUDA CPU", "", "fp16", "CUDA"),
        ("CPU", "", "fp16", ""),
    ],
)
def test_a_variant_is_computed_by_the_providers_that_compute_it(available, flags, variant, names):
    installed = [f"{name}ExecutionProvider" for name in available.split()]
    found = sessions.providers(installed, flags.split(), variant)
    assert [name.removesuffix("ExecutionProvider") for name, _ in found] == names.split()


@pytest.mark.parametrize(("variant", "hint"), [("fp32", "f32"), ("bf16", "bf16")])
def test_openvino_is_told_what_to_compute_in_by_the_json_text_itself(variant, hint):
    (_, settings), *_ = sessions.providers(["OpenVINOExecutionProvider"], {"amx_bf16"}, variant)
    assert json.loads(settings["load_config"])["CPU"]["INFERENCE_PRECISION_HINT"] == hint


def test_a_gpu_computes_float32_in_float32():
    assert sessions.providers(["CUDAExecutionProvider"], set())[0][1] == {"use_tf32": "0"}


def test_the_processors_flags_are_read_and_their_absence_means_none(tmp_path):
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: A\nflags\t\t: fpu amx_bf16 avx2\nflags\t\t: fpu\n")
    assert sessions.cpu_flags(tmp_path / "cpuinfo") == {"fpu", "amx_bf16", "avx2"}
    assert sessions.cpu_flags(tmp_path / "absent") == set()


def test_a_provider_that_does_not_load_gives_way_to_the_next(bundle, caplog):
    absent = ("NotInstalledExecutionProvider", {})
    with pytest.warns(UserWarning, match="NotInstalled"):
        session = sessions.open_session(bundle, 0, [absent, ("CPUExecutionProvider", {})])
    assert session.get_providers() == ["CPUExecutionProvider"]
    assert [record.message for record in caplog.records] in (["engine.provider_missing"], ["engine.provider_failed"])


@pytest.mark.parametrize(("candidates", "asked"), [([sessions.CPU], []), ([("CUDAExecutionProvider", {}), sessions.CPU], [""])])
def test_cudas_libraries_are_looked_for_among_the_packages_where_cuda_is_to_compute(bundle, candidates, asked, monkeypatch):
    directories = []
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda *, directory: directories.append(directory))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # this ONNX Runtime has no CUDA
        assert sessions.open_session(bundle, 0, candidates).get_providers() == ["CPUExecutionProvider"]
    assert directories == asked


def test_many_threads_get_the_answers_that_one_gets(model):
    alone = classifier.classify(model, TEXTS, 4)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: classifier.classify(model, TEXTS, 4), range(64)))
    assert all(answer == alone for answer in answers)


class Other:
    """A session that answers as another one does, with up to `error` added to each number of texts of `least` tokens or more."""

    def __init__(self, session, error, least=0):
        self.session, self.error, self.least, self.runs = session, np.float32(error), least, 0

    def run(self, names, feed):
        self.runs += 1
        error = self.error if feed["input_ids"].shape[1] >= self.least else 0
        return [values + np.linspace(0, error, values.shape[-1], dtype=np.float32) for values in self.session.run(names, feed)]

    def get_providers(self):
        return [OTHER]


OTHER = "OtherExecutionProvider"


def scores(answers):
    return [{one.label: one.score for one in answer.scores} for answer in answers]


def test_requests_that_run_while_a_model_moves_see_no_error_and_the_same_answers(bundle):
    model = engine.load(bundle)
    alone = scores(classifier.classify(model, TEXTS, 4))
    other = Other(model.session, 1e-5)

    def ask(_):
        answering = model.computing
        return answering.provider, scores(classifier.classify(answering, TEXTS, 4))

    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(ask, number) for number in range(100)]
        moving = pool.submit(provider_switch.move, model, lambda: time.sleep(0.05) or other, "fp32")
        while not moving.done():
            answers.append(pool.submit(ask, len(answers)))
            answers[-1].result()
        answers += [pool.submit(ask, number) for number in range(100)]
        assert moving.result()
    both = {
        provider: [found for who, found in (each.result() for each in answers) if who == provider] for provider in (model.provider, OTHER)
    }
    assert all(len(found) >= 90 for found in both.values()), "some were answered before, some after"
    assert all(found == alone for found in both[model.provider])
    for found in both[OTHER]:
        assert found != alone
        for given, expected in zip(found, alone, strict=True):
            assert given == pytest.approx(expected, abs=provider_switch.SAME)


@pytest.mark.skipif(precision.OPENVINO not in onnxruntime.get_available_providers(), reason="OpenVINO is not installed")
def test_a_cold_model_moves_to_openvino_in_float32_while_it_answers(bundle):
    exact = engine.load(bundle)
    exact = exact.on(sessions.open_session(bundle, 0, [sessions.CPU]), "fp32")
    with callers.caller(callers.Caller()):
        model = engine.load(bundle)
    assert model.provider == sessions.CPU[0]
    asked = [*TEXTS, " ".join(TEXTS * 9)]
    alone, seen, deadline = scores(classifier.classify(exact, asked, 4)), set(), time.monotonic() + 60
    while precision.OPENVINO not in seen and time.monotonic() < deadline:
        answering = model.computing
        seen.add(answering.provider)
        for given, expected in zip(scores(classifier.classify(answering, asked, 4)), alone, strict=True):
            assert given == pytest.approx(expected, abs=provider_switch.MARGIN)
    assert seen == {sessions.CPU[0], precision.OPENVINO}
    assert model.computing.variant == "fp32"


def test_a_request_ends_on_the_session_that_it_began_with(bundle):
    model = engine.load(bundle)
    began = model.computing
    assert provider_switch.move(model, lambda: Other(model.session, 1e-5), "fp32")
    assert (began.provider, model.computing.provider) == (model.provider, OTHER)
    assert scores(classifier.classify(began, TEXTS, 4)) != scores(classifier.classify(model.computing, TEXTS, 4))


@pytest.mark.parametrize(
    ("error", "least"),
    [
        (0.1, 0),
        (np.nan, 0),
        pytest.param(5e-3, 0, id="within 1e-3 of these probabilities, but not by so much that it would be for all"),
        pytest.param(0.1, 50, id="only for long texts"),
    ],
)
def test_a_model_stays_where_the_faster_session_gives_other_answers(bundle, error, least, caplog):
    model = engine.load(bundle)
    assert not provider_switch.move(model, lambda: Other(model.session, error, least), "fp32")
    assert model.computing is model
    assert [record.message for record in caplog.records if "moved" in record.message] == ["engine.not_moved"]


def test_a_model_moves_to_a_variant_with_other_answers_only_where_it_is_told_to_and_gives_numbers(bundle):
    model = engine.load(bundle)
    assert not provider_switch.move(model, lambda: Other(model.session, np.nan), "bf16")
    assert not provider_switch.move(model, lambda: Other(model.session, 5.0), "bf16")
    assert provider_switch.move(model, lambda: Other(model.session, 0.05), "bf16")
    assert (model.variant, model.computing.variant) == ("fp32", "bf16")


def test_a_model_stays_where_the_faster_session_cannot_be_opened(bundle):
    model = engine.load(bundle)
    with pytest.warns(UserWarning, match="NotInstalled"):
        assert not provider_switch.move(model, lambda: sessions.open_session(bundle, 0, [("NotInstalledExecutionProvider", {})]), "fp32")
    assert classifier.classify(model, ["Frascati"])[0].label == "LNF"


SLOW = ("SlowExecutionProvider", {})


@pytest.mark.parametrize(("variant", "exactly"), [("fp32", False), ("bf16", False), ("bf16", True)])
@pytest.mark.parametrize("waits", [True, False])
def test_only_where_a_caller_waits_does_a_model_answer_before_its_fastest_provider_is_ready(bundle, monkeypatch, waits, variant, exactly):
    asked, ready = [], threading.Event()
    first = sessions.open_session(bundle, 0, [sessions.CPU])
    monkeypatch.setattr(sessions, "providers", lambda *given: [SLOW] if given[2:] == ("bf16",) else [SLOW, sessions.CPU])

    def opened(_bundle, _threads, candidates, which="fp32"):
        asked.append((which, [each[0] for each in candidates]))
        if candidates == [sessions.CPU]:
            return first
        assert ready.wait(10) or not waits
        return Other(first, 1e-6)

    monkeypatch.setattr(sessions, "open_session", opened)
    later = waits and not exactly
    if not later:
        ready.set()
    with callers.caller(callers.Caller()) if waits else contextlib.nullcontext():
        model = engine.load(bundle, variant=variant, exactly=exactly)
    assert (model.provider, model.variant) == ((sessions.CPU[0], "fp32") if later else (OTHER, variant))
    ready.set()
    deadline = time.monotonic() + 10
    while model.computing.provider != OTHER and time.monotonic() < deadline:
        time.sleep(0.01)
    assert (model.computing.provider, model.computing.variant) == (OTHER, variant)
    assert asked == [("fp32", [sessions.CPU[0]]), (variant, [SLOW[0]])]


def test_a_faster_provider_is_opened_once_the_first_answer_is_computed_and_the_slower_one_is_given_up(bundle, monkeypatch):
    opened, cpu = [], sessions.open_session
    monkeypatch.setattr(sessions, "providers", lambda *given: [SLOW, sessions.CPU])

    def open_session(_bundle, threads, candidates, _variant="fp32"):
        opened.append(candidates[0][0])
        session = cpu(_bundle, threads, [sessions.CPU])
        return session if candidates == [sessions.CPU] else Other(session, 1e-6)

    monkeypatch.setattr(sessions, "open_session", open_session)
    asked, settings = ModelRef(path=bundle.folder.name), Settings(root=bundle.folder.parent)
    with callers.caller(callers.Caller()):
        first = weakref.ref(models.load(asked, settings=settings).model)
        time.sleep(0.1)
        assert opened == [sessions.CPU[0]]
    deadline = time.monotonic() + 10
    while models.load(asked, settings=settings).model.provider != OTHER and time.monotonic() < deadline:
        time.sleep(0.01)
    assert models.load(asked, settings=settings).model.provider == OTHER
    assert opened == [sessions.CPU[0], SLOW[0]]
    while first() is not None and time.monotonic() < deadline:  # the thread that moved it ends
        time.sleep(0.01)
    assert first() is None
    models.forget()


def test_what_answers_otherwise_answers_nobody_even_where_nobody_waits(bundle, monkeypatch):
    first = sessions.open_session(bundle, 0, [sessions.CPU])
    monkeypatch.setattr(sessions, "providers", lambda *given: [SLOW] if given[2:] == ("bf16",) else [SLOW, sessions.CPU])
    monkeypatch.setattr(
        sessions,
        "open_session",
        lambda _bundle, _threads, candidates, which="fp32": first if candidates == [sessions.CPU] else Other(first, 5.0),
    )
    for variant in ("fp32", "bf16"):
        model = engine.load(bundle, variant=variant)
        assert (model.provider, model.variant) == (sessions.CPU[0], "fp32")
    with pytest.raises(InvalidRequest, match="computes something else"):
        engine.load(bundle, variant="bf16", exactly=True)


def test_fp32_answers_where_a_variant_that_may_answer_cannot_be_loaded_and_nothing_where_it_must(bundle, monkeypatch):
    monkeypatch.setattr(sessions, "providers", lambda *given: [SLOW] if given[2:] else [sessions.CPU])
    with pytest.warns(UserWarning, match="Slow"):
        model = engine.load(bundle, variant="bf16")
    assert (model.variant, classifier.classify(model, ["Frascati"])[0].label) == ("fp32", "LNF")
    with pytest.warns(UserWarning, match="Slow"), pytest.raises(InvalidRequest, match="cannot be loaded"):
        engine.load(bundle, variant="bf16", exactly=True)


def test_vectors_are_compared_at_length_one(tmp_path):
    model = engine.load(tiny_models.embedder(tmp_path / "model"))
    assert provider_switch.move(model, lambda: Other(model.session, 0), "fp32")


def test_loading_tokenizing_and_inference_are_timed(bundle):
    with timing.record() as spans:
        engine.load(bundle).warm_up()
    assert set(spans) == {"load", "tokenize", "infer"}
    assert all(seconds > 0 for seconds in spans.values())


def test_importing_the_capabilities_loads_no_heavy_library():
    modules = ", ".join(f"mlaas.{name}" for name in ("engine", "classifier", "mask_filler", "embedder", "vector_store", "datasets"))
    script = f"import sys, {modules}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout.split()
    assert {"onnxruntime", "tokenizers", "faiss", "pyarrow", "torch", "transformers", "onnx"}.isdisjoint(loaded)
    assert "mlaas.engine" in loaded
