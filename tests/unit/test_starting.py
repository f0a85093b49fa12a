from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from mlaas import starting
from mlaas.settings import SERVING_DEFAULTS


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, value in SERVING_DEFAULTS.items():  # whatever a test sets is taken back
        monkeypatch.setenv(name, value)
    yield
    starting.end()
    gc.unfreeze()


def test_garbage_is_collected_again_once_the_process_is_ready() -> None:
    starting.begin()
    assert not gc.isenabled()
    starting.end()
    assert gc.isenabled()
    assert gc.get_freeze_count() > 10_000


def test_what_libraries_are_told_for_the_start_is_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    starting.begin()
    assert os.environ["OPENBLAS_NUM_THREADS"] == "1"
    starting.end()
    assert "OPENBLAS_NUM_THREADS" not in os.environ


def test_what_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENBLAS_NUM_THREADS", "PYDANTIC_DISABLE_PLUGINS"):
        monkeypatch.setenv(name, "3")
    starting.begin()
    starting.end()
    assert (os.environ["OPENBLAS_NUM_THREADS"], os.environ["PYDANTIC_DISABLE_PLUGINS"]) == ("3", "3")


def test_pydantic_looks_for_no_plugins_after_the_start_either() -> None:
    """Contracts are built when they are first used: with the first request, when the start is over."""
    program = """
from mlaas import starting
starting.begin()
from mlaas import contracts
from pydantic.plugin import _loader
starting.end()
contracts.parse(contracts.ClassifyRequest, {"model": {"path": "a"}, "predict_input": {"input_text": ["x"]}})
print(_loader._plugins)
"""
    clean = {name: value for name, value in os.environ.items() if name != "PYDANTIC_DISABLE_PLUGINS"}
    ran = subprocess.run([sys.executable, "-c", program], env=clean, capture_output=True, text=True, check=False)
    assert ran.stdout.strip() == "None", ran.stderr


def test_a_process_that_did_not_begin_so_is_left_alone() -> None:
    starting.end()
    assert gc.get_freeze_count() == 0
