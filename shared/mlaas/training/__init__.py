"""Training: data preparation, objectives, the run, export to ONNX and the parity check.

The only package that imports torch, transformers and optimum, and only its submodules do: importing `mlaas.training`
itself stays cheap. `mlaas.training.run.train` trains, `mlaas.training.export.export` exports a checkpoint as it is.
"""

from __future__ import annotations

__all__: list[str] = []
