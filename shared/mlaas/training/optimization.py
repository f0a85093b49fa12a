"""The optimizer, its schedule and the precision of a run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..contracts import Optimizer
from ..errors import InvalidRequest

__all__ = ["HEAD_FACTOR", "Compute", "compute", "device", "optimizer", "rate_at"]

# A new head starts from noise and may learn faster than what is pretrained (discriminative rates, Howard and Ruder 2018).
HEAD_FACTOR = 10.0
HEAD_LIMIT = 1e-2  # beyond which AdamW does not settle, whatever the head
PROCESSOR = Path("/proc/cpuinfo")


def rate_at(step: int, steps: int, warm: int) -> float:
    """The factor on the learning rate at optimizer step `step`, from 0: linear warm-up over `warm` steps, then linear to 0 at `steps`."""
    if step < warm:
        return (step + 1) / (warm + 1)
    return max(0.0, (steps - step) / max(1, steps - warm))


def optimizer(model: Any, settings: Optimizer, fresh: Iterable[str]) -> torch.optim.AdamW:
    """AdamW over the parameters of `model`: no decay on biases and LayerNorm, HEAD_FACTOR times the rate on `fresh` ones."""
    fresh = set(fresh)
    groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        rate = max(settings.init_lr, min(settings.init_lr * HEAD_FACTOR, HEAD_LIMIT)) if name in fresh else settings.init_lr
        decay = 0.0 if parameter.ndim < 2 else settings.weight_decay_rate  # biases and LayerNorm are the vectors
        groups.setdefault((rate, decay), []).append(parameter)
    return torch.optim.AdamW(
        [{"params": parameters, "lr": rate, "weight_decay": decay} for (rate, decay), parameters in groups.items()], fused=True
    )


def device() -> torch.device:
    """The accelerator if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@dataclass(frozen=True)
class Compute:
    """Where a model computes and in what: `dtype` of its matrix products; the weights stay in float32."""

    where: torch.device
    dtype: torch.dtype = torch.float32
    note: str | None = None

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Within, matrix products are of `dtype`."""
        return contextlib.nullcontext() if self.dtype == torch.float32 else torch.autocast(self.where.type, dtype=self.dtype)

    @property
    def name(self) -> str:
        """The precision as a request spells it."""
        return {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}[self.dtype]


def compute(precision: str, where: torch.device, processor: Path = PROCESSOR) -> Compute:
    """What `precision` comes to on this hardware. Raises InvalidRequest for fp16 without a GPU.

    `auto` is bfloat16 where the hardware computes in it. Elsewhere it is emulated and slower than float32, so that there
    also `bf16` comes to float32, with a note.
    """
    if precision == "fp16" and where.type != "cuda":
        raise InvalidRequest(
            "fp16 needs a GPU, and there is none",
            field="model_train.precision",
            remedy="Use `auto`: bf16 where the processor computes in it, else fp32.",
        )
    if precision == "fp16":
        return Compute(where, torch.float16)
    if precision == "fp32":
        return Compute(where)
    native = torch.cuda.is_bf16_supported(including_emulation=False) if where.type == "cuda" else has_bf16(processor)
    if native:
        return Compute(where, torch.bfloat16)
    return Compute(where, note="this hardware does not compute in bf16: fp32 was used" if precision == "bf16" else None)


def has_bf16(processor: Path) -> bool:
    """Whether the processor described in `processor` has AMX or AVX512-BF16."""
    try:
        flags = next((line for line in processor.read_text("utf-8", "replace").splitlines() if line.startswith("flags")), "")
    except OSError:
        return False
    return not {"amx_bf16", "avx512_bf16"}.isdisjoint(flags.split())
