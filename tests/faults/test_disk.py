"""A full disk, for the cache of downloads and for the embedded document store."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mlaas import storage
from mlaas.settings import Settings
from mlaas.testing.fault_table import Row
from mlaas.testing.s3_server import BUCKET
from mlaas.testing.toxic_proxy import ToxicProxy

MB = 1024**2
HEAD = """
import json, subprocess, sys, time
from pathlib import Path
from mlaas.errors import Unavailable
disk = Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={sys.argv[2]}", "tmpfs", str(disk)], check=True)
def grow():
    subprocess.run(["mount", "-o", "remount,size=200m", str(disk)], check=True)
    return time.monotonic()
"""
CACHE = """
from mlaas import storage
from mlaas.settings import Settings
from mlaas.storage.manifests import sha256_of
settings = Settings(home=disk, s3_endpoint=sys.argv[3])
def fetch(path):
    return storage.fetch(path, "s3", settings=settings)
small, errors = fetch(sys.argv[4]), []
for _ in range(3):
    try:
        fetch(sys.argv[5])
    except Unavailable as error:
        errors.append([error.detail, error.remedy])
left = sum(1 for one in (settings.downloads / "staging").iterdir())
served = small.read_text() == fetch(sys.argv[4]).read_text() == "small"
grown = grow()
sha = sha256_of(fetch(sys.argv[5]))
print(json.dumps({"errors": errors, "left": left, "served": served, "sha": sha, "seconds": time.monotonic() - grown}))
"""
TASKS = """
from mlaas import events
from mlaas.documents import connect
from mlaas.tasks import Tasks
tasks = Tasks(connect(f"sqlite:///{disk}/documents.sqlite"))
def accept(number):
    cause = events.new("train", {"text": "x" * 2000}, source="/faults", id=str(number))
    return tasks.accept("train", cause.data, cause, publish=True)["subject"]
accepted, error, number = [], None, 0
while error is None and number < 20_000:
    try:
        accepted.append(accept(number))
        number += 1
    except Unavailable as raised:
        error = raised.detail
grown = grow()
again = accept(number)
seconds = time.monotonic() - grown
lost = sum(tasks.get(task)["task_status"] != "accepted" for task in accepted)
tasks.documents.close()
import sqlite3
intact = sqlite3.connect(disk / "documents.sqlite").execute("PRAGMA integrity_check").fetchone()[0]
print(json.dumps({"accepted": len(accepted), "error": error, "lost": lost, "seconds": seconds, "intact": intact}))
"""


def on_a_small_disk(program: str, folder: Path, size: str, *arguments: str) -> dict[str, Any]:
    """Run `program` in a mount namespace of its own, in which `folder` is a disk of `size`; skip where that is not possible."""
    folder.mkdir()
    namespace = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-rm"]
    probe = ["sh", "-c", f"mount -t tmpfs -o size=64k tmpfs '{folder}'"]
    try:
        possible = subprocess.run([*namespace, *probe], capture_output=True, check=False, timeout=10).returncode == 0
    except OSError:
        possible = False
    if not possible:
        pytest.skip("this machine lets nobody mount a small disk")
    command = [*namespace, sys.executable, "-c", HEAD + program, str(folder), size, *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert ran.returncode == 0, ran.stderr
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


@pytest.mark.fault("a full disk under the cache of downloads")
def test_a_download_that_does_not_fit_is_503_and_leaves_the_rest_working(
    row: Row, draw: random.Random, s3: ToxicProxy, tmp_path: Path
) -> None:
    settings = Settings(home=tmp_path / "home", s3_endpoint=f"http://127.0.0.1:{s3.port}")
    size = draw.randint(5, 15)
    content = os.urandom(20 * MB)
    for name, body in (("small", b"small"), ("large", content)):
        (tmp_path / name).write_bytes(body)
        storage.put(tmp_path / name, f"{BUCKET}/disk/{name}", "s3", settings=settings)
    found = on_a_small_disk(CACHE, tmp_path / "disk", f"{size}m", str(settings.s3_endpoint), f"{BUCKET}/disk/small", f"{BUCKET}/disk/large")
    assert len(found["errors"]) == 3
    assert all("cache of downloads" in detail and "MLAAS_CACHE" in remedy for detail, remedy in found["errors"])
    assert found["left"] == 0, "what could not be stored is given back"
    assert found["served"]
    storage_sha = storage.manifests.sha256_of(tmp_path / "large")
    row.measured(
        moment=f"at {size} of 20 MB, three times",
        in_flight="a download; a smaller one was served",
        lost=int(found["sha"] != storage_sha),
        seconds=found["seconds"],
    )


@pytest.mark.fault("a full disk under the embedded document store")
def test_what_was_acknowledged_before_the_disk_was_full_is_there(row: Row, draw: random.Random, tmp_path: Path) -> None:
    size = draw.randint(1500, 3000)
    found = on_a_small_disk(TASKS, tmp_path / "disk", f"{size}k")
    assert found["error"] == "the document store cannot be used now"
    assert found["accepted"] > 20
    assert found["intact"] == "ok"
    row.measured(
        moment=f"at {size / 1000:.1f} MB", in_flight=f"{found['accepted']} accepted tasks", lost=found["lost"], seconds=found["seconds"]
    )
