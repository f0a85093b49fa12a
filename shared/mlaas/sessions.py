"""ONNX Runtime's sessions: which execution provider computes, and a bundle's graph opened on it.

float32 is computed by NVIDIA's provider where the installed ONNX Runtime has it, else by OpenVINO, else by the plain CPU provider. Other
variants of a model, where one is chosen (`precision`), are computed by what they are for: bf16 by OpenVINO on a processor that computes
in bf16, fp16 by NVIDIA's provider, both of int8 by the CPU's. A provider that does not load gives way to the next.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from . import limits, precision
from .bundles import Bundle, not_loadable

if TYPE_CHECKING:
    import onnxruntime

__all__ = ["CPU", "Provider", "cpu_flags", "open_session", "providers", "runnable"]

log = logging.getLogger(__name__)

# The JSON text itself, not the path of a file that holds it. Unless told otherwise OpenVINO computes in bf16 where the processor
# does, and keeps what it has prepared for each of 5,000 shapes: a tenth of the memory of a process, and no faster.
OPENVINO_CONFIG = '{{"CPU":{{"INFERENCE_PRECISION_HINT":"{}","CPU_RUNTIME_CACHE_CAPACITY":"32"}}}}'

Provider = tuple[str, dict[str, str]]
CPU: Provider = (precision.CPU, {})
CUDA: Provider = (precision.CUDA, {"use_tf32": "0"})  # else float32 is computed with the 10 bits of TF32 where the GPU has it


def providers(available: Iterable[str], cpu_flags: Iterable[str], variant: str = precision.PUBLISHED) -> list[Provider]:
    """The execution providers to try for a variant, best first, of those `available` in ONNX Runtime on a processor with `cpu_flags`."""
    available = set(available)
    if variant in ("int8", "int8-dynamic"):
        return [CPU]
    if variant == "bf16":
        able = variant in precision.runnable(available - {precision.CUDA}, set(cpu_flags))
        return [_openvino("bf16")] if able else []
    cuda = [CUDA] if precision.CUDA in available else []
    openvino = [_openvino("f32")] if precision.OPENVINO in available else []
    return cuda if variant == "fp16" else [*cuda, *openvino, CPU]


def _openvino(hint: str) -> Provider:
    return (precision.OPENVINO, {"device_type": "CPU", "load_config": OPENVINO_CONFIG.format(hint)})


def runnable() -> tuple[str, ...]:
    """The variants that gain speed on this machine, the fastest first."""
    import onnxruntime

    return precision.runnable(onnxruntime.get_available_providers(), cpu_flags())


def cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> set[str]:
    """What the processor can do, as Linux names it; nothing where that cannot be read."""
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:  # not Linux
        return set()
    return next((set(line.partition(":")[2].split()) for line in text.splitlines() if line.startswith(("flags", "Features"))), set())


def open_session(
    bundle: Bundle, threads: int, candidates: Sequence[Provider], variant: str = precision.PUBLISHED
) -> onnxruntime.InferenceSession:
    """The graph of `variant` on the first of `candidates` that loads it. Raises InvalidRequest where none does."""
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
    graph = str(bundle.graph_of(variant))
    for name, settings in candidates:
        try:
            session = onnxruntime.InferenceSession(graph, options, providers=[(name, settings)], enable_fallback=0)
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
