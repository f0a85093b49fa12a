"""What the predicting commands ask for."""

from typing import Any

import pytest
from typer.testing import CliRunner

from mlaas.cli import app, predict

ASKED = ["classify", "-m", "birds@candidate", "a wren"]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The requests that were made."""
    made: list[dict[str, Any]] = []

    def ask(capability: str, request: dict[str, Any], kafka: bool, timeout: float) -> None:
        made.append(request)

    monkeypatch.setattr(predict, "_ask", ask)
    monkeypatch.setattr(predict.display, "classified", lambda *_: None)
    return made


@pytest.mark.parametrize(
    ("options", "fields"),
    [([], {}), (["--variant", "int8"], {"variant": "int8"}), (["--max-accuracy-loss", "0.01"], {"max_accuracy_loss": 0.01})],
)
def test_a_variant_or_what_accuracy_may_be_lost_is_asked_for(
    asked: list[dict[str, Any]], options: list[str], fields: dict[str, Any]
) -> None:
    assert CliRunner().invoke(app, [*ASKED, *options]).exit_code == 0
    assert asked[0]["model"] == {"name": "birds", "alias": "candidate", "storage_type": "local", **fields}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--variant", "int8", "--max-accuracy-loss", "0.01"], "give either"),
        (["--variant", "int4"], "variant"),
        (["--max-accuracy-loss", "-1"], "max_accuracy_loss"),
    ],
)
def test_what_cannot_be_asked_for_is_refused(asked: list[dict[str, Any]], options: list[str], says: str) -> None:
    ran = CliRunner().invoke(app, [*ASKED, *options])
    assert (ran.exit_code, asked) == (3, [])
    assert says in ran.output
