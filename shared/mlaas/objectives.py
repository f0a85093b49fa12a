"""What a model can be for: the names that requests, manifests and the catalog use. Only the standard library, for the cold start."""

from __future__ import annotations

from typing import Literal, get_args

__all__ = ["OBJECTIVES", "Objective"]

Objective = Literal[
    "text-classification",
    "masked-lm",
    "causal-lm",
    "next-sentence-prediction",
    "token-classification",
    "question-answering",
    "sentence-embedding",
    "no-objective",
]
OBJECTIVES: tuple[str, ...] = get_args(Objective)
