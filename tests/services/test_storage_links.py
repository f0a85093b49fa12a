"""Links for downloads, downloads to a folder, and credentials; on a real S3 server that asks for credentials."""

import dataclasses
import hashlib
import json
import logging
import os
import re
import time
from pathlib import Path

import pytest
import requests
from typer.testing import CliRunner

from mlaas import documents, models, settings, storage
from mlaas.bundles import open_bundle
from mlaas.catalog import Catalog
from mlaas.cli import app
from mlaas.contracts import ModelRef
from mlaas.errors import InvalidRequest, MlaasError, NotFound, Unavailable
from mlaas.settings import Settings
from mlaas.storage import s3_client
from mlaas.testing import tiny_models
from mlaas.testing.s3_server import BUCKET, S3Server

pytestmark = pytest.mark.services


@pytest.fixture
def here(tmp_path: Path, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """This process is configured for a home with nothing in it and the S3 server."""
    monkeypatch.setenv("MLAAS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MLAAS_DOCUMENTS", f"sqlite:///{tmp_path}/documents.sqlite")
    monkeypatch.setenv("MLAAS_S3_ENDPOINT", s3_server.endpoint)
    settings.current.cache_clear()
    yield settings.current()
    documents.shared().close()
    settings.current.cache_clear()


@pytest.fixture
def entry(here: Settings, tmp_path: Path) -> dict[str, str]:
    """A model on S3 with an entry in the catalog."""
    bundle = tiny_models.embedder(tmp_path / "made")
    path = storage.publish(bundle.folder, f"{BUCKET}/{tmp_path.name}/m", "s3", "v1", settings=here)
    return Catalog(documents.shared()).publish("models", "tiny", bundle.digest, {"path": path, "storage_type": "s3"})


def mlaas(*arguments: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, list(arguments))
    return done.exit_code, done.stdout, done.stderr


def test_anybody_can_download_a_version_by_its_links(here: Settings, entry: dict[str, str], tmp_path: Path) -> None:
    links = storage.links(entry["path"], "s3", settings=here)
    assert sorted(link.name for link in links) == sorted(os.listdir(tmp_path / "made"))
    for link in links:
        content = requests.get(link.url, timeout=10).content
        assert content == (tmp_path / "made" / link.name).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (link.size, link.sha256)
        assert requests.get(link.url.partition("?")[0], timeout=10).status_code == 403  # the store does ask for a signature


def test_the_links_of_a_path_are_those_of_the_version_that_is_current(here: Settings, entry: dict[str, str]) -> None:
    parent = entry["path"].rpartition("/")[0]
    names = [link.url.partition("?")[0] for link in storage.links(parent, "s3", settings=here)]
    assert names == [link.url.partition("?")[0] for link in storage.links(parent, "s3", settings=here, revision="v1")]
    with pytest.raises(NotFound):
        storage.links(parent, "s3", settings=here, revision="v2")


def test_a_link_expires_and_serves_no_other_file(here: Settings, entry: dict[str, str]) -> None:
    first, second = storage.links(entry["path"], "s3", settings=here, seconds=2)[:2]
    assert requests.get(first.url, timeout=10).status_code == 200
    assert requests.get(second.url.partition("?")[0] + "?" + first.url.partition("?")[2], timeout=10).status_code == 403
    time.sleep(3)
    assert requests.get(first.url, timeout=10).status_code == 403


def test_a_file_that_was_put_has_a_link_with_its_sha256(here: Settings, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("text\n")
    storage.put(tmp_path / "rows.csv", f"{BUCKET}/{tmp_path.name}/rows.csv", "s3", settings=here)
    (link,) = storage.links(f"{BUCKET}/{tmp_path.name}/rows.csv", "s3", settings=here)
    assert (link.name, link.size, link.sha256) == ("rows.csv", 5, hashlib.sha256(b"text\n").hexdigest())


def test_links_name_the_endpoint_that_their_users_reach(here: Settings, entry: dict[str, str]) -> None:
    public = dataclasses.replace(here, s3_public_endpoint="https://s3.example.org")
    assert all(link.url.startswith(f"https://s3.example.org/{BUCKET}/") for link in storage.links(entry["path"], "s3", settings=public))


@pytest.mark.parametrize("kind", ["local", "hugging_face_hub"])
def test_there_are_no_links_to_other_storages(here: Settings, kind: str) -> None:
    with pytest.raises(InvalidRequest, match="S3 only") as caught:
        storage.links("models/m", kind, settings=here)
    assert caught.value.field == "storage_type"
    assert "mlaas catalog download" in caught.value.remedy


@pytest.mark.parametrize("seconds", [0, -1, 7 * 86400 + 1])
def test_a_link_is_valid_for_a_week_at_the_most(here: Settings, seconds: int) -> None:
    with pytest.raises(InvalidRequest) as caught:
        storage.links(f"{BUCKET}/m", "s3", settings=here, seconds=seconds)
    assert caught.value.field == "seconds"


def test_the_command_line_makes_links(entry: dict[str, str]) -> None:
    status, output, _ = mlaas("catalog", "links", "tiny", "--expires", "30m", "--json")
    links = json.loads(output)
    assert status == 0
    assert [set(link) for link in links] == [{"name", "url", "size", "sha256"}] * len(links)
    assert all("X-Amz-Expires=1800" in link["url"] for link in links)
    assert all(requests.get(link["url"], timeout=10).status_code == 200 for link in links)
    status, output, _ = mlaas("catalog", "links", "tiny")
    assert status == 0
    assert all(requests.get(url, timeout=10).status_code == 200 for url in re.findall(r"http://\S+", output))
    assert re.findall(r"http://\S+", output)
    for wrong in (["--expires", "8d"], ["--expires", "soon"], ["--version", "7"], ["--kind", "cats"]):
        assert mlaas("catalog", "links", "tiny", *wrong)[0] == 3


def test_the_command_line_downloads_an_entry_whole_into_a_new_folder(
    entry: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    status, output, _ = mlaas("catalog", "download", "tiny", "--json")
    assert status == 0, output
    assert open_bundle(tmp_path / "tiny-1").digest == entry["digest"]
    assert json.loads(output)["folder"] == "tiny-1"
    status, _, errors = mlaas("catalog", "download", "tiny")
    assert status == 3
    assert "no empty folder" in errors
    (tmp_path / "empty").mkdir()
    assert mlaas("catalog", "download", "tiny", "--to", "empty", "--version", "1")[0] == 0
    assert open_bundle(tmp_path / "empty").digest == entry["digest"]
    assert not list(tmp_path.glob(".*"))


def test_a_staged_model_is_served_from_the_catalog_without_the_object_store(here: Settings, tmp_path: Path) -> None:
    bundle = tiny_models.embedder(tmp_path / "made")
    path = storage.publish(bundle.folder, f"{BUCKET}/{tmp_path.name}/m", "s3", bundle.digest[:16], settings=here)
    Catalog(documents.shared()).publish("models", "tiny", bundle.digest, {"path": path, "storage_type": "s3"})
    for _ in range(2):
        status, output, _ = mlaas("catalog", "stage", "tiny", "--to", str(tmp_path / "models"), "--json")
        assert status == 0, output
        assert [one["folder"] for one in json.loads(output)["models"]] == [str(tmp_path / "models" / bundle.digest[:16])]
    away = dataclasses.replace(here, staged=tmp_path / "models", s3_endpoint="http://127.0.0.1:9", cache=tmp_path / "none")
    loaded = models.load(ModelRef(name="tiny"), settings=away)
    assert loaded.model.bundle.folder == tmp_path / "models" / bundle.digest[:16]
    assert loaded.version.digest == bundle.digest


def test_a_version_that_no_function_would_find_is_not_staged(entry: dict[str, str], tmp_path: Path) -> None:
    status, _, errors = mlaas("catalog", "stage", "tiny", "--to", str(tmp_path / "models"))
    assert status == 3
    assert "not named after its files" in errors
    assert not (tmp_path / "models").exists()


def test_a_download_that_is_damaged_on_the_way_leaves_no_folder(entry: dict[str, str], here: Settings, tmp_path: Path) -> None:
    place = storage.fetch(entry["path"], "s3", settings=here)
    content = (place / "model.onnx").read_bytes()
    (place / "model.onnx").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))  # a bad disk under the cache
    with pytest.raises(InvalidRequest, match=r"`model\.onnx`"):
        storage.download(entry["path"], "s3", tmp_path / "copy", settings=here)
    assert not (tmp_path / "copy").exists()
    assert not list(tmp_path.glob(".copy*"))


def test_settings_hold_no_credentials_of_the_object_store() -> None:
    for spec in dataclasses.fields(Settings):
        assert not spec.metadata["env"].startswith("AWS_")
        assert not re.search("access_key|secret_key|session_token|^aws|^s3_.*(secret|password|key|token)", spec.name)


@pytest.fixture
def without_variables(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    s3_client.forget()
    yield monkeypatch
    s3_client.forget()


def test_credentials_come_from_a_profile_in_the_usual_file(
    entry: dict[str, str], here: Settings, s3_server: S3Server, tmp_path: Path, without_variables: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Unavailable, match="no credentials"):
        storage.exists(entry["path"], "s3", settings=here)
    file = tmp_path / "credentials"
    file.write_text(
        f"[default]\naws_access_key_id = nobody\naws_secret_access_key = wrong\n\n"
        f"[institute]\naws_access_key_id = {s3_server.access_key}\naws_secret_access_key = {s3_server.secret_key}\n"
    )
    without_variables.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    without_variables.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    s3_client.forget()
    with pytest.raises(Unavailable, match="credentials"):
        storage.exists(entry["path"], "s3", settings=here)
    without_variables.setenv("AWS_PROFILE", "institute")
    s3_client.forget()
    assert storage.exists(entry["path"], "s3", settings=here)


def test_nothing_of_the_credentials_is_told_or_logged(
    entry: dict[str, str], here: Settings, without_variables: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    without_variables.setenv("AWS_ACCESS_KEY_ID", "mlaas")
    without_variables.setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret")
    without_variables.setenv("AWS_SESSION_TOKEN", "a-session-token")
    s3_client.forget()
    told = []
    with caplog.at_level(logging.INFO):
        for call in (
            lambda: storage.fetch(entry["path"], "s3", settings=here),
            lambda: storage.put(tmp_path / "made" / "config.json", f"{BUCKET}/x", "s3", settings=here),
            lambda: storage.remove(f"{BUCKET}/x", "s3", settings=here),
            lambda: storage.links(entry["path"], "s3", settings=here),
        ):
            with pytest.raises(MlaasError) as caught:
                call()
            told.append(f"{caught.value!r} {caught.value.detail} {caught.value.remedy} {caught.value.field}")
            assert isinstance(caught.value, Unavailable)
    for text in (*told, caplog.text, repr(here)):
        for secret in ("not-the-secret", "a-session-token", "AWS_ACCESS_KEY_ID=", "key id", here.s3_endpoint if text in told else "\0"):
            assert secret not in text
