"""The commands and programs of docs/protocols.md, run against the functions as the gateway of `mlaas up` puts them at one address."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import urllib3

from mlaas import http_server, protocols
from mlaas.local.gateway import create_app
from mlaas.settings import Settings

GUIDE = (Path(__file__).parents[2] / "docs" / "protocols.md").read_text()
COMMANDS = re.findall(r"^    (curl .*)$", GUIDE, re.MULTILINE)
PROGRAMS = re.findall(r"^```python\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)


class Function:
    """Stands in for a function's process: the function in this one."""

    def __init__(self, url: str) -> None:
        self._url, self._http = url, urllib3.PoolManager()

    def ask(self, method: str, path: str, **options: Any) -> Any:
        return self._http.request(method, f"{self._url}{path}", retries=False, **options)


@pytest.fixture
def address(home: Settings, served: Callable[[str], str]) -> Iterator[str]:
    functions: Any = {name: Function(served(name)) for name in ("classify", "embed", "search")}
    app = create_app(functions, dict, lambda _: None, home.max_body_bytes, owner_of=partial(protocols.owner_of, settings=home))
    with http_server.running(app, host="127.0.0.1", port=0, threads=4) as server:
        yield f"http://127.0.0.1:{server.effective_port}"
    for function in functions.values():
        function._http.clear()


def run(command: list[str], address: str) -> str:
    done = subprocess.run(command, env={**os.environ, "MLAAS": address}, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    return done.stdout


def test_every_command_and_program_of_the_guide_does_what_it_says(address: str) -> None:
    if shutil.which("curl"):
        answers = [json.loads(run(["bash", "-c", f"{command} --fail-with-body"], address)) for command in COMMANDS]
        assert len(answers) == 8
        assert answers[5]["outputs"][0]["data"] == ["LNF", "[NoSite]", "CNAF", "[NoSite]"]
    assert len(PROGRAMS) == 4  # the last needs Kafka: tests/services/test_protocols_up.py
    triton, openai, cloudevents = (run([sys.executable, "-c", program], address) for program in PROGRAMS[:3])
    assert triton.strip() == "[b'LNF', b'[NoSite]'] (2, 4)"
    assert openai.split() == ["minilm:1", "2", "8"]
    assert cloudevents.strip() == "it.infn.mlaas.classify.succeeded.v1 ['LNF', '[NoSite]']"


def test_a_name_that_is_no_model_is_looked_for_among_the_indexes(home: Settings) -> None:
    assert {name: protocols.owner_of(name, home) for name in ("infn-structures", "physics-writer", "abstracts")} == {
        "infn-structures": "classify",
        "physics-writer": "generate",
        "abstracts": "search",
    }
