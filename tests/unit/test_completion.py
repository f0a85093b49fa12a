"""Shell completion as a shell asks for it, and a command for each operation of the REST interface."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mlaas import documents, events
from mlaas.catalog import Catalog
from mlaas.catalog_api.interface import OPERATIONS
from mlaas.cli import app, completion
from mlaas.errors import Unavailable
from mlaas.settings import Settings
from mlaas.tasks import Tasks

# Each operation, and the command that does the same.
COMMANDS = {
    "listChanges": "catalog audit",
    "listEntries": "catalog list",
    "getEntry": "catalog about",
    "changeEntry": "catalog edit",
    "deleteEntry": "catalog delete",
    "listVersions": "catalog versions",
    "uploadVersion": "catalog push",
    "getVersion": "catalog show",
    "deleteVersion": "catalog delete",
    "getCard": "catalog card",
    "listFiles": "catalog files",
    "getFile": "catalog download",
    "listAliases": "catalog aliases",
    "getAlias": "catalog aliases",
    "putAlias": "catalog alias",
    "rollBackAlias": "catalog rollback",
    "deleteAlias": "catalog unalias",
    "listTasks": "tasks",
    "getTask": "tasks show",
    "cancelTask": "tasks cancel",
    "listEvents": "events",
    "listQuotas": "quotas show",
    "setQuotas": "quotas set",
}


def complete(line: str, shell: str = "bash") -> list[str]:
    """What a shell gets for TAB at the end of `line`."""
    words = line.split(" ")
    asked = {"COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1), "_TYPER_COMPLETE_ARGS": line, "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    done = CliRunner().invoke(app, [], prog_name="mlaas", env={"_MLAAS_COMPLETE": f"complete_{shell}", **asked})
    assert done.exit_code == 0, done.output
    return done.stdout.split()


@pytest.fixture
def catalog(home: Settings) -> Catalog:
    catalog = Catalog(documents.shared())
    for digest in ("d1", "d2"):
        catalog.publish("models", "birds", digest, {"objective": "text-classification"})
    catalog.set_alias("models", "birds", "production", "1")
    catalog.publish("datasets", "rows", "d3", {"count": 3})
    return catalog


def test_commands_and_options_are_proposed(catalog: Catalog) -> None:
    assert {"classify", "catalog", "tasks"} <= set(complete("mlaas "))
    assert set(complete("mlaas catalog ali")) == {"alias", "aliases"}
    assert "--visibility" in complete("mlaas catalog edit --vis")


@pytest.mark.parametrize(
    ("line", "proposed"),
    [
        ("mlaas catalog show bi", ["birds"]),
        ("mlaas catalog show --kind datasets ", ["rows"]),
        ("mlaas catalog show --kind d", ["datasets"]),
        ("mlaas catalog alias birds pro", ["production"]),
        ("mlaas catalog alias birds production ", ["2", "1"]),
        ("mlaas catalog delete birds ", ["2", "1"]),
        ("mlaas catalog download birds --version ", ["2", "1"]),
        ("mlaas classify --model bi", ["birds", "birds@production"]),
        ("mlaas search -i abs", ["abstracts"]),
        ("mlaas catalog show nobody-has-this", []),
    ],
)
def test_what_is_in_the_catalog_is_proposed(catalog: Catalog, line: str, proposed: list[str]) -> None:
    assert complete(line) == proposed


def test_tasks_are_proposed_newest_first(home: Settings) -> None:
    ids = [
        str(Tasks(documents.shared()).accept("train", {}, events.new("train", {}, id=f"c-{n}"), publish=False)["subject"]) for n in range(3)
    ]
    assert complete("mlaas tasks show ") == ids[::-1]


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_are_answered_too(catalog: Catalog, shell: str) -> None:
    assert "birds" in " ".join(complete("mlaas catalog show bi", shell))


@pytest.mark.parametrize("seconds", [0.0, 1.0])
def test_a_store_that_is_away_or_slow_proposes_nothing_soon(home: Settings, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    def away() -> None:
        time.sleep(seconds)
        raise Unavailable("the document store is away")

    monkeypatch.setattr(completion, "SECONDS", 0.2)
    monkeypatch.setattr(completion, "open_catalog", away)
    started = time.monotonic()
    assert complete("mlaas catalog show bi") == []
    assert time.monotonic() - started < 0.9


def test_a_home_that_was_never_used_is_not_made_by_looking(tmp_path: Path) -> None:
    environment = {**os.environ, "MLAAS_HOME": str(tmp_path / "none"), "_MLAAS_COMPLETE": "complete_bash"}
    environment |= {"COMP_WORDS": "mlaas catalog show x", "COMP_CWORD": "3"}
    environment.pop("MLAAS_DOCUMENTS", None)
    ran = subprocess.run([Path(sys.executable).with_name("mlaas")], env=environment, capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stdout.strip(), ran.stderr) == (0, "", "")
    assert not (tmp_path / "none").exists()


def test_the_shells_script_is_shown(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["--show-completion", "bash"], prog_name="mlaas")
    assert "_MLAAS_COMPLETE" in done.stdout
    assert {"--install-completion", "--show-completion"} <= set(complete("mlaas --"))


def test_every_operation_of_the_rest_interface_has_a_command() -> None:
    assert set(COMMANDS) == {one.id for one in OPERATIONS if not one.path.startswith("/v1/embeddings")}
    for command in COMMANDS.values():
        shown = CliRunner().invoke(app, [*command.split(), "--help"])
        assert shown.exit_code == 0, command
        assert "Example: mlaas" in shown.stdout, command


def test_the_command_line_waits_for_no_library_that_a_command_may_not_need() -> None:
    program = (
        "import sys, mlaas.cli; print([name for name in ('httpx2', 'kafka', 'pandas', 'flask', 'pyarrow', 'numpy') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip() == "[]"
