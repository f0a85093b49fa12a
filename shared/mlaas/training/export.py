"""From a PyTorch model to a bundle that is served: ONNX graph, tokenizer, configuration and manifest."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import transformers

from .. import bundles
from ..errors import InvalidRequest, MlaasError
from ..precision import Variant
from . import longformer
from .batches import Batch, collator, encoded
from .checkpoints import Checkpoint, load_model, open_checkpoint
from .external_weights import put_beside
from .licence import licence_of
from .parity import compare, sample
from .quiet import quiet
from .staging import staged

__all__ = ["EXPORTED", "Serving", "check_exportable", "created_by", "export", "serving", "write_graph", "write_manifest"]


class ExportError(MlaasError):
    """The model cannot be exported to ONNX."""


@dataclass(frozen=True)
class Kind:
    """How an objective is called by optimum, the class that loads its checkpoints, and how it is served if not by its own name.

    `past`: the graph also takes and gives what a language model has read before, where optimum can.
    """

    task: str
    auto: str
    served: str | None = None
    pooling: str | None = None
    normalize: bool = False
    past: bool = False


EXPORTED = {
    "no-objective": Kind("feature-extraction", "AutoModel"),
    "masked-lm": Kind("fill-mask", "AutoModelForMaskedLM"),
    "text-classification": Kind("text-classification", "AutoModelForSequenceClassification"),
    "token-classification": Kind("token-classification", "AutoModelForTokenClassification"),
    "question-answering": Kind("question-answering", "AutoModelForQuestionAnswering"),
    "next-sentence-prediction": Kind("text-classification", "AutoModelForNextSentencePrediction"),
    "causal-lm": Kind("text-generation", "AutoModelForCausalLM", past=True),
    "sentence-embedding": Kind("feature-extraction", "AutoModel", served="no-objective", pooling="mean", normalize=True),
}
LABELLED = frozenset({"text-classification", "token-classification", "next-sentence-prediction"})
# Texts of different lengths for the parity check of a checkpoint that comes without data.
PROBES = (
    "A",
    "The experiment measures the decay of a neutral particle.",
    "Sezione di Napoli, Complesso Universitario di Monte S. Angelo, Via Cintia, I-80126 Napoli, Italy",
    "word " * 60,
)


@dataclass(frozen=True, kw_only=True)
class Serving:
    """What the manifest says of how a model is served. `max_length` is in tokens."""

    objective: str
    max_length: int
    labels: tuple[str, ...] = ()
    pooling: str | None = None
    normalize: bool = False


def export(
    checkpoint: Path, objective: str, out: Path, *, tokenizer: Path | None = None, provenance: dict[str, Any] | None = None
) -> bundles.Bundle:
    """The Hugging Face or sentence-transformers checkpoint in the folder `checkpoint` as a bundle in the new folder `out`.

    Raises InvalidRequest if it cannot be exported as `objective`, ParityError if the graph computes something else.
    """
    if objective not in EXPORTED:
        raise InvalidRequest(f"`{objective}` cannot be exported", field="model.objective", remedy=f"Use one of: {', '.join(EXPORTED)}.")
    with quiet(), staged(out) as folder:
        opened = open_checkpoint(checkpoint, tokenizer)
        loaded = load_model(getattr(transformers, EXPORTED[objective].auto), opened)
        lacking = sorted(name for name in loaded.fresh if ".pooler." not in name and not name.startswith("pooler."))
        if lacking:
            raise InvalidRequest(
                f"the checkpoint has no head for `{objective}`: it lacks `{lacking[0]}`",
                field="model.objective",
                remedy="Export it as `no-objective`, or train it first.",
            )
        served = _serving(checkpoint, objective, opened, loaded.model)
        write_graph(loaded.model, opened.tokenizer, objective, folder, served.max_length)
        parity = compare(loaded.model, folder / "model.onnx", sample([_probe(opened)]))
        made = {
            "objective": objective,
            "base": {"digest": opened.digest, "licence": licence_of(checkpoint)},
            "parity": parity,
            **created_by(),
            **(provenance or {}),
        }
        write_manifest(folder, served, made)
    return bundles.open_bundle(out)


def check_exportable(config: Any, objective: str) -> None:
    """Raise InvalidRequest for an architecture that cannot be exported, before it is trained for hours."""
    if EXPORTED[objective].task not in exportable_tasks(config):
        kind = "a decoder such as GPT-2" if objective == "causal-lm" else "an encoder such as BERT"
        raise InvalidRequest(
            f"a model of type {config.model_type} cannot be trained and served for `{objective}`",
            field="model.path",
            remedy=f"Give {kind}.",
        )


def exportable_tasks(config: Any) -> set[str]:
    """What optimum calls the objectives that it exports this architecture for."""
    import optimum.exporters.onnx.model_configs  # noqa: F401 - registers them
    from optimum.exporters.tasks import TasksManager

    try:
        return set(TasksManager.get_supported_tasks_for_model_type(config.model_type, "onnx", library_name="transformers"))
    except KeyError:
        return set()


def serving(objective: str, labels: tuple[str, ...], max_length: int) -> Serving:
    """How a model that was trained for `objective` is served."""
    kind = EXPORTED[objective]
    return Serving(objective=kind.served or objective, max_length=max_length, labels=labels, pooling=kind.pooling, normalize=kind.normalize)


def write_graph(model: Any, tokenizer: Any, objective: str, folder: Path, max_length: int) -> None:
    """Write model.onnx (large weights beside it), config.json and the tokenizer's files into `folder`. `model` is moved to the CPU."""
    from optimum.exporters.onnx import export as export_onnx
    from optimum.exporters.tasks import TasksManager

    model.to("cpu").eval()
    try:
        task, past = EXPORTED[objective].task, {}
        if EXPORTED[objective].past and f"{task}-with-past" in exportable_tasks(model.config):
            task, past = f"{task}-with-past", {"use_past": True, "use_past_in_inputs": True}
        constructor = TasksManager.get_exporter_config_constructor("onnx", model, task=task, library_name="transformers")
        settings = constructor(model.config, **past)
        if model.config.model_type == "longformer":  # optimum's own graph of it holds for one length only, and asks for another mask
            settings = longformer.onnx_inputs(settings)
        with longformer.exportable(model):
            export_onnx(model, settings, folder / "model.onnx", device="cpu")
        settings.post_process_exported_models(folder, {"model": (model, settings)}, ["model.onnx"])  # stores tied weights once
        put_beside(folder / "model.onnx")
    except (ValueError, KeyError, TypeError, NotImplementedError, RuntimeError) as error:
        raise ExportError(
            f"a model of type {model.config.model_type} cannot be exported to ONNX for `{objective}`",
            remedy="Use an architecture that optimum exports, such as BERT.",
        ) from error
    model.config.save_pretrained(folder)
    tokenizer.model_max_length = max_length
    tokenizer.save_pretrained(folder, legacy_format=False)


def write_manifest(folder: Path, serving: Serving, provenance: dict[str, Any], variants: Iterable[Variant] = ()) -> bundles.Bundle:
    """Write manifest.json, which seals the bundle."""
    return bundles.write_manifest(
        folder,
        objective=serving.objective,
        labels=serving.labels,
        pooling=serving.pooling,
        normalize=serving.normalize,
        max_length=serving.max_length,
        provenance=provenance,
        variants=variants,
    )


def created_by() -> dict[str, Any]:
    """Versions of the libraries that matter to the result, and the time."""
    versions = {name: importlib.metadata.version(name) for name in ("torch", "transformers", "optimum-onnx", "onnx", "tokenizers", "numpy")}
    return {"versions": versions, "created": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")}


def _probe(checkpoint: Checkpoint) -> Batch:
    import torch

    ids = [encoding.ids for encoding in encoded(checkpoint.tokenizer, PROBES, min(checkpoint.max_length, 128))]
    return collator(checkpoint.config, checkpoint.tokenizer)(ids, torch.zeros(len(ids), dtype=torch.long))


def _serving(folder: Path, objective: str, checkpoint: Checkpoint, model: Any) -> Serving:
    labels = tuple(model.config.id2label[index] for index in sorted(model.config.id2label)) if objective in LABELLED else ()
    if objective != "no-objective":
        return serving(objective, labels, checkpoint.max_length)
    # sentence-transformers keeps how it pools beside the checkpoint; it cuts texts shorter than the model would.
    pooling = _json(folder / "1_Pooling" / "config.json", {})
    modules = [str(module.get("type", "")) for module in _json(folder / "modules.json", [])]
    shortened = _json(folder / "sentence_bert_config.json", {}).get("max_seq_length") or checkpoint.max_length
    return Serving(
        objective=objective,
        max_length=min(int(shortened), checkpoint.max_length),
        pooling="cls" if pooling.get("pooling_mode_cls_token") else "mean",
        normalize=any(kind.endswith("Normalize") for kind in modules),
    )


def _json(file: Path, default: Any) -> Any:
    try:
        loaded = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return default
    return loaded if isinstance(loaded, type(default)) else default
