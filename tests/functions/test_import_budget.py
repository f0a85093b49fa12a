"""What a process imports from its start to its first answer. Seconds depend on the machine, modules do not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from mlaas.local.processes import free_port
from mlaas.testing import tiny_models

ROOT = Path(__file__).parent.parent.parent
STANDARD = "the standard library"
# Modules by package. Raise a number only for what the first answer needs; whatever else is imported where it is used.
BUDGET = {
    "mlaas": 68,
    STANDARD: 200,
    "numpy": 90,
    "pydantic": 44,
    "pydantic_core": 3,
    "annotated_types": 1,
    "typing_extensions": 1,
    "typing_inspection": 3,
    "cloudevents": 2,
    "waitress": 16,
    "onnxruntime": 12,
    "tokenizers": 16,
}
# Never for an answer, however few of their modules: each takes longer than the answer itself.
FORBIDDEN = (
    "flask", "werkzeug", "jinja2", "click", "parliament", "requests", "urllib3", "boto3", "botocore", "kafka", "pymongo", "pyarrow", "faiss",
    "huggingface_hub", "prometheus_client", "opentelemetry", "orjson", "onnx", "torch", "transformers", "sklearn", "scipy", "pandas",
)  # fmt: skip
# The process serves as `python -m mlaas.serve` does; a thread of it asks as a client would, and says what is imported when the answer is there.
PROGRAM = """
import os, runpy, socket, sys, threading, time

body, port = sys.argv.pop().encode(), int(os.environ["PORT"])

def ask():
    try:
        while True:
            try:
                connection = socket.create_connection(("127.0.0.1", port), timeout=30)
                break
            except ConnectionError:
                time.sleep(0.01)
        connection.sendall(b"POST / HTTP/1.0\\r\\nContent-Type: application/json\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(body) + body)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
        print(answer.split(b"\\r\\n")[0].decode(), *sys.modules, sep="\\n", flush=True)
    finally:
        os._exit(0)

threading.Thread(target=ask, daemon=True).start()
runpy.run_module("mlaas.serve", run_name="__main__")
"""


@pytest.fixture(scope="module", params=["named by the first request", "preloaded"])
def imported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Counter[str]:
    """How many modules of each package a process has imported when it has answered its first request."""
    root = tmp_path_factory.mktemp("root")
    tiny_models.classifier(root / "model")
    model = {"path": "model", "storage_type": "local"}
    body = json.dumps({"model": model, "predict_input": {"input_text": ["INFN Frascati"]}})
    environment = {
        **os.environ,
        "MLAAS_ROOT": str(root),
        "MLAAS_HOME": str(root / "home"),
        "PORT": str(free_port()),
        "MLAAS_HOST": "127.0.0.1",
    }
    if request.param == "preloaded":
        environment["MLAAS_PRELOAD_MODEL"] = json.dumps(model)
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, "functions/classify", body],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    status, *names = ran.stdout.splitlines() or [""]
    assert status == "HTTP/1.0 200 OK", ran.stderr
    tops = (name.partition(".")[0] for name in names)
    return Counter(STANDARD if top in sys.stdlib_module_names or top.startswith(("_", "sitecustomize")) else top for top in tops)


def test_no_more_modules_are_imported_for_the_first_answer_than_the_budget_says(imported: Counter[str]) -> None:
    new = sorted(package for package in imported if package not in BUDGET)
    over = [
        f"{package}: {count} modules, {BUDGET[package]} allowed"
        for package, count in sorted(imported.items())
        if count > BUDGET.get(package, count)
    ]
    assert not new, f"a cold start imports packages that are new: {', '.join(new)}. Import them where they are used."
    assert not over, f"a cold start imports more than it may: {'; '.join(over)}"


def test_what_takes_longer_to_import_than_to_answer_is_not_imported(imported: Counter[str]) -> None:
    assert [package for package in FORBIDDEN if imported[package]] == []
    assert imported["onnxruntime"] >= 1, "it has answered"
