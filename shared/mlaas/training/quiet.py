"""Keeps the libraries' warnings, log lines and progress bars out of a run's output."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["quiet"]

LOGGERS = ("transformers", "optimum", "torch.onnx", "onnxruntime")


@contextmanager
def quiet() -> Iterator[None]:
    """Within, the libraries only say what is an error. What they would warn of is either handled here or concerns their future versions."""
    from transformers.utils import logging as transformers_logging

    loggers = [logging.getLogger(name) for name in LOGGERS]
    levels = [logger.level for logger in loggers]
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if bars:
            transformers_logging.enable_progress_bar()
