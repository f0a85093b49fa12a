"""Quotas over HTTP: what is refused and when it is possible again, replicas that are processes, and who reads and sets them."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest
import requests
from typer.testing import CliRunner

from mlaas import settings
from mlaas.catalog import Catalog
from mlaas.catalog_api import quotas, received, request_counts
from mlaas.catalog_api.roles import ROLES
from mlaas.cli import app
from mlaas.documents import shared
from mlaas.errors import TooLarge
from mlaas.local.processes import free_port
from mlaas.settings import BadSetting, Settings, load
from mlaas.testing.local_issuer import LocalIssuer

ROOT = Path(__file__).parents[2]
TOKEN = {"Authorization": "Bearer t"}
ROWS = b"text,label\nINFN Frascati,LNF\nINFN Pisa,PI\n"


def of(issuer: LocalIssuer, sub: str, *groups: str, **claims: Any) -> dict[str, str]:
    return {"Authorization": f"Bearer {issuer.token(sub=sub, groups=['ml-users', *groups], **claims)}"}


def quota(url: str, who: dict[str, str], owner: str, name: str) -> dict[str, Any]:
    answer = requests.get(f"{url}/v1/quotas", params={"owner": owner}, headers=who)
    assert answer.status_code == 200, answer.text
    return dict(answer.json()["items"][0][name])


def send(url: str, who: dict[str, str], name: str, data: bytes, **query: str) -> requests.Response:
    return requests.post(f"{url}/v1/datasets/{name}/versions", params={"filename": "a.csv", **query}, data=data, headers=who)


def rows(size: int, seed: str = "x") -> bytes:
    """A CSV file of exactly so many bytes."""
    head = f"text,label\n{seed},".encode()
    return head + b"y" * (size - len(head) - 1) + b"\n"


def test_one_request_too_many_is_refused_until_midnight(
    configured: Callable[..., None], issuer: LocalIssuer, served: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    configured(quota_requests_per_day=10)
    clock = [datetime(2026, 5, 3, 23, 0, 0, tzinfo=UTC)]
    monkeypatch.setattr(quotas, "now", lambda: clock[0])
    url, ada = served("catalog"), of(issuer, "ada")
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: requests.get(f"{url}/v1/models", headers=ada).status_code, range(25)))
    assert sorted(found) == [200] * 10 + [429] * 15
    refused = requests.get(f"{url}/v1/models", headers=ada)
    said = refused.json()
    assert (said["type"], said["title"]) == ("urn:mlaas:problem:quota-exceeded", "Quota exceeded")
    assert "10 requests of a day" in said["detail"]
    assert "2026-05-04T00:00:00Z" in said["remedy"]
    assert 3600 <= int(refused.headers["Retry-After"]) <= 3601
    form = requests.post(f"{url}/web/models/minilm/try", data={"text": "x"}, headers=ada)
    assert (form.status_code, form.headers["Retry-After"].isdecimal()) == (429, True)
    assert requests.get(f"{url}/web/models", headers=ada).status_code == 200, "pages that are looked at do not count"
    assert quota(url, ada, "ada", "requests_per_day") == {"limit": 10, "used": 10, "resets": "2026-05-04T00:00:00Z", "own": False}
    root = {"Authorization": f"Bearer {issuer.token(sub='root', groups=['ml-admins'])}"}
    for who in (TOKEN, root, {}, of(issuer, "bob")):
        assert {requests.get(f"{url}/v1/models", headers=who).status_code for _ in range(10)} == {200}
    assert requests.get(f"{url}/v1/models", headers=root).status_code == 200
    clock[0] = datetime(2026, 5, 4, 0, 0, 0, tzinfo=UTC)
    assert requests.get(f"{url}/v1/models", headers=ada).status_code == 200
    assert quota(url, ada, "ada", "requests_per_day")["used"] == 1


def test_a_request_that_is_not_let_in_is_not_counted(
    configured: Callable[..., None], issuer: LocalIssuer, served: Callable[[str], str]
) -> None:
    configured(quota_requests_per_day=5)
    url, late = served("catalog"), of(issuer, "ada", exp=1)
    assert requests.get(f"{url}/v1/models", headers=late).status_code == 401
    assert quota(url, of(issuer, "ada"), "ada", "requests_per_day")["used"] == 0


@contextmanager
def replica() -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """The catalog in a process of its own, on this process's store."""
    port = free_port()
    environment = {**os.environ, "PORT": str(port), "MLAAS_HOST": "127.0.0.1"}
    command = [sys.executable, "-m", "mlaas.serve", str(ROOT / "functions" / "catalog")]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                if requests.get(f"{url}/health/readiness", timeout=5).status_code == 200:
                    break
            except requests.ConnectionError:
                time.sleep(0.05)
        yield url, process
    finally:
        process.terminate()
        process.wait(30)


def test_replicas_share_a_quota_and_a_restart_forgets_nothing(configured: Callable[..., None], issuer: LocalIssuer) -> None:
    configured(quota_requests_per_day=60)
    ada = of(issuer, "ada")

    def answered(urls: list[str], times: int) -> int:
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda n: requests.get(f"{urls[n % len(urls)]}/v1/models", headers=ada).status_code, range(times)))
        assert set(found) <= {200, 429}
        return found.count(200)

    with replica() as (first, _), replica() as (second, _):
        assert answered([first, second], 40) == 40
    with replica() as (third, process):  # both have given back what they had not used
        assert quota(third, TOKEN, "ada", "requests_per_day")["used"] == 40
        assert answered([third], 1) == 1
        process.send_signal(signal.SIGKILL)
        process.wait()
    with replica() as (fourth, _), replica() as (fifth, _):
        counted = quota(fourth, TOKEN, "ada", "requests_per_day")["used"]
        assert 41 <= counted <= 43, "an eighth of what was left is counted in advance, and lost with the process"
        more = answered([fourth, fifth], 60)
        assert more <= 60 - counted
        time.sleep(request_counts.SECONDS + 1)
        assert more + answered([fourth], 30) == 60 - counted


def test_an_upload_that_would_pass_the_quota_is_refused_and_nothing_is_stored(
    configured: Callable[..., None], issuer: LocalIssuer, served: Callable[[str], str], home: Settings
) -> None:
    configured(quota_storage_bytes=3000, quota_group_storage_bytes=1000, root=home.artefacts)
    url, ada = served("catalog"), of(issuer, "ada", "physics")
    place = settings.current().artefacts / "uploads" / "datasets"
    assert send(url, ada, "one", rows(2000)).status_code == 201
    refused = send(url, ada, "two", rows(1001))
    assert (refused.status_code, refused.json()["type"]) == (413, "urn:mlaas:problem:too-large")
    assert "your quota of 3000 bytes" in refused.json()["detail"]
    assert "Delete versions" in refused.json()["remedy"]
    assert send(url, ada, "one", rows(1001)).status_code == 413, "a further version counts as well"
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.csv", rows(1001))
    assert len(packed.getvalue()) < 500
    assert send(url, ada, "two", packed.getvalue(), filename="a.zip").status_code == 413, "it counts as it is unpacked"
    assert not (place / "two").exists()
    assert requests.get(f"{url}/v1/datasets/two", headers=ada).status_code == 404
    assert quota(url, ada, "ada", "storage_bytes") == {"limit": 3000, "used": 2000, "own": False}
    theirs = send(url, ada, "of-group", rows(1001), owner="group:physics")
    assert (theirs.status_code, "the group physics's quota of 1000 bytes" in theirs.json()["detail"]) == (413, True)
    assert send(url, ada, "of-group", rows(900), owner="group:physics").status_code == 201
    assert send(url, ada, "two", rows(1000)).status_code == 201, "what belongs to the group is not taken from the user"
    give = requests.patch(f"{url}/v1/datasets/two", json={"owner": "group:physics"}, headers=ada)
    assert give.status_code == 413
    assert requests.patch(f"{url}/v1/datasets/two", json={"owner": "ada", "description": "d"}, headers=ada).status_code == 200
    assert requests.delete(f"{url}/v1/datasets/one", headers=ada).status_code == 204
    assert quota(url, ada, "ada", "storage_bytes")["used"] == 1000
    assert send(url, ada, "three", rows(2000)).status_code == 201
    assert send(url, TOKEN, "three", rows(2001), owner="ada").status_code == 201, "administrators have no quota"


def test_uploads_at_once_never_pass_the_quota(configured: Callable[..., None], issuer: LocalIssuer, served: Callable[[str], str]) -> None:
    configured(quota_storage_bytes=3000)
    url, ada = served("catalog"), of(issuer, "ada")
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda n: send(url, ada, f"d{n}", rows(1000, str(n))).status_code, range(6)))
    assert set(found) <= {201, 413}
    found += [send(url, ada, f"e{n}", rows(1000, f"e{n}")).status_code for n in range(3)]
    assert found.count(201) == 3
    assert quota(url, ada, "ada", "storage_bytes")["used"] == 3000


def test_a_body_whose_length_nobody_said_is_cut_off_where_the_room_ends(tmp_path: Path) -> None:
    stream = io.BytesIO(b"x" * 5_000_000)
    with pytest.raises(TooLarge, match="of the quota"):
        received.receive(stream, tmp_path / "a", 2_000_000, TooLarge("of the quota"))
    assert stream.tell() <= 2_000_001
    with pytest.raises(TooLarge, match="larger than 3 bytes"):
        received.receive(stream, tmp_path / "b", 3)


def test_a_training_is_refused_whose_asker_has_trained_as_long_as_they_may(
    configured: Callable[..., None], issuer: LocalIssuer, served: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    configured(quota_training_seconds=50, url=f"http://127.0.0.1:{free_port()}")  # where nobody takes a training
    monkeypatch.setitem(cast(dict[str, str], ROLES), "web.train", "user")
    begun = datetime.now(UTC) - timedelta(seconds=60)
    stats = {"submitted": begun.isoformat(), "started": begun.isoformat(), "heartbeat": begun.isoformat()}
    shared().insert("tasks", "t", {"capability": "train", "task_status": "running", "asked_by": "ada", "stats": stats})
    asked = {
        "model": {"architecture": "tfidf-linear", "objective": "text-classification"},
        "dataset": {"path": "rows.tsv", "storage_type": "local"},
        "model_save": {"path": "models/x", "storage_type": "local"},
    }
    url = served("catalog")

    def sent(sub: str) -> requests.Response:
        form = {"action": "send", "as_json": "1", "request": json.dumps(asked)}
        return requests.post(f"{url}/web/train", data=form, headers=of(issuer, sub))

    assert sent("bob").status_code == 503
    refused = sent("ada")
    assert (refused.status_code, "quota of 50 seconds of training" in refused.text) == (429, True)
    assert requests.get(f"{url}/v1/quotas", headers=of(issuer, "ada")).json()["items"][0]["training_seconds"]["used"] >= 60
    assert shared().get("tasks", "t").revision == 1, "what runs is left alone"  # type: ignore[union-attr]


def test_administrators_set_limits_and_it_is_recorded(
    configured: Callable[..., None], issuer: LocalIssuer, served: Callable[[str], str]
) -> None:
    configured(quota_requests_per_day=1000)
    url, ada = served("catalog"), of(issuer, "ada", "/ml/physics")
    assert requests.put(f"{url}/v1/quotas/ada", json={}, headers=ada).status_code == 403
    done = requests.put(f"{url}/v1/quotas/ada", json={"requests_per_day": 3}, headers=TOKEN)
    assert (done.status_code, done.json()["requests_per_day"]["limit"], done.json()["requests_per_day"]["own"]) == (200, 3, True)
    assert [requests.get(f"{url}/v1/models", headers=ada).status_code for _ in range(5)] == [200] * 2 + [429] * 3, "the attempt counts too"
    assert requests.put(f"{url}/v1/quotas/ada", json={}, headers=TOKEN).json()["requests_per_day"]["limit"] == 1000
    assert requests.get(f"{url}/v1/models", headers=ada).status_code == 200
    of_group = requests.put(f"{url}/v1/quotas/group:/ml/physics", json={"storage_bytes": 7}, headers=TOKEN)
    assert of_group.json()["owner"] == "group:/ml/physics"
    assert quota(url, ada, "group:/ml/physics", "storage_bytes")["limit"] == 7
    for body in ({"requests_per_day": -1}, {"storage_bytes": "x"}, {"seconds": 3}):
        assert requests.put(f"{url}/v1/quotas/ada", json=body, headers=TOKEN).status_code == 422
    assert requests.put(f"{url}/v1/quotas/group:", json={}, headers=TOKEN).status_code == 422
    found = requests.get(f"{url}/v1/audit", params={"operation": "setQuotas"}, headers=TOKEN).json()["items"]
    assert [(one["subject"], one["target"], one["outcome"]) for one in found] == [
        ("token", "group:", "refused"),
        *[("token", "ada", "refused")] * 3,
        ("token", "group:/ml/physics", "succeeded"),
        ("token", "ada", "succeeded"),
        ("token", "ada", "succeeded"),
        ("ada", "ada", "refused"),
    ]


def test_everybody_reads_their_own_quotas_and_administrators_all(
    configured: Callable[..., None], issuer: LocalIssuer, served: Callable[[str], str]
) -> None:
    configured(quota_requests_per_day=1000)
    url, ada = served("catalog"), of(issuer, "ada", "physics")
    Catalog(shared()).publish("datasets", "d", "d", {"files": {"a": {"size": 5}}}, about={"owner": "carl"})
    assert requests.get(f"{url}/v1/quotas").status_code == 401
    mine = requests.get(f"{url}/v1/quotas", headers=ada).json()["items"]
    assert [one["owner"] for one in mine] == ["ada", "group:ml-users", "group:physics"]
    assert requests.get(f"{url}/v1/quotas", params={"owner": "carl"}, headers=ada).status_code == 403
    requests.get(f"{url}/v1/models", headers=of(issuer, "bob"))
    first = requests.get(f"{url}/v1/quotas", params={"limit": 1}, headers=TOKEN)
    rest = requests.get(f"{url}{first.links['next']['url']}", headers=TOKEN).json()
    assert [one["owner"] for one in (*first.json()["items"], *rest["items"])] == ["bob", "carl"]
    assert "next" not in rest


def test_the_command_line_shows_and_sets_them(configured: Callable[..., None]) -> None:
    ran = CliRunner().invoke(app, ["quotas", "set", "group:physics", "--storage-bytes", "5", "--json"])
    assert ran.exit_code == 0, ran.output
    assert json.loads(ran.stdout)["items"][0]["storage_bytes"] == {"limit": 5, "used": 0, "resets": None, "own": True}
    shown = CliRunner().invoke(app, ["quotas", "show"])
    assert (shown.exit_code, "group:physics" in shown.stdout, "5 (own)" in shown.stdout) == (0, True, True)
    (recorded,) = shared().find("audit", {})
    assert [recorded.body[name] for name in ("subject", "operation", "target", "outcome")] == [
        "command line", "setQuotas", "group:physics", "succeeded"
    ]  # fmt: skip
    assert CliRunner().invoke(app, ["quotas", "set", "group:"]).exit_code == 3


def test_a_quota_below_nothing_stops_the_start() -> None:
    with pytest.raises(BadSetting, match="MLAAS_QUOTA_STORAGE_BYTES"):
        load({"MLAAS_QUOTA_STORAGE_BYTES": "-1"})
