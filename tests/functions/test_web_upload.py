"""Models and data sets that are uploaded by the form of the web app: published, or refused in the page with the reason."""

from __future__ import annotations

import io
import re
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests

from mlaas import models, storage
from mlaas.catalog import Catalog, audit
from mlaas.contracts import ModelRef
from mlaas.documents import shared
from mlaas.settings import Settings
from mlaas.tasks import Tasks
from mlaas.testing.local_issuer import LocalIssuer

ROWS = b"text,label\nINFN Frascati,LNF\nINFN Pisa,PI\n"
LIMIT = 8 * 1024**2


@pytest.fixture
def url(configured: Callable[..., None], served: Callable[[str], str]) -> str:
    configured(upload_bytes=LIMIT)
    return served("catalog")


Send = Callable[..., requests.Response]


@pytest.fixture
def sender(url: str, issuer: LocalIssuer) -> Callable[..., Send]:
    """`sender(sub="ada")` logs in; what it gives sends the form."""

    def log_in(**claims: Any) -> Send:
        browser = requests.Session()
        token = issuer.token(**{"sub": "ada", "groups": ["ml-users"], **claims})
        assert browser.post(f"{url}/web/login", data={"token": token}, allow_redirects=False).status_code == 303
        proof = re.search(r'name="csrf" value="([0-9a-f]{64})"', browser.get(f"{url}/web/").text)
        assert proof

        def send(file: Any = ("a.csv", ROWS), **fields: str) -> requests.Response:
            data = {"csrf": proof[1], "kind": "datasets", "name": "mine", **fields}
            return browser.post(f"{url}/web/upload", data=data, files={"filename": file}, allow_redirects=False)

        return send

    return log_in


def at_work(home: Settings) -> set[Path]:
    """What is in the folder of all work: the platform of all tests keeps what another's killed job has left."""
    return set((home.home / "work").glob("*"))


def test_a_data_set_is_published_as_its_senders_and_said_more_of(sender: Callable[..., Send], home: Settings) -> None:
    send, before = sender(), at_work(home)
    more = {"visibility": "private", "tag": "infn, test", "language": "en it", "licence": "mit", "description": "Mine."}
    answer = send(("my rows (final).csv", ROWS), **more)
    assert (answer.status_code, answer.headers["Location"]) == (303, "/web/datasets/mine?version=1"), answer.text
    entry = Catalog(shared()).entry("datasets", "mine")
    assert (entry.owner, entry.visibility, list(entry.tags), list(entry.languages)) == ("ada", "private", ["infn", "test"], ["en", "it"])
    version = Catalog(shared()).resolve("datasets", "mine")
    assert (list(version["files"]), version["count"]) == (["my-rows-final-.csv"], 2)
    assert send(("b.csv", ROWS + b"x,y\n")).headers["Location"] == "/web/datasets/mine?version=2"
    found: list[Any] = audit.find(shared())[0]
    assert [(one.subject, one.operation, one.kind, one.name, one.outcome, one.made) for one in found] == [
        ("ada", "web.upload", "datasets", "mine", "succeeded", "/web/datasets/mine?version=2"),
        ("ada", "web.upload", "datasets", "mine", "succeeded", "/web/datasets/mine?version=1"),
    ]
    assert at_work(home) == before


def test_a_model_is_published_and_answers_and_a_checkpoint_becomes_a_task(sender: Callable[..., Send], home: Settings) -> None:
    first = Catalog(shared()).resolve("models", "infn-structures")
    folder = storage.fetch(first["path"], first["storage_type"], settings=home)
    packed, checkpoint = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for file in folder.iterdir():
            archive.write(file, f"model/{file.name}")
    answer = sender()(("model.zip", packed.getvalue()), kind="models", name="my-model")
    assert answer.headers["Location"] == "/web/models/my-model?version=1"
    assert models.load(ModelRef(name="my-model")).version.objective == "text-classification"
    with zipfile.ZipFile(checkpoint, "w") as archive:
        archive.writestr("config.json", '{"model_type": "bert", "architectures": ["BertForMaskedLM"]}')
        archive.writestr("model.safetensors", b"\x02\0\0\0\0\0\0\0{}")
    answer = sender()(("checkpoint.zip", checkpoint.getvalue()), kind="models", name="my-other", task="masked-lm")
    (task,) = Tasks(shared()).find()[0]
    assert (answer.status_code, answer.headers["Location"]) == (303, f"/web/tasks/{task['task_id']}"), answer.text


@pytest.mark.parametrize(
    ("file", "fields", "status", "said"),
    [
        (("", b""), {}, 422, "No file is chosen. Choose one."),
        (("a.csv", b""), {}, 422, "The body is empty"),
        (("a.exe", b"x"), {}, 422, "wrong-filename"),
        (("a.csv", b"text,label\n1,2,3,4\n"), {}, 422, "wrong-filename"),
        (("a.zip", b"no zip"), {"kind": "models"}, 422, "wrong-filename"),
        (("a.csv", ROWS), {"name": "No Name"}, 422, "Use lowercase letters"),
        (("a.csv", ROWS), {"name": ""}, 422, "wrong-name"),
        (("a.csv", ROWS), {"kind": "indexes"}, 422, "wrong-kind"),
        (("a.csv", ROWS), {"visibility": "nobody"}, 422, "wrong-visibility"),
        (("a.csv", ROWS), {"tag": "fine, NOT FINE"}, 422, "at most 50 for each"),
        (("a.csv", ROWS), {"parent": "absent:1"}, 404, "wrong-parent"),
        (("a.csv", ROWS), {"owner": "bob"}, 403, "wrong-owner"),
    ],
)
def test_what_is_refused_is_said_beside_its_field(
    sender: Callable[..., Send], file: Any, fields: dict[str, str], status: int, said: str
) -> None:
    answer = sender()(file, **{"description": "what was <b>written</b>", **fields})
    assert (answer.status_code, said in answer.text) == (status, True), answer.text
    assert "what was &lt;b&gt;written&lt;/b&gt;" in answer.text
    assert "Traceback" not in answer.text
    assert Catalog(shared()).versions("datasets") == []


def test_a_pickle_is_refused_with_the_rest_interfaces_reason(sender: Callable[..., Send]) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("pytorch_model.bin", b"x")
    answer = sender()(("model.zip", packed.getvalue()), kind="models")
    assert (answer.status_code, "may hold code, which is never loaded" in answer.text) == (422, True)


def test_somebody_elses_name_gets_no_version_and_a_hidden_one_is_not_told(sender: Callable[..., Send]) -> None:
    ada, eve = sender(), sender(sub="eve")
    ada(visibility="public")
    assert "belongs to somebody else" in eve().text
    ada(name="hidden", visibility="private")
    answer = eve(name="hidden")
    assert (answer.status_code, "The catalog has no data set" in answer.text) == (404, True)
    assert len(Catalog(shared()).versions("datasets")) == 2


def test_who_may_not_upload_does_not(url: str, sender: Callable[..., Send], issuer: LocalIssuer) -> None:
    assert sender(groups=[])().status_code == 403
    nobody = requests.post(f"{url}/web/upload", data={"name": "x"}, files={"filename": ("a.csv", ROWS)}, allow_redirects=False)
    assert (nobody.status_code, nobody.headers["Location"].startswith("/web/login")) == (303, True)
    forged = sender()(csrf="0" * 64)
    assert (forged.status_code, "not from this session" in forged.text) == (422, True)
    assert Catalog(shared()).versions("datasets") == []


def test_the_limit_holds(sender: Callable[..., Send], home: Settings) -> None:
    send, before = sender(), at_work(home)
    answer = send(("a.csv", ROWS + b"x,y\n" * (LIMIT // 4)))
    assert (answer.status_code, f"larger than {LIMIT} bytes" in answer.text) == (413, True)
    assert send(("a.csv", b"x" * (LIMIT + 2 * 1024**2))).status_code == 413
    answer = send(description="x" * 600_000)
    assert (answer.status_code, "The form is too large" in answer.text) == (413, True)
    assert at_work(home) == before
    assert Catalog(shared()).versions("datasets") == []


def test_a_large_file_does_not_grow_the_memory(sender: Callable[..., Send]) -> None:
    send, large = sender(), ROWS + b"INFN Frascati,LNF\n" * 300_000
    send(name="first")  # which imports what is needed
    tracemalloc.start()
    try:
        assert send(("a.csv", large), name="large").status_code == 303
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 4 * len(large)
