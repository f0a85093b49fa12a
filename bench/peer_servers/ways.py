"""The servers that are compared: how each is started, asked and read. Each is started as its own documentation says for a CPU."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

__all__ = ["WAYS", "Place", "Way", "python_of"]

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
ENVIRONMENTS = Path("~/.cache/mlaas/bench").expanduser()
LABELS = 4
Answers = list[list[float]]  # a vector, or the scores of all labels in their order, for each text


@dataclass(frozen=True)
class Place:
    """What a server is given: the models' folders, the task and a port."""

    models: Path
    task: str
    port: int

    @property
    def model(self) -> Path:
        """The Hugging Face folder, with the ONNX export beside the weights."""
        return self.models / self.task


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way to serve. `environment` names its folder of packages ("" is this process' own) and `packages` those whose versions count.

    `command` is what is started there; `body` makes the bytes of a request and `read` takes the answers out of a reply.
    `torch` says whether the process holds PyTorch; `kind` is ours or peer.
    """

    name: str
    environment: str
    packages: tuple[str, ...]
    command: Callable[[Place], list[str]]
    path: Callable[[str], str]
    body: Callable[[str, Sequence[str]], dict[str, Any]]
    read: Callable[[str, Any], Answers]
    tasks: tuple[str, ...] = ("embed", "classify")
    settings: Callable[[Place], dict[str, str]] = field(default=lambda _: {})
    folder: Callable[[Place], Path] = field(default=lambda _: ROOT)
    torch: bool = True
    kind: str = "peer"

    def environ(self, place: Place) -> dict[str, str]:
        """The environment of the process: nobody is asked for a model or told of the run."""
        offline = {
            "HF_HUB_OFFLINE": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "DO_NOT_TRACK": "1",
            "HF_HOME": str(place.models / "hf" / place.task),
        }
        return {**os.environ, **offline, **self.settings(place)}


def python_of(environment: str) -> Path:
    """The interpreter of an environment."""
    return ENVIRONMENTS / environment / "bin" / "python" if environment else Path(sys.executable)


def _body_of_ours(variant: str, task: str, texts: Sequence[str]) -> dict[str, Any]:
    more = {"top_k": LABELS} if task == "classify" else {}
    asked = {"variant": "fp32"} if variant == "fp32" else {"max_accuracy_loss": 0.0}  # what `models.prepare` has written there
    model = {"path": f"served/{task}", "storage_type": "local", **asked}
    return {"model": model, "predict_input": {"input_text": list(texts)}, **more}


def _read_ours(task: str, reply: Any) -> Answers:
    if task == "embed":
        return list(reply["vectors"])
    return [_in_order(one["scores"]) for one in reply["predictions"]]


def _in_order(scores: list[dict[str, Any]]) -> list[float]:
    return [one["score"] for one in sorted(scores, key=lambda one: str(one["label"]))]


def _ours(name: str, environment: str, distribution: str, variant: str = "fp32") -> Way:
    return Way(
        name=name,
        environment=environment,
        packages=(distribution, "tokenizers", "numpy"),
        command=lambda place: [str(python_of(environment)), "-m", "mlaas.serve", f"functions/{place.task}"],
        path=lambda _: "/",
        body=partial(_body_of_ours, variant),
        read=_read_ours,
        settings=lambda place: {
            "PORT": str(place.port), "MLAAS_HOST": "127.0.0.1", "MLAAS_ROOT": str(place.models), "MLAAS_HOME": str(place.models / "home"),
        },
        torch=False,
        kind="ours",
    )  # fmt: skip


def _infinity(engine: str) -> Way:
    """Started in the model's folder, where its optimum engine finds the ONNX file; that engine does not read how vectors are pooled."""
    python = python_of(f"infinity-{engine}")
    return Way(
        name=f"infinity-emb, {engine}",
        environment=f"infinity-{engine}",
        packages=("infinity-emb", "optimum", "transformers", "torch", *(("onnxruntime",) if engine == "optimum" else ())),
        command=lambda place: [
            str(python.with_name("infinity_emb")), "v2", "--engine", engine, "--model-id", ".", "--served-model-name", "served",
            "--device", "cpu", "--pooling-method", "mean", "--host", "127.0.0.1", "--port", str(place.port),
        ],
        path=lambda task: "/embeddings" if task == "embed" else "/classify",
        body=lambda _, texts: {"model": "served", "input": list(texts)},
        read=lambda task, reply: [one["embedding"] if task == "embed" else _in_order(one) for one in reply["data"]],
        folder=lambda place: place.models / "exported" / place.task if engine == "optimum" else place.model,
    )  # fmt: skip


def _uvicorn(environment: str, app: str, place: Place) -> list[str]:
    return [str(python_of(environment)), "-m", "uvicorn", "--app-dir", str(HERE), app, "--host", "127.0.0.1", "--port", str(place.port)]


def _sentence_transformers(backend: str) -> Way:
    return Way(
        name=f"sentence-transformers, {backend}",
        environment="sentence-transformers",
        packages=("sentence-transformers", "transformers", "torch", "fastapi", "uvicorn", *(("onnxruntime",) if backend == "onnx" else ())),
        command=lambda place: _uvicorn("sentence-transformers", "sentence_transformers_app:app", place),
        path=lambda _: "/embed",
        body=lambda _, texts: {"texts": list(texts)},
        read=lambda _, reply: list(reply),
        tasks=("embed",),
        settings=lambda place: {"MODEL": str(place.model), "BACKEND": backend},
    )


def _read_kserve(task: str, reply: Any) -> Answers:
    predictions = reply["predictions"]
    if task == "embed":
        return list(predictions)
    return [
        [scores[name] for name in sorted(scores, key=int)]
        for scores in (json.loads(one) if isinstance(one, str) else one for one in predictions)
    ]


FASTAPI = Way(
    name="FastAPI + transformers",
    environment="fastapi",
    packages=("transformers", "torch", "fastapi", "uvicorn"),
    command=lambda place: _uvicorn("fastapi", "fastapi_app:app", place),
    path=lambda task: f"/{task}",
    body=lambda _, texts: {"texts": list(texts)},
    read=lambda task, reply: list(reply) if task == "embed" else [_in_order(one) for one in reply],
    settings=lambda place: {"MODEL": str(place.model), "TASK": place.task},
)
KSERVE = Way(
    name="KServe huggingfaceserver",
    environment="kserve",
    packages=("huggingfaceserver", "kserve", "transformers", "torch"),
    command=lambda place: [
        str(python_of("kserve")), "-m", "huggingfaceserver", "--model_id", str(place.model), "--model_name", "served",
        "--backend", "huggingface",
        "--task", "text_embedding" if place.task == "embed" else "sequence_classification", "--return_probabilities",
        "--http_port", str(place.port), "--disable_log_requests",
    ],
    path=lambda task: "/openai/v1/embeddings" if task == "embed" else "/v1/models/served:predict",
    body=lambda task, texts: {"model": "served", "input": list(texts)} if task == "embed" else {"instances": list(texts)},
    read=lambda task, reply: [one["embedding"] for one in reply["data"]] if task == "embed" else _read_kserve(task, reply),
)  # fmt: skip
WAYS: tuple[Way, ...] = (
    _ours("mlaas, CPU provider", "", "onnxruntime"),
    _ours("mlaas, OpenVINO", "openvino", "onnxruntime-openvino"),
    _ours("mlaas, OpenVINO bf16", "openvino", "onnxruntime-openvino", "bf16"),
    _infinity("torch"),
    _infinity("optimum"),
    _sentence_transformers("torch"),
    _sentence_transformers("onnx"),
    FASTAPI,
    KSERVE,
)
