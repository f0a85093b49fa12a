from __future__ import annotations

import gc
import os
from collections.abc import Iterator

import pytest

from mlaas import starting
from mlaas.settings import STARTING_DEFAULTS


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    yield
    starting.end()
    gc.unfreeze()


def test_garbage_is_collected_again_once_the_process_is_ready() -> None:
    starting.begin()
    assert not gc.isenabled()
    starting.end()
    assert gc.isenabled()
    assert gc.get_freeze_count() > 10_000


def test_what_libraries_are_told_for_the_start_is_taken_back_and_what_the_user_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in STARTING_DEFAULTS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "3")
    starting.begin()
    assert (os.environ["PYDANTIC_DISABLE_PLUGINS"], os.environ["OPENBLAS_NUM_THREADS"]) == ("__all__", "3")
    starting.end()
    assert "PYDANTIC_DISABLE_PLUGINS" not in os.environ
    assert os.environ["OPENBLAS_NUM_THREADS"] == "3"


def test_a_process_that_did_not_begin_so_is_left_alone() -> None:
    starting.end()
    assert gc.get_freeze_count() == 0
