"""Faults: one row of docs/reliability.md for each test, its moment drawn from a seed, its time bounded.

MLAAS_FAULT_SEED chooses other moments. With `--fault-table FILE` a run of the whole suite writes its table there.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from mlaas import documents, models, settings
from mlaas.settings import Settings
from mlaas.testing.fault_table import Row, insert, render
from mlaas.testing.homes import tiny_home
from mlaas.testing.mongo_server import MongoServer, installed
from mlaas.testing.s3_server import S3Server, credentials, running_s3_server
from mlaas.testing.toxic_proxy import ToxicProxy

HERE = Path(__file__).parent
SEED = os.environ.get("MLAAS_FAULT_SEED", "4")
ROWS = pytest.StashKey[dict[str, Row]]()
STARTED = pytest.StashKey[float]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fault-table", type=Path, help="write the table of faults between the markers of this file")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[ROWS], config.stash[STARTED] = {}, time.monotonic()


def pytest_report_header() -> str:
    return f"faults: MLAAS_FAULT_SEED={SEED}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if mark := item.get_closest_marker("fault"):
            config.stash[ROWS][item.nodeid] = Row(fault=str(mark.args[0]))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report: Any = yield
    row = item.config.stash[ROWS].get(item.nodeid)
    if row and (report.when == "call" or report.outcome != "passed"):
        row.outcome = {"passed": "passed", "failed": "failed", "skipped": "not run"}[report.outcome]
        row.reason = report.longrepr[2].removeprefix("Skipped: ") if report.skipped else ""
    return report


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    rows = list(config.stash[ROWS].values())
    if not rows:
        return
    minutes = (time.monotonic() - config.stash[STARTED]) / 60
    table = render(
        rows, [f"{datetime.now(UTC):%Y-%m-%d}", f"seed {SEED}", f"{os.cpu_count()} cores", "`make test-faults`", f"{minutes:.1f} minutes"]
    )
    terminalreporter.write_sep("=", "faults")
    terminalreporter.write_line(table)
    file: Path | None = config.getoption("--fault-table")
    if file and _whole(config, terminalreporter):
        insert(file, table)
        terminalreporter.write_line(f"written to {file}")
    elif file:
        terminalreporter.write_line(f"{file} is left as it is: this was not the whole suite")


def _whole(config: pytest.Config, reporter: Any) -> bool:
    files = {node.partition("::")[0].rpartition("/")[2] for node in config.stash[ROWS]}
    chosen = config.option.keyword or config.option.markexpr or any("::" in one for one in config.args) or "deselected" in reporter.stats
    return not chosen and files == {path.name for path in HERE.glob("test_*.py")}


@pytest.fixture(autouse=True)
def _deadline(request: pytest.FixtureRequest) -> Iterator[None]:
    mark = request.node.get_closest_marker("fault")
    seconds = mark.kwargs.get("deadline", 120) if mark else 120

    def late(_number: int, _frame: FrameType | None) -> None:
        pytest.fail(f"not at its end after {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def row(request: pytest.FixtureRequest) -> Iterator[Row]:
    """The row of this test, which must have measured that nothing was lost."""
    row = request.config.stash[ROWS][request.node.nodeid]
    yield row
    assert row.outcome != "passed" or row.lost is not None, "nothing was measured"
    assert not row.lost, f"{row.lost} lost"


@pytest.fixture
def draw(request: pytest.FixtureRequest) -> random.Random:
    """Where a test takes its moments from: the same for the same seed, whichever tests run beside it."""
    return random.Random(f"{SEED}/{request.node.name}")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """This process, and those it starts, are configured for a new home with tiny models."""
    made = tiny_home(tmp_path / "platform")
    monkeypatch.setenv("MLAAS_HOME", str(made.home))
    settings.current.cache_clear()
    models.forget()
    yield settings.current()
    documents.shared().close()
    settings.current.cache_clear()


@pytest.fixture
def mongodb(tmp_path: Path) -> Iterator[MongoServer]:
    """A MongoDB server that keeps what it acknowledged."""
    if not installed():
        pytest.skip("mongo-java-server is not installed")
    with MongoServer(tmp_path / "mongo") as server:
        yield server


@pytest.fixture
def mongo(mongodb: MongoServer) -> Iterator[ToxicProxy]:
    """A proxy in front of the MongoDB server."""
    with ToxicProxy(mongodb.port) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def s3_server() -> Iterator[S3Server]:
    with running_s3_server() as server, credentials(server):
        yield server


@pytest.fixture
def s3(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[ToxicProxy]:
    """A proxy in front of an S3 server, which this process and those it starts use."""
    with ToxicProxy(s3_server.port) as proxy:
        monkeypatch.setenv("MLAAS_S3_ENDPOINT", f"http://127.0.0.1:{proxy.port}")
        yield proxy


@pytest.fixture
def trainable() -> Callable[..., dict[str, Any]]:
    """Puts a tiny checkpoint and rows into a home; the request that trains them for some epochs."""

    def make(settings: Settings, *, epochs: int, name: str = "birds") -> dict[str, Any]:
        from mlaas.testing.tiny_checkpoints import write_checkpoint, write_rows

        if not (settings.artefacts / "checkpoints" / "bert").exists():
            write_checkpoint(settings.artefacts / "checkpoints" / "bert")
            write_rows(settings.artefacts / "rows.jsonl")
        return {
            "model": {"path": "checkpoints/bert", "objective": "text-classification"},
            "model_train": {"epochs": epochs, "batch_size": 8, "optimizer": {"init_lr": 3e-3}},
            "dataset": {"path": "rows.jsonl", "train_test_split": 0.2},
            "model_save": {"path": f"models/{name}"},
        }

    return make
