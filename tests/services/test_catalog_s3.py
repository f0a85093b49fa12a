"""The catalog on a real object store: uploads go into the bucket, files are sent by links."""

from __future__ import annotations

from pathlib import Path

import pytest
import requests

from mlaas import serve, settings
from mlaas.client import Client
from mlaas.documents import shared
from mlaas.settings import Settings
from mlaas.testing.s3_server import BUCKET, S3Server

pytestmark = pytest.mark.services
FUNCTION = Path(__file__).parents[2] / "functions" / "catalog"
TOKEN = {"Authorization": "Bearer t"}
ROWS = b"text,label\nINFN Pisa,PI\n"


@pytest.fixture
def on_s3(home: Settings, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Settings:
    for name, value in {
        "MLAAS_TOKEN": "t",
        "MLAAS_S3_ENDPOINT": s3_server.endpoint,
        "MLAAS_UPLOADS": f"s3:{BUCKET}/uploads",
        "MLAAS_CACHE": str(tmp_path / "cache"),
    }.items():
        monkeypatch.setenv(name, value)
    settings.current.cache_clear()
    return settings.current()


def test_an_upload_goes_into_the_bucket_and_comes_back_by_a_link_that_needs_no_token(on_s3: Settings) -> None:
    client = serve.create_app(serve.load_function(FUNCTION), serve.State(ready=True)).test_client()
    done = client.post("/v1/datasets/rows/versions?filename=rows.csv&visibility=public", data=ROWS, headers=TOKEN)
    assert done.status_code == 201, done.text
    version = client.get(done.json["href"]).json
    assert (version["storage_type"], version["path"].partition("/")[0]) == ("s3", BUCKET)
    (file,) = client.get(version["files_href"]).json["items"]
    sent = client.get(file["href"])
    assert sent.status_code == 307
    assert requests.get(sent.headers["Location"], timeout=30).content == ROWS
    assert requests.get(sent.headers["Location"], headers={"Range": "bytes=0-3"}, timeout=30).content == ROWS[:4]
    assert client.get(f"{version['files_href']}/absent").status_code == 404
    assert client.get("/v1/datasets/rows").json["downloads"] == 1


def test_files_that_no_catalog_entry_lists_are_listed_as_the_bucket_has_them(on_s3: Settings) -> None:
    client = serve.create_app(serve.load_function(FUNCTION), serve.State(ready=True)).test_client()
    done = client.post("/v1/datasets/old/versions?filename=rows.csv", data=ROWS, headers=TOKEN)
    stored = shared().get("datasets", "old/1")
    shared().replace("datasets", stored, {name: value for name, value in stored.body.items() if name != "files"})
    items = client.get(f"{done.json['href']}/files", headers=TOKEN).json["items"]
    assert [(one["name"], one["size"]) for one in items] == [("rows.csv", len(ROWS))]


def test_the_client_follows_links_to_the_bucket_and_sends_no_token_there(on_s3: Settings, gateway: str, tmp_path: Path) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_bytes(ROWS)
    with Client(gateway) as client:
        assert client.datasets.upload("linked", rows).version == "1"
        folder = client.datasets.download("linked", tmp_path / "linked")  # S3 refuses a request with both a signature and a token
    assert (folder / "rows.csv").read_bytes() == ROWS
