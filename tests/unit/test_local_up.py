"""What `mlaas up` says and makes at its start."""

from __future__ import annotations

import stat
from pathlib import Path

from mlaas.local.up import _own_token


def test_the_token_is_made_once_and_read_by_nobody_else(tmp_path: Path) -> None:
    token = _own_token(tmp_path / "token")
    assert len(token) >= 32
    assert _own_token(tmp_path / "token") == token
    assert stat.S_IMODE((tmp_path / "token").stat().st_mode) == 0o600
    assert _own_token(tmp_path / "another") != token
