import hashlib
import json
import os
import time
import typing
from pathlib import Path
from typing import Any

import pytest

from mlaas import contracts
from mlaas.bundles import open_bundle, reopen_bundle, verify, write_manifest
from mlaas.errors import InvalidRequest
from mlaas.objectives import OBJECTIVES

GRAPH = b"onnx graph"


def write(folder: Path, files: dict[str, Any]) -> Path:
    for name, content in files.items():
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return folder


@pytest.fixture
def made(tmp_path: Path) -> Path:
    files = {"model.onnx": GRAPH, "tokenizer.json": {"added_tokens": [{"content": "[MASK]"}]}, "config.json": {"model_type": "bert"}}
    return write(tmp_path / "made", files)


def sealed(folder: Path, **changes: Any) -> None:
    given: dict[str, Any] = {"objective": "text-classification", "labels": ["LNF", "FI"], "max_length": 128, "provenance": {"task": "t1"}}
    write_manifest(folder, **{**given, **changes})


def repository(folder: Path, config: dict[str, Any], graph: str = "onnx/model.onnx", **files: Any) -> Path:
    named = {name.replace("__", "/") + ".json": content for name, content in files.items()}
    return write(folder, {graph: GRAPH, "tokenizer.json": {}, "config.json": config, **named})


def test_a_written_bundle_opens_with_everything_that_was_said_about_it(made: Path) -> None:
    sealed(made, objective="no-objective", labels=(), pooling="mean", normalize=True)
    bundle = open_bundle(made)
    assert (bundle.objective, bundle.labels, bundle.pooling, bundle.normalize, bundle.max_length) == ("no-objective", (), "mean", True, 128)
    assert (bundle.graph, bundle.tokenizer, bundle.mask_token) == (made / "model.onnx", made / "tokenizer.json", "[MASK]")
    assert (bundle.provenance, bundle.config) == ({"task": "t1"}, {"model_type": "bert"})
    verify(made)


def test_labels_keep_their_order(made: Path) -> None:
    sealed(made, labels=["Z", "A", "[NoSite]"])
    assert open_bundle(made).labels == ("Z", "A", "[NoSite]")


def test_the_digest_is_the_sha256_over_the_names_and_hashes_of_the_files(made: Path) -> None:
    sealed(made)
    names = ("config.json", "model.onnx", "tokenizer.json")
    hashes = {name: hashlib.sha256((made / name).read_bytes()).hexdigest() for name in names}
    assert open_bundle(made).digest == hashlib.sha256(json.dumps(hashes, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def test_the_same_files_have_the_same_digest_in_both_layouts_and_other_files_another(made: Path) -> None:
    as_repository = open_bundle(made).digest
    sealed(made)
    assert open_bundle(made).digest == as_repository
    (made / "model.onnx").write_bytes(b"other")
    sealed(made)
    assert open_bundle(made).digest != as_repository


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json", "config.json"])
def test_a_missing_or_truncated_file_is_refused_by_its_name(made: Path, name: str) -> None:
    sealed(made)
    content = (made / name).read_bytes()
    (made / name).write_bytes(content[:-1])
    with pytest.raises(InvalidRequest, match=f"`{name}` has {len(content) - 1} bytes"):
        open_bundle(made)
    (made / name).unlink()
    with pytest.raises(InvalidRequest, match=f"`{name}`"):
        open_bundle(made)


def test_verify_finds_a_changed_byte_that_opening_does_not(made: Path) -> None:
    sealed(made)
    (made / "model.onnx").write_bytes(b"onnx grapH")
    open_bundle(made)
    with pytest.raises(InvalidRequest, match=r"`model\.onnx` does not have the sha256"):
        verify(made)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"format": "other"}, "format"),
        ({"version": 2}, "version"),
        ({"version": True}, "version"),
        ({"objective": "sorcery"}, "objective"),
        ({"labels": "LNF"}, "labels"),
        ({"labels": [1]}, "labels"),
        ({"pooling": "max"}, "pooling"),
        ({"normalize": 1}, "normalize"),
        ({"max_length": 0}, "max_length"),
        ({"max_length": "128"}, "max_length"),
        ({"mask_token": 5}, "mask_token"),
        ({"provenance": None}, "provenance"),
        ({"files": []}, "files"),
        ({"files": {}}, "config.json|model.onnx|tokenizer.json"),
        ({"files": {"../../etc/passwd": {"size": 1, "sha256": "0" * 64}}}, "outside"),
        ({"files": {"/etc/passwd": {"size": 1, "sha256": "0" * 64}}}, "outside"),
        ({"files": {"model.onnx": {"size": -1, "sha256": "0" * 64}}}, "size"),
        ({"files": {"model.onnx": {"size": 1, "sha256": "0"}}}, "sha256"),
        ({"files": {"model.onnx": 3}}, "size"),
    ],
)
def test_a_manifest_with_an_entry_that_is_not_as_it_must_be_is_refused(made: Path, changes: dict[str, Any], named: str) -> None:
    sealed(made)
    manifest = json.loads((made / "manifest.json").read_text())
    (made / "manifest.json").write_text(json.dumps({**manifest, **changes}))
    with pytest.raises(InvalidRequest, match=named):
        open_bundle(made)
    with pytest.raises(InvalidRequest, match=named):
        verify(made)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000, "\xff"])
def test_a_manifest_that_is_no_json_object_is_refused(made: Path, text: str) -> None:
    (made / "manifest.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(InvalidRequest, match=r"manifest\.json"):
        open_bundle(made)


def test_writing_refuses_what_could_not_be_opened_again(made: Path) -> None:
    with pytest.raises(InvalidRequest, match="max_length"):
        sealed(made, max_length=0)
    (made / "model.onnx").unlink()
    with pytest.raises(InvalidRequest, match=r"model\.onnx"):
        sealed(made)
    assert not (made / "manifest.json").exists()


def test_a_folder_that_is_no_bundle_is_refused_with_what_it_lacks_and_the_remedy(tmp_path: Path) -> None:
    checkpoint = write(tmp_path, {"config.json": {}, "tokenizer.json": {}, "model.safetensors": b""})
    with pytest.raises(InvalidRequest, match=r"model\.onnx") as caught:
        open_bundle(checkpoint)
    assert "mlaas export" in (caught.value.remedy or "")
    assert str(tmp_path) not in caught.value.detail
    write(tmp_path, {"model.onnx": GRAPH})
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(InvalidRequest, match=r"lacks `tokenizer\.json`"):
        open_bundle(tmp_path)


def test_links_that_leave_the_folder_are_refused_in_both_layouts(made: Path, tmp_path: Path) -> None:
    sealed(made)
    (tmp_path / "elsewhere").write_bytes(GRAPH)
    (made / "model.onnx").unlink()
    (made / "model.onnx").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InvalidRequest, match=r"`model\.onnx` is a link"):
        open_bundle(made)
    (made / "manifest.json").unlink()
    with pytest.raises(InvalidRequest, match=r"`model\.onnx` is a link"):
        open_bundle(made)
    with pytest.raises(InvalidRequest, match="link"):
        sealed(made)


def test_the_links_of_a_snapshot_in_the_hub_s_cache_are_followed_to_its_blobs(tmp_path: Path) -> None:
    snapshot = repository(tmp_path / "models--o--n" / "snapshots" / "abc", {}, "model.onnx")
    (tmp_path / "models--o--n" / "blobs").mkdir()
    os.rename(snapshot / "model.onnx", tmp_path / "models--o--n" / "blobs" / "b1")
    (snapshot / "model.onnx").symlink_to("../../blobs/b1")
    assert open_bundle(snapshot).graph.read_bytes() == GRAPH


@pytest.mark.parametrize(
    ("architecture", "objective"),
    [
        ("BertForSequenceClassification", "text-classification"),
        ("RobertaForMaskedLM", "masked-lm"),
        ("BertForTokenClassification", "token-classification"),
        ("BertForQuestionAnswering", "question-answering"),
        ("LlamaForCausalLM", "causal-lm"),
        ("BertModel", "no-objective"),
    ],
)
def test_a_repository_s_objective_is_that_of_its_architecture(tmp_path: Path, architecture: str, objective: str) -> None:
    assert open_bundle(repository(tmp_path, {"architectures": [architecture]})).objective == objective


def test_the_objectives_are_those_of_the_contract() -> None:
    assert set(OBJECTIVES) == set(typing.get_args(contracts.Objective))


def test_a_repository_s_labels_are_in_the_order_of_their_indices(tmp_path: Path) -> None:
    config = {"architectures": ["BertForSequenceClassification"], "id2label": {str(index): f"L{index}" for index in (10, *range(10))}}
    assert open_bundle(repository(tmp_path, config)).labels == tuple(f"L{index}" for index in range(11))
    config["id2label"] = {"0": "a", "2": "b"}
    with pytest.raises(InvalidRequest, match="id2label"):
        open_bundle(repository(tmp_path, config))
    del config["id2label"]
    assert open_bundle(repository(tmp_path, config)).labels == ("LABEL_0", "LABEL_1")


def test_a_masked_model_has_no_labels_though_its_configuration_lists_some(tmp_path: Path) -> None:
    config = {"architectures": ["BertForMaskedLM"], "id2label": {"0": "LABEL_0"}}
    assert open_bundle(repository(tmp_path, config)).labels == ()


def test_sentence_transformers_pooling_normalisation_and_length_are_read(tmp_path: Path) -> None:
    kinds = ("Transformer", "Pooling", "Normalize")
    modules = [{"type": f"sentence_transformers.models.{kind}", "path": f"{n}_{kind}" if n else ""} for n, kind in enumerate(kinds)]
    pooling = {"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}
    folder = repository(
        tmp_path,
        {"max_position_embeddings": 512},
        modules=modules,
        **{"1_Pooling__config": pooling, "sentence_bert_config": {"max_seq_length": 256}, "tokenizer_config": {"model_max_length": 512}},
    )
    bundle = open_bundle(folder)
    assert (bundle.pooling, bundle.normalize, bundle.max_length) == ("mean", True, 256)
    write(folder, {"1_Pooling/config.json": {"pooling_mode_cls_token": True}, "modules.json": modules[:2]})
    again = open_bundle(folder)
    assert (again.pooling, again.normalize) == ("cls", False)
    assert again.digest != bundle.digest


@pytest.mark.parametrize(
    ("modules", "pooling"),
    [
        ([{"type": "x.Pooling", "path": "p"}], {"pooling_mode_max_tokens": True}),
        ([{"type": "x.Pooling", "path": "p"}], {"pooling_mode_max_tokens": True, "pooling_mode_mean_tokens": True}),
        ([{"type": "x.Pooling", "path": "../p"}], {"pooling_mode_mean_tokens": True}),
        ([{"type": "x.Transformer", "path": ""}, {"type": "x.Dense", "path": "2_Dense"}], {}),
        ({"not": "a list"}, {}),
    ],
)
def test_modules_that_are_not_served_are_refused_rather_than_left_out(tmp_path: Path, modules: Any, pooling: dict[str, bool]) -> None:
    with pytest.raises(InvalidRequest):
        open_bundle(repository(tmp_path, {}, modules=modules, p__config=pooling))


@pytest.mark.parametrize(
    ("config", "tokenizer", "length"),
    [
        ({"model_type": "bert", "max_position_embeddings": 512}, 1e30, 512),
        ({"model_type": "roberta", "max_position_embeddings": 514}, 1e30, 512),
        ({"model_type": "longformer", "max_position_embeddings": 4098}, 4096, 4096),
        ({"model_type": "bert", "max_position_embeddings": 512}, 128, 128),
        ({"model_type": "bert", "max_position_embeddings": -1}, None, 512),
        ({"model_type": "gpt2", "n_positions": 1024}, None, 1024),
    ],
)
def test_the_maximum_is_the_smallest_that_is_said_and_absurd_ones_are_ignored(
    tmp_path: Path, config: dict[str, Any], tokenizer: float | None, length: int
) -> None:
    assert open_bundle(repository(tmp_path, config, tokenizer_config={"model_max_length": tokenizer})).max_length == length


@pytest.mark.parametrize(
    ("files", "token"),
    [
        ({"tokenizer_config": {"mask_token": "<mask>"}}, "<mask>"),
        ({"tokenizer_config": {"mask_token": {"content": "<m>"}}}, "<m>"),
        ({"special_tokens_map": {"mask_token": "[M]"}}, "[M]"),
        ({"tokenizer_config": {"mask_token": None}}, None),
    ],
)
def test_the_mask_token_is_found_where_the_tokenizer_s_files_name_it(tmp_path: Path, files: dict[str, Any], token: str | None) -> None:
    assert open_bundle(repository(tmp_path, {}, **files)).mask_token == token


def test_the_graph_in_the_onnx_folder_is_preferred_and_its_external_data_belong_to_the_digest(tmp_path: Path) -> None:
    folder = repository(tmp_path, {})
    write(folder, {"model.onnx": b"another", "onnx/model_quantized.onnx": b"q", "pytorch_model.bin": b"p"})
    before = open_bundle(folder)
    write(folder, {"onnx/model_quantized.onnx": b"r", "pytorch_model.bin": b"r"})
    assert before.graph == folder / "onnx" / "model.onnx"
    assert open_bundle(folder).digest == before.digest
    write(folder, {"onnx/model.onnx_data": b"weights"})
    assert open_bundle(folder).digest != before.digest


def test_a_repository_s_files_are_hashed_once_until_they_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = repository(tmp_path, {})
    first = open_bundle(folder).digest
    read: list[str] = []
    real = hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda file, name: read.append(Path(file.name).name) or real(file, name))
    assert open_bundle(folder).digest == first
    assert read == []
    (folder / "onnx" / "model.onnx").write_bytes(b"changed graph")
    assert open_bundle(folder).digest != first
    assert read == ["model.onnx"]


def test_opening_our_own_layout_takes_about_a_millisecond(made: Path) -> None:
    write(made, {"model.onnx": b"x" * 50_000_000})
    sealed(made)
    best = min(_seconds(made) for _ in range(20))
    assert best < 0.005  # 0.2 ms on a quiet machine; hashing the graph would take 25 ms and more


def _seconds(folder: Path) -> float:
    start = time.perf_counter()
    open_bundle(folder)
    return time.perf_counter() - start


def test_a_bundle_that_did_not_change_is_read_once_and_one_that_did_is_read_and_checked_again(made: Path) -> None:
    first = reopen_bundle(made)
    assert reopen_bundle(made) is first
    write_manifest(made, objective="no-objective", max_length=7, provenance={})
    assert (reopen_bundle(made).max_length, reopen_bundle(made).objective) == (7, "no-objective")
    (made / "model.onnx").write_bytes(b"")
    with pytest.raises(InvalidRequest, match=r"model\.onnx"):
        reopen_bundle(made)
    (made / "tokenizer.json").unlink()
    with pytest.raises(InvalidRequest, match=r"tokenizer\.json"):
        reopen_bundle(made)
