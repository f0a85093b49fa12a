"""A function as a process: what it imports, when it is ready, how it stops."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from mlaas.settings import Settings

FUNCTIONS = Path(__file__).parent.parent.parent / "functions"
NAMES = sorted(path.parent.name for path in FUNCTIONS.glob("*/func.py"))
SLOW = """
import time
def main(context):
    time.sleep(float(context.request.args.get("s", 0)))
    return b"{}", 200, {"Content-Type": "application/json"}
"""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def serving(folder: Path, **environment: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "mlaas.serve", *([str(folder)] if folder.name else [])],
        stderr=subprocess.PIPE,
        env={**os.environ, "PORT": str(port), "MLAAS_HOST": "127.0.0.1", **environment},
    )
    try:
        yield f"http://127.0.0.1:{port}", process
    finally:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=30)


def wait_for(url: str, status: int = 200, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if requests.get(url, timeout=5).status_code == status:
                return
        except requests.ConnectionError:
            pass
        time.sleep(0.02)
    raise AssertionError(f"{url} did not answer {status} within {seconds} s")


@pytest.mark.parametrize("name", NAMES)
def test_no_serving_process_imports_torch_or_transformers_or_what_only_a_client_needs(name: str, home: Settings) -> None:
    requests_of = {
        "classify": {"model": {"name": "infn-structures"}, "predict_input": {"input_text": ["x"]}},
        "fill_mask": {"model": {"name": "physics-lm"}, "predict_input": {"input_text": ["the [MASK]"]}},
        "ner": {"model": {"name": "physics-ner"}, "predict_input": {"input_text": ["the higgs boson"]}},
        "answer": {"model": {"name": "laboratories"}, "predict_input": {"question": ["where?"], "context": ["in frascati"]}},
        "embed": {"model": {"name": "minilm"}, "predict_input": {"input_text": ["x"]}},
        "generate": {"model": {"name": "physics-writer"}, "predict_input": {"input_text": ["dark"]}},
        "search": {"dataset": {"name": "abstracts"}, "search_input": {"input_text": ["x"]}},
        "index": {"model": {"name": "minilm"}, "dataset": {"path": "affiliations.tsv"}, "vector_store_save": {"path": "i"}},
        "train": {
            "model": {"path": "checkpoints/tiny", "objective": "masked-lm"},
            "dataset": {"path": "affiliations.tsv"},
            "model_save": {"path": "m"},
        },
        "catalog": {"model": {"path": "checkpoints/tiny", "objective": "masked-lm"}, "model_save": {"path": "m"}},
    }
    program = f"""
import sys, pathlib
from mlaas import serve
client = serve.create_app(serve.load_function(pathlib.Path({str(FUNCTIONS / name)!r})), serve.State(ready=True)).test_client()
answer = client.post("/", json={requests_of[name]!r})
assert answer.status_code in (200, 202), answer.text
client.get("/metrics")
print(sorted(name for name in ("torch", "transformers", "optimum", "sklearn", "accelerate", "httpx2", "pandas") if name in sys.modules))
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, ran.stdout.strip()) == (0, "[]"), ran.stderr


def test_ready_means_that_the_model_is_loaded(home: Settings) -> None:
    with serving(FUNCTIONS / "classify", MLAAS_PRELOAD_MODEL='{"name": "infn-structures"}') as (url, _):
        wait_for(f"{url}/health/readiness")
        assert requests.get(f"{url}/health/liveness", timeout=5).text == "OK"
        answer = requests.post(
            url, json={"model": {"name": "infn-structures"}, "predict_input": {"input_text": ["INFN Frascati"]}}, timeout=10
        )
        assert answer.json()["predictions"][0]["label"] == "LNF"
        assert (
            'mlaas_request_seconds_count{capability="classify",outcome="succeeded"} 1.0' in requests.get(f"{url}/metrics", timeout=5).text
        )


def test_a_function_whose_model_is_absent_lives_but_is_not_ready(home: Settings) -> None:
    with serving(FUNCTIONS / "classify", MLAAS_PRELOAD_MODEL='{"name": "absent"}') as (url, _):
        wait_for(f"{url}/health/liveness")
        time.sleep(0.5)
        answer = requests.get(f"{url}/health/readiness", timeout=5)
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")


def test_on_sigterm_requests_in_flight_are_answered_and_no_new_ones_are_ready(tmp_path: Path) -> None:
    (tmp_path / "func.py").write_text(SLOW)
    with serving(tmp_path) as (url, process):
        wait_for(f"{url}/health/readiness")
        answers: list[int] = []
        threads = [
            threading.Thread(target=lambda: answers.append(requests.post(f"{url}/?s=1.5", timeout=20).status_code)) for _ in range(6)
        ]
        for thread in threads:
            thread.start()
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join()
        assert answers == [200] * 6  # four at once, two that waited for a thread
        assert process.wait(timeout=10) == 0


def test_too_many_waiting_requests_are_told_to_come_back(tmp_path: Path) -> None:
    (tmp_path / "func.py").write_text(SLOW)
    with serving(tmp_path, MLAAS_THREADS="1", MLAAS_WAITING="2") as (url, _):
        wait_for(f"{url}/health/readiness")
        statuses: list[tuple[int, str | None]] = []

        def ask() -> None:
            answer = requests.post(f"{url}/?s=0.3", timeout=20)
            statuses.append((answer.status_code, answer.headers.get("Retry-After")))

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (429, "1") in statuses
        assert (200, None) in statuses


def test_a_process_that_is_told_to_stop_while_it_starts_ends_by_itself(tmp_path: Path) -> None:
    """The first process of a container ignores signals that it has no handler for: it would stay until it is killed."""
    (tmp_path / "func.py").write_text("import pathlib, time\npathlib.Path(__file__).with_name('loading').touch()\ntime.sleep(20)\n")
    with serving(tmp_path) as (_, process):
        deadline = time.monotonic() + 20
        while not (tmp_path / "loading").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        process.terminate()
        assert process.wait(10) == 0


def test_the_environment_may_name_the_function(tmp_path: Path) -> None:
    (tmp_path / "func.py").write_text(SLOW)
    with serving(Path(), MLAAS_FUNCTION=str(tmp_path)) as (url, _):
        wait_for(f"{url}/health/readiness")
        assert requests.post(url, timeout=10).status_code == 200


def test_the_log_has_one_json_line_for_each_request_and_never_its_text(home: Settings) -> None:
    with serving(FUNCTIONS / "classify") as (url, process):
        wait_for(f"{url}/health/readiness")
        requests.post(url, json={"model": {"name": "infn-structures"}, "predict_input": {"input_text": ["a private text"]}}, timeout=10)
        requests.post(url, json={"model": {"name": "infn-structures"}, "predict_input": {"input_text": "a private text"}}, timeout=10)
        process.terminate()
        log = process.communicate(timeout=30)[1].decode()
    lines: list[dict[str, Any]] = [json.loads(line) for line in log.splitlines()]
    assert [line["outcome"] for line in lines if line["event"] == "request.answered"] == ["succeeded", "refused"]
    assert "private" not in log


@pytest.mark.parametrize(
    ("arguments", "environment", "said"),
    [
        (["/nowhere"], {}, "holds no func.py"),
        ([], {}, "set MLAAS_FUNCTION"),
        ([str(FUNCTIONS / "classify")], {"PORT": "eighty"}, "PORT cannot be used"),
    ],
)
def test_a_wrong_start_says_what_is_wrong(arguments: list[str], environment: dict[str, str], said: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "mlaas.serve", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=30,
        check=False,
    )
    assert ran.returncode == 1
    assert said in ran.stderr
    assert "Traceback" not in ran.stderr
