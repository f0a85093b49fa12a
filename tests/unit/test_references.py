"""Claim checks: what is too large for an event lies in a storage, and what comes back is verified."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from mlaas import events, references
from mlaas.contracts import DatasetRef
from mlaas.errors import InvalidRequest, NotFound, TooLarge
from mlaas.settings import Settings, load
from mlaas.storage.manifests import sha256_of


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    made = load({"MLAAS_HOME": str(tmp_path / "home"), "MLAAS_MAX_EVENT_BYTES": "2000"})
    made.artefacts.mkdir(parents=True)
    return made


def reply(data: Any) -> Any:
    return events.reply(events.new("classify", {}, id="r"), "classify", "succeeded", data)


def test_the_exchange_is_a_place_in_a_storage(settings: Settings) -> None:
    assert references.in_exchange(settings, "results", "t") == ("exchange/results/t", "local")
    elsewhere = dataclasses.replace(settings, exchange=load({"MLAAS_EXCHANGE": "s3:bucket/mlaas/"}).exchange)
    assert references.in_exchange(elsewhere, "x") == ("bucket/mlaas/x", "s3")


@pytest.mark.parametrize("value", ["exchange", "ftp:x", "local:", "local:/", "s3:"])
def test_an_exchange_that_is_no_place_stops_the_start_and_names_the_setting(value: str) -> None:
    with pytest.raises(Exception, match="MLAAS_EXCHANGE"):
        load({"MLAAS_EXCHANGE": value})


def test_a_file_is_fetched_when_its_size_and_sha256_agree(settings: Settings) -> None:
    file = settings.artefacts / "a.csv"
    file.write_text("text\nx\n")
    ref = DatasetRef(path="a.csv", size=7, sha256=sha256_of(file))
    assert references.fetch(ref, part="dataset", settings=settings) == file


@pytest.mark.parametrize(("change", "field"), [({"size": 8}, "dataset.size"), ({"sha256": "0" * 64}, "dataset.sha256")])
def test_a_file_that_is_another_one_is_refused_by_the_field_that_disagrees(settings: Settings, change: dict[str, Any], field: str) -> None:
    (settings.artefacts / "a.csv").write_text("text\nx\n")
    with pytest.raises(InvalidRequest) as caught:
        references.fetch(DatasetRef(path="a.csv", **change), part="dataset", settings=settings)
    assert caught.value.field == field
    assert caught.value.remedy


def test_a_folder_has_no_sha256_of_its_own(settings: Settings) -> None:
    (settings.artefacts / "f").mkdir()
    assert references.fetch(DatasetRef(path="f"), part="dataset", settings=settings).is_dir()
    with pytest.raises(InvalidRequest, match="no single file"):
        references.fetch(DatasetRef(path="f", sha256="0" * 64), part="dataset", settings=settings)


def test_a_small_reply_stays_as_it_is(settings: Settings) -> None:
    event = reply({"label": "LNF"})
    assert references.fitted(event, settings) is event
    assert references.resolved(event, settings) is event
    assert not (settings.artefacts / "exchange").exists()


def test_a_large_reply_becomes_a_reference_and_comes_back_whole_the_same_each_time(settings: Settings) -> None:
    event = reply({"predictions": ["è" * 10] * 300})
    fitted = [references.fitted(event, settings) for _ in range(3)]
    assert len({json.dumps(events.to_json(one)) for one in fitted}) == 1
    assert fitted[0]["dataref"] == f"local:exchange/replies/{event['id']}.json"
    assert set(fitted[0].data["reference"]) == {"path", "storage_type", "size", "sha256"}
    assert {name: fitted[0][name] for name in event.get_attributes()} == dict(event.get_attributes())
    _, body = events.to_http(fitted[0])
    assert len(body) < 2000
    assert references.resolved(fitted[0], settings).data == event.data


def test_a_reply_whose_data_are_gone_or_changed_is_not_taken(settings: Settings) -> None:
    fitted = references.fitted(reply({"x": "y" * 3000}), settings)
    file = settings.artefacts / fitted.data["reference"]["path"]
    file.write_bytes(file.read_bytes().replace(b"yyy", b"yyz", 1))
    with pytest.raises(InvalidRequest) as caught:
        references.resolved(fitted, settings)
    assert caught.value.field == "data.reference.sha256"
    file.unlink()
    with pytest.raises(NotFound):
        references.resolved(fitted, settings)


@pytest.mark.parametrize("reference", [None, [], {"path": "../x"}, {"path": "../x", "storage_type": "local", "size": 1, "sha256": "0"}])
def test_a_reference_that_is_none_or_leaves_the_root_is_refused(settings: Settings, reference: Any) -> None:
    fitted = references.fitted(reply({"x": "y" * 3000}), settings)
    fitted.data = {"reference": reference}
    with pytest.raises(InvalidRequest):
        references.resolved(fitted, settings)


def test_a_request_that_is_too_large_for_an_event_is_refused_with_the_way_out() -> None:
    references.check_event_size(10, 10)
    with pytest.raises(TooLarge) as caught:
        references.check_event_size(11, 10)
    assert "mlaas classify --file" in str(caught.value.remedy)
    assert "dataset" in str(caught.value.remedy)
