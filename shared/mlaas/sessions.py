"""ONNX Runtime's sessions: which execution provider computes, and a bundle's graph opened on it.

NVIDIA's provider is taken where the installed ONNX Runtime has it, else OpenVINO in bf16 where that is installed and the
processor computes in bf16, else the plain CPU provider. One that does not load gives way to the next.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from . import limits
from .bundles import Bundle, not_loadable

if TYPE_CHECKING:
    import onnxruntime

__all__ = ["CPU", "OPENVINO", "Provider", "cpu_flags", "open_session", "providers"]

log = logging.getLogger(__name__)

OPENVINO = "OpenVINOExecutionProvider"
OPENVINO_BF16 = '{"CPU":{"INFERENCE_PRECISION_HINT":"bf16"}}'  # the JSON text itself, not the path of a file that holds it
BF16_FLAGS = frozenset({"amx_bf16", "avx512_bf16"})

Provider = tuple[str, dict[str, str]]
CPU: Provider = ("CPUExecutionProvider", {})


def providers(available: Iterable[str], cpu_flags: Iterable[str]) -> list[Provider]:
    """The execution providers to try, best first, of those `available` in ONNX Runtime on a processor with `cpu_flags`."""
    chosen: list[Provider] = []
    if "CUDAExecutionProvider" in (available := set(available)):
        chosen.append(("CUDAExecutionProvider", {}))
    if OPENVINO in available and not BF16_FLAGS.isdisjoint(cpu_flags):
        chosen.append((OPENVINO, {"device_type": "CPU", "load_config": OPENVINO_BF16}))
    return [*chosen, CPU]


def cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> set[str]:
    """What the processor can do, as Linux names it; nothing where that cannot be read."""
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:  # not Linux
        return set()
    return next((set(line.partition(":")[2].split()) for line in text.splitlines() if line.startswith(("flags", "Features"))), set())


def open_session(bundle: Bundle, threads: int, candidates: Sequence[Provider]) -> onnxruntime.InferenceSession:
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    failures = (state.Fail, state.InvalidArgument, state.NoSuchFile, state.NoModel, state.EngineError, state.RuntimeException,
                state.InvalidProtobuf, state.NotImplemented, state.InvalidGraph, state.EPFail, RuntimeError, ValueError)  # fmt: skip
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or _threads()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # threads that wait in a loop: a third of shared cores
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3  # its warnings go to stderr unstructured
    if any(name == "CUDAExecutionProvider" for name, _ in candidates):
        onnxruntime.preload_dlls(directory="")  # CUDA's libraries come as packages, where the loader does not look
    for name, settings in candidates:
        try:
            session = onnxruntime.InferenceSession(str(bundle.graph), options, providers=[(name, settings)], enable_fallback=0)
        except failures as error:
            log.warning(
                "engine.provider_failed", extra={"fields": {"provider": name, "error": type(error).__name__, "model": bundle.digest}}
            )
            continue
        # Where a provider's libraries are missing, ONNX Runtime says nothing and computes with another.
        if session.get_providers()[0] == name:
            return session
        log.warning("engine.provider_missing", extra={"fields": {"provider": name, "model": bundle.digest}})
    raise not_loadable("its ONNX graph is damaged, incomplete or of a newer version", "Export the model to ONNX again and publish it anew.")


def _threads() -> int:
    """Threads of a session: what the container may use; 0, which lets ONNX Runtime count the cores, where that is the whole machine."""
    return allowed if (allowed := limits.cpus()) < (os.cpu_count() or 1) else 0
