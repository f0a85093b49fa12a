"""The embedded document store while one thread closes it and others use it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import sys, threading, time
from pathlib import Path
from mlaas.documents.sqlite import SqliteDocuments
from mlaas.errors import StoreAway

documents, ended, found = SqliteDocuments(Path(sys.argv[1])), threading.Event(), []
for number in range(300):
    documents.insert("models", str(number), {"name": "birds", "card": "x" * 2000})

def use():
    while not ended.is_set():
        try:
            found.append(len(documents.find("models", {"name": "birds"})))
        except StoreAway:
            pass

threads = [threading.Thread(target=use) for _ in range(4)]
for thread in threads:
    thread.start()
for _ in range(20):
    time.sleep(0.02)
    documents.close()
ended.set()
for thread in threads:
    thread.join()
documents.close()
print(set(found))
"""


def test_a_thread_that_uses_a_store_which_another_closes_is_not_the_end_of_the_process(tmp_path: Path) -> None:
    ran = subprocess.run([sys.executable, "-c", PROGRAM, str(tmp_path / "d.sqlite")], capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stdout.strip()) == (0, "{100}"), ran.stderr
