"""Training: data preparation, objectives, the run, export to ONNX and the parity check.

The only package that imports torch, transformers and optimum, and only its submodules do: importing `mlaas.training`
itself stays cheap. `mlaas.training.run.train` trains, `mlaas.training.export.export` exports a checkpoint as it is.
"""

from __future__ import annotations

import os

__all__: list[str] = []

# Before torch loads OpenMP: threads that spin while they wait make training several times slower as soon as another
# process wants a core (measured on 2 cores beside a test run: 71 s with spinning, 19 s without).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
