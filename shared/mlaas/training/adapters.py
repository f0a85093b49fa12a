"""Low-rank adapters (LoRA, Hu et al. 2021): attached before a run, merged into the weights after it."""

from __future__ import annotations

from typing import Any

import torch

from ..contracts import Lora
from ..errors import InvalidRequest

__all__ = ["attach", "merge"]

# The attention's projections, as one architecture or another calls them; the paper adapts queries and values.
USUAL = ("query", "value", "q_lin", "v_lin", "q_proj", "v_proj", "c_attn", "query_key_value")
BYTES = 4  # of a parameter in fp32


def attach(model: torch.nn.Module, lora: Lora, fresh: frozenset[str]) -> dict[str, Any]:
    """Freeze `model` but for `fresh` parameters and adapters beside its `target` layers; what the provenance says of them.

    Raises InvalidRequest for names that no layer has.
    """
    from peft import LoraConfig, inject_adapter_in_model

    target = _targets(model, lora)
    settings = LoraConfig(r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=target)
    inject_adapter_in_model(settings, model)
    adapters = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    for name, parameter in model.named_parameters():
        if name in fresh:
            parameter.requires_grad_(True)
    total = sum(parameter.numel() for parameter in model.parameters())
    return {
        "rank": lora.rank,
        "alpha": lora.alpha,
        "dropout": lora.dropout,
        "target": target,
        "parameters": adapters,
        "bytes": adapters * BYTES,
        "share": round(adapters / total, 6),
    }


def merge(model: torch.nn.Module) -> None:
    """Add every adapter to the weights beside it, and take it away: the model is an ordinary one again."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, module in list(model.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge()
            parent, _, own = name.rpartition(".")
            setattr(model.get_submodule(parent), own, module.get_base_layer())
    model.requires_grad_(True)
    if hasattr(model, "peft_config"):
        del model.peft_config


def _targets(model: torch.nn.Module, lora: Lora) -> list[str]:
    from transformers.pytorch_utils import Conv1D  # GPT-2's name for a transposed linear layer

    kinds = (torch.nn.Linear, Conv1D)
    names = {name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, kinds)}
    wanted = lora.target or [name for name in USUAL if name in names]
    unknown = [name for name in wanted if name not in names]
    if unknown or not wanted:
        raise InvalidRequest(
            f"the model has no layer `{unknown[0]}` to adapt" if unknown else "none of the usual names of attention layers is in the model",
            field="model_train.lora.target",
            remedy=f"Name layers among: {', '.join(sorted(names))}.",
        )
    return wanted
