"""The benches' common parts: the run of several, the table of their records, and the client that loads a server."""

import importlib
import importlib.util
import json
import sys
import threading
from pathlib import Path

import pytest

from mlaas import http_server

BENCH = Path(__file__).parents[2] / "bench"


@pytest.fixture(scope="module")
def bench():
    """The folder of benches, from where its scripts are imported by their names."""
    sys.path.insert(0, str(BENCH))
    yield importlib.import_module
    sys.path.remove(str(BENCH))


@pytest.fixture(scope="module")
def whole(bench):
    """`python bench` as a module."""
    spec = importlib.util.spec_from_file_location("whole_bench", BENCH / "__main__.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def recorded():
    return sorted(file.stem for file in (BENCH / "results").glob("*.json"))


@pytest.mark.parametrize("name", recorded())
def test_each_record_of_a_bench_is_a_table_with_its_command(whole, name):
    if name not in whole.SUBJECTS:
        pytest.skip("it is run by hand, and described in docs/")
    record = json.loads((BENCH / "results" / f"{name}.json").read_text())
    section = whole.section(name, record)
    assert "| --- |" in section or "|---|" in section
    assert record["command"] in section


def test_a_bench_that_fails_is_named_and_the_others_are_run(whole, tmp_path, monkeypatch, capfd):
    (tmp_path / "bench").mkdir()
    for name, text in {"good": "print('measured')", "bad": "import sys; sys.exit(3)", "late": "import time; time.sleep(60)"}.items():
        (tmp_path / "bench" / f"{name}.py").write_text(text)
    monkeypatch.setattr(whole, "BENCH", tmp_path / "bench")
    monkeypatch.setattr(whole, "SUBJECTS", {"late": 0.01, "bad": 1, "missing": 1, "good": 1})
    assert whole.measure(["late", "bad", "missing", "good"]) == ["late", "bad", "missing"]
    out = capfd.readouterr().out
    for line in ("late: it was late and was ended", "bad: it returned 3", "missing: there is no such bench", "measured", "good: done"):
        assert line in out


def test_the_client_counts_every_answer_over_all_of_its_connections(bench):
    seen, lock = [], threading.Lock()

    def app(environ, start):
        with lock:
            seen.append((environ["REMOTE_PORT"], len(environ["wsgi.input"].read())))
        body = b"x" * 100_000
        start("201 Created", [("Content-Length", str(len(body)))])
        return [body]

    request = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nabcde"
    with http_server.running(app, host="127.0.0.1", port=0, threads=2) as server:
        found = bench("http_load").load(server.effective_port, 3, 0.3, [request])
    assert found["statuses"] == {"201": len(seen)}
    assert len(seen) > 3
    assert {size for _, size in seen} == {5}
    assert len({port for port, _ in seen}) == 3
    assert found["lost"] == 0
