"""What `mlaas up` says and makes at its start."""

from __future__ import annotations

import stat
from pathlib import Path
from types import SimpleNamespace

from mlaas.local.up import _own_token, _welcome
from mlaas.settings import load


def test_the_token_is_made_once_and_read_by_nobody_else(tmp_path: Path) -> None:
    token = _own_token(tmp_path / "token")
    assert len(token) >= 32
    assert _own_token(tmp_path / "token") == token
    assert stat.S_IMODE((tmp_path / "token").stat().st_mode) == 0o600
    assert _own_token(tmp_path / "another") != token


def test_the_welcome_has_the_link_that_logs_in(tmp_path: Path) -> None:
    settings = load({"MLAAS_HOME": str(tmp_path), "MLAAS_TOKEN": "t"})
    platform = SimpleNamespace(url="http://127.0.0.1:8080", bootstrap="127.0.0.1:9092", functions={"catalog": None})
    said = _welcome(platform, settings, "http://127.0.0.1:8080/web/enter?code=x")  # type: ignore[arg-type]
    assert said.strip().splitlines()[0] == "Web    http://127.0.0.1:8080/web/enter?code=x"
