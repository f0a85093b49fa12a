"""The real huggingface_hub library against a small imitation of the hub's HTTP interface on loopback."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from mlaas import storage
from mlaas.bundles import open_bundle
from mlaas.errors import InvalidRequest, NotFound
from mlaas.settings import Settings

COMMIT = "c" * 40
FILES = {
    "config.json": b'{"architectures": ["BertForMaskedLM"]}',
    "tokenizer.json": b"{}",
    "onnx/model.onnx": b"graph",
    "onnx/model_int8.onnx": b"small graph",
    "model.safetensors": b"weights",
    "pytorch_model.bin": b"pickle",
    "pickled.pkl": b"pickle",
    "weights.pt": b"pickle",
    "vocab.txt": b"words",
}
# Each fetch and its outcome as one line of JSON: the library reads its environment on import, so it gets an own process.
PROGRAM = """
import json, sys
from pathlib import Path
from mlaas import storage
from mlaas.errors import MlaasError
from mlaas.settings import Settings
for call, path, revision in json.loads(sys.argv[1]):
    try:
        result = getattr(storage, call)(path, "hugging_face_hub", settings=Settings(home=Path("/nonexistent")), revision=revision)
        print(json.dumps([type(result).__name__, str(result)]))
    except MlaasError as error:
        print(json.dumps([type(error).__name__, error.detail + " " + str(error.remedy)]))
"""


@dataclass
class Hub:
    url: str = ""
    asked: list[str] = field(default_factory=list)
    tokens: set[str | None] = field(default_factory=set)


def answer(handler: BaseHTTPRequestHandler, status: int, body: bytes = b"", **headers: str) -> None:
    handler.send_response(status)
    for name, value in {"Content-Length": str(len(body)), **headers}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    if handler.command == "GET":
        handler.wfile.write(body)


def serve(handler: BaseHTTPRequestHandler) -> None:
    path = handler.path.partition("?")[0]
    if path in {f"/api/models/o/good/revision/{name}" for name in ("main", "v1", COMMIT)} | {"/api/models/o/good"}:
        info = {"id": "o/good", "sha": COMMIT, "siblings": [{"rfilename": name} for name in FILES]}
        answer(handler, 200, json.dumps(info).encode(), Content_Type="application/json")
    elif path.startswith("/api/models/o/good/revision/"):
        answer(handler, 404, X_Error_Code="RevisionNotFound")
    elif path.startswith("/api/models/o/gated"):
        answer(handler, 403, X_Error_Code="GatedRepo")
    elif path.startswith("/api/models/o/broken"):
        answer(handler, 500)
    elif path.startswith(prefix := f"/o/good/resolve/{COMMIT}/") and (name := path.removeprefix(prefix)) in FILES:
        answer(handler, 200, FILES[name], ETag=f'"{hashlib.sha1(FILES[name]).hexdigest()}"', X_Repo_Commit=COMMIT)
    else:
        answer(handler, 404, X_Error_Code="RepoNotFound")


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    state = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.asked.append(self.path)
            state.tokens.add(self.headers.get("authorization"))
            serve(self)

        do_HEAD = do_GET  # noqa: N815 - the library's name

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield state
    server.shutdown()
    server.server_close()
    thread.join()


def outcomes(home: Path, calls: list[tuple[str, str, str | None]], **environ: str) -> list[tuple[str, str]]:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("HF_") and "proxy" not in name.lower()}
    plain |= {"HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1", **environ}
    done = subprocess.run([sys.executable, "-c", PROGRAM, json.dumps(calls)], env=plain, check=True, capture_output=True, text=True)
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


def test_a_repository_is_fetched_once_without_pickles_and_then_served_offline(hub: Hub, tmp_path: Path) -> None:
    calls: list[tuple[str, str, str | None]] = [("fetch", "o/good", None), ("fetch", "o/good", "v1"), ("exists", "o/good", None)]
    first, tagged, exists = outcomes(tmp_path, calls, HF_ENDPOINT=hub.url, HF_TOKEN="hf_secret")
    folder = Path(first[1])
    assert tagged == first
    assert exists == ("bool", "True")
    wanted = ["config.json", "model.safetensors", "onnx/model.onnx", "tokenizer.json", "vocab.txt"]
    assert sorted(one.relative_to(folder).as_posix() for one in folder.rglob("*") if one.is_file()) == wanted
    assert sum(path.endswith("/onnx/model.onnx") for path in hub.asked) == 2  # its headers, its content
    assert "Bearer hf_secret" in hub.tokens
    assert open_bundle(folder).objective == "masked-lm"
    calls = [("fetch", "o/good", None), ("exists", "o/good", None), ("fetch", "o/other", None), ("exists", "o/other", None)]
    again, there, other, absent = outcomes(tmp_path, calls, HF_ENDPOINT=hub.url, HF_HUB_OFFLINE="1")
    assert again == first
    assert (there, absent) == (("bool", "True"), ("bool", "False"))
    assert other[0] == "NotFound"
    assert "HF_HUB_OFFLINE" in other[1]


def test_what_the_hub_refuses_becomes_an_error_with_a_remedy(hub: Hub, tmp_path: Path) -> None:
    asked = [("o/missing", None), ("o/good", "no-such"), ("o/gated", None), ("o/broken", None), ("a/b/c", None), ("../x", None)]
    found = outcomes(tmp_path, [("fetch", path, revision) for path, revision in asked], HF_ENDPOINT=hub.url)
    assert [kind for kind, _ in found] == ["NotFound", "NotFound", "NotFound", "Unavailable", "InvalidRequest", "InvalidRequest"]
    assert "HF_TOKEN" in found[0][1]
    assert "terms" in found[2][1]
    assert not any("127.0.0.1" in text or "None" in text for _, text in found)
    assert outcomes(tmp_path, [("exists", "o/missing", None)], HF_ENDPOINT=hub.url) == [("bool", "False")]


def test_a_hub_that_cannot_be_reached_is_unavailable(tmp_path: Path) -> None:
    calls: list[tuple[str, str, str | None]] = [("fetch", "o/good", None), ("exists", "o/good", None)]
    assert [kind for kind, _ in outcomes(tmp_path, calls, HF_ENDPOINT="http://127.0.0.1:9")] == ["Unavailable", "Unavailable"]


def test_the_hub_can_be_switched_off_and_is_never_written_to(tmp_path: Path) -> None:
    for call in (storage.fetch, storage.exists):
        with pytest.raises(InvalidRequest, match="does not use") as caught:
            call("o/good", "hugging_face_hub", settings=Settings(hub_allowed=False))
        assert not isinstance(caught.value, NotFound)
    with pytest.raises(InvalidRequest, match="published"):
        storage.publish(tmp_path, "o/good", "hugging_face_hub", "v1", settings=Settings())
    for call in (
        lambda: storage.put(tmp_path / "a", "o/good", "hugging_face_hub", settings=Settings()),
        lambda: storage.names("o/good", "hugging_face_hub", settings=Settings()),
        lambda: storage.remove("o/good", "hugging_face_hub", settings=Settings()),
    ):
        with pytest.raises(InvalidRequest) as caught:
            call()
        assert (caught.value.field, caught.value.remedy) == ("storage_type", "Use `local` or `s3`.")
