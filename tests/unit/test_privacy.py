"""What the platform's libraries would tell their makers, and do not."""

from __future__ import annotations

import os
import subprocess
import sys

from mlaas.settings import LIBRARY_DEFAULTS

PROGRAM = """
import os
import numpy
before = len(os.listdir("/proc/self/task"))
import mlaas
import onnxruntime
print(len(os.listdir("/proc/self/task")) - before)
"""


def ran(**environment: str) -> int:
    """The threads that ONNX Runtime starts on import: one, if it reports."""
    clean = {name: value for name, value in os.environ.items() if name not in LIBRARY_DEFAULTS}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env={**clean, **environment}, capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_onnx_runtime_starts_no_reporter_of_its_use() -> None:
    assert ran() == 0


def test_whoever_sets_it_otherwise_decides() -> None:
    program = "import mlaas, os; print(os.environ['HF_HUB_DISABLE_TELEMETRY'])"
    environment = {**os.environ, "HF_HUB_DISABLE_TELEMETRY": "0"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0"
