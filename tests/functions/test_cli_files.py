"""`mlaas classify --file`: a file goes to the platform, its predictions come back, and the same command comes back to the same task."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import flask
import pytest
from pyarrow import parquet
from typer.testing import CliRunner
from werkzeug.serving import make_server

from mlaas import events, front, serve, settings
from mlaas.cli import app as command_line
from mlaas.documents import shared
from mlaas.settings import Settings
from mlaas.tasks import Tasks

FUNCTIONS = Path(__file__).parents[2] / "functions"
TABLE = 'id,affiliation\n1,INFN Frascati\n2,\n3,"CNAF, Bologna"\n'
CLASSIFY = ["classify", "-m", "infn-structures", "--column", "affiliation"]


@dataclass
class Platform:
    """The functions behind one HTTP port; each accepted task becomes a process, as JobSink makes it."""

    settings: Settings
    folder: Path
    started: list[str] = field(default_factory=list)
    starts_jobs: bool = True

    def answer(self, name: str) -> Any:
        answered = serve.load_function(FUNCTIONS / name).main(front.Context(flask.request))
        for _, event in Tasks(shared()).owed():
            if event["type"].endswith(".accepted.v1"):
                Tasks(shared()).published(event["subject"], event["id"])
                if self.starts_jobs:
                    self.run(events.to_json(event))
        return answered

    def run(self, event: dict[str, Any]) -> None:
        self.started.append(event["subject"])
        file = self.folder / f"{len(self.started)}.json"
        file.write_text(json.dumps(event))
        subprocess.run(
            [sys.executable, "-m", "mlaas.batch"], env={**os.environ, "K_EVENT_PATH": str(file)}, check=True, capture_output=True
        )


@pytest.fixture
def platform(home: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Platform]:
    monkeypatch.setenv("MLAAS_EXCHANGE", f"local:exchange/{tmp_path.name}")
    made = Platform(home, tmp_path)
    app = flask.Flask("platform")
    app.add_url_rule("/<name>", view_func=made.answer, methods=["POST"])
    server = make_server("127.0.0.1", 0, app, threaded=True)
    monkeypatch.setenv("MLAAS_URL", f"http://127.0.0.1:{server.port}")
    settings.current.cache_clear()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.csv").write_text(TABLE)
    yield made
    server.shutdown()
    thread.join()
    server.server_close()
    settings.current.cache_clear()


@pytest.fixture
def mlaas(platform: Platform) -> Callable[..., Any]:
    return lambda *arguments, **more: CliRunner().invoke(command_line, [str(one) for one in arguments], **more)


def test_a_file_becomes_a_file_of_predictions_beside_it(mlaas: Callable[..., Any], tmp_path: Path) -> None:
    said = mlaas(*CLASSIFY, "--file", "a.csv", "--id-column", "id")
    assert said.exit_code == 0, said.output
    assert "3 rows (1 of them without text)" in said.output
    assert "rows/s" in said.output
    found = parquet.read_table(tmp_path / "a.predictions.parquet").to_pylist()
    assert [(one["id"], one["label"]) for one in found] == [("1", "LNF"), ("2", None), ("3", "CNAF")]


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_the_result_has_the_form_that_its_name_says(mlaas: Callable[..., Any], tmp_path: Path, suffix: str) -> None:
    assert mlaas(*CLASSIFY, "--file", "a.csv", "-k", "2", "--output", f"out{suffix}").exit_code == 0
    lines = (tmp_path / f"out{suffix}").read_text().splitlines()
    assert len(lines) == 3 + (suffix == ".csv")
    if suffix == ".jsonl":
        assert json.loads(lines[0])["scores"][0]["label"] == "LNF"
    else:
        assert lines[0] == "row,text,label,score,truncated,scores"
        assert '""label"": ""LNF""' in lines[1]


def test_the_same_command_finds_the_same_task_until_the_file_the_model_or_the_wish_is_another(
    mlaas: Callable[..., Any], platform: Platform, tmp_path: Path
) -> None:
    for _ in range(2):
        assert mlaas(*CLASSIFY, "--file", "a.csv").exit_code == 0
    assert len(platform.started) == 1
    (tmp_path / "copy.csv").write_text(TABLE)
    assert mlaas(*CLASSIFY, "--file", "a.csv", "--again").exit_code == 0
    assert mlaas(*CLASSIFY, "--file", "a.csv", "-k", "2").exit_code == 0
    (tmp_path / "a.csv").write_text(TABLE + "4,Firenze\n")
    assert mlaas(*CLASSIFY, "--file", "a.csv").exit_code == 0
    assert len(platform.started) == len(set(platform.started)) == 4
    assert parquet.read_table(tmp_path / "a.predictions.parquet").num_rows == 4


def test_ctrl_c_leaves_the_task_and_says_how_to_come_back(
    mlaas: Callable[..., Any], platform: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlaas import display

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    platform.starts_jobs = False
    with monkeypatch.context() as patched:
        patched.setattr(display, "follow", interrupted)
        said = mlaas(*CLASSIFY, "--file", "a.csv")
    (task,) = Tasks(shared()).find()[0]
    assert said.exit_code == 130
    assert "same command" in said.output
    assert f"mlaas tasks cancel {task['task_id']}" in said.output
    platform.run(Tasks(shared())._get(task["task_id"]).body["accepted"])
    again = mlaas(*CLASSIFY, "--file", "a.csv")
    assert again.exit_code == 0
    assert "following task" in again.output
    assert len(Tasks(shared()).find()[0]) == 1
    assert (tmp_path / "a.predictions.parquet").is_file()


def test_a_task_that_failed_or_was_cancelled_is_not_come_back_to(mlaas: Callable[..., Any], platform: Platform, tmp_path: Path) -> None:
    (tmp_path / "m.txt").write_text("no mask\n")
    for _ in range(2):
        said = mlaas("fill-mask", "-m", "physics-lm", "--file", "m.txt")
        assert said.exit_code == 1
        assert "row 0" in said.output
        assert "no mask" in said.output
    assert len(set(platform.started)) == 2
    assert not (tmp_path / "m.predictions.parquet").exists()


def test_lines_of_standard_input_or_of_a_txt_file_are_texts(mlaas: Callable[..., Any], tmp_path: Path) -> None:
    said = mlaas("search", "-i", "abstracts", "--file", "-", "-k", "1", input="neutrino mass\n\n")
    assert said.exit_code == 0, said.output
    assert [len(one["neighbours"] or []) for one in parquet.read_table("stdin.predictions.parquet").to_pylist()] == [1, 0]
    (tmp_path / "t.txt").write_text("INFN Frascati\r\nCNAF\n")
    said = mlaas("classify", "-m", "infn-structures", "--file", "t.txt", "--json")
    assert said.exit_code == 0
    assert json.loads(said.stdout.splitlines()[-1])["output"] == "t.predictions.parquet"
    found = parquet.read_table("t.predictions.parquet").to_pylist()
    assert [(one["text"], one["label"]) for one in found] == [("INFN Frascati", "LNF"), ("CNAF", "CNAF")]


def test_a_file_that_the_platform_has_already_is_not_sent(mlaas: Callable[..., Any], platform: Platform, tmp_path: Path) -> None:
    assert mlaas(*CLASSIFY, "--file", "local:affiliations.tsv").exit_code == 0
    assert parquet.read_table("affiliations.predictions.parquet").num_rows == 2
    assert not (platform.settings.artefacts / "exchange" / tmp_path.name / "uploads").exists()


def test_the_commands_of_the_how_to_work_as_they_stand(mlaas: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "big.csv").write_text(TABLE)
    (tmp_path / "sentences.txt").write_text("the [MASK] boson was found\n")
    (tmp_path / "queries.tsv").write_text("query\tn\nneutrino mass\t1\n")
    page = (Path(__file__).parents[2] / "docs" / "batch.md").read_text()
    commands = [line.split()[1:] for line in page.splitlines() if line.startswith("    mlaas ")]
    assert len(commands) == 4
    for command in commands:
        said = mlaas(*command)
        assert said.exit_code == 0, (command, said.output)
    made = {path.name for path in tmp_path.iterdir() if path.stem.endswith(("predictions", "labels", "filled"))}
    assert made == {"big.predictions.parquet", "labels.csv", "filled.jsonl", "queries.predictions.parquet"}


def test_a_result_that_is_gone_is_predicted_again_when_asked_for(mlaas: Callable[..., Any], platform: Platform) -> None:
    assert mlaas(*CLASSIFY, "--file", "a.csv").exit_code == 0
    (task,) = Tasks(shared()).find()[0]
    (platform.settings.artefacts / task["result"]["predictions"]["path"]).unlink()
    said = mlaas(*CLASSIFY, "--file", "a.csv")
    assert (said.exit_code, "--again" in said.output) == (3, True)
    assert mlaas(*CLASSIFY, "--file", "a.csv", "--again").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--file", "absent.csv"], "no file absent.csv"),
        (["--file", "a.docx"], "not a known kind"),
        (["--file", "latin.txt"], "not UTF-8"),
        (["--file", "a.csv", "a text"], "both texts and a file"),
        (["--file", "a.csv", "--column", "affiliations"], "Did you mean `affiliation`?"),
        (["--file", "a.csv", "--output", "out.xlsx"], ".parquet, .jsonl, .csv"),
        (["--file", "a.csv", "--output", "no/such/folder.csv"], "folder that exists"),
        (["--file", "a.csv", "-m", "infn-structure"], "Did you mean `infn-structures`?"),
        (["--file", "a.csv", "-m", "physics-lm"], "objective"),
        (["--file", "local:../a.csv"], "leaves its root"),
    ],
)
def test_what_cannot_work_is_refused_before_a_task_is_made(
    mlaas: Callable[..., Any], tmp_path: Path, arguments: list[str], said: str
) -> None:
    (tmp_path / "a.docx").write_text("x")
    (tmp_path / "latin.txt").write_bytes("Università".encode("latin-1"))
    refused = mlaas(*CLASSIFY, *arguments)
    assert refused.exit_code == 3
    assert said in " ".join(refused.output.split())
    assert Tasks(shared()).find()[0] == []
