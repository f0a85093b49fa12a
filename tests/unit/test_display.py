"""What the command line shows."""

from __future__ import annotations

import base64
import json

import pytest

from mlaas import display, events, progress_bars
from mlaas.errors import InvalidRequest


def test_a_dead_letter_is_shown_with_its_code_and_its_reason_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    reason = base64.b64encode(json.dumps({"detail": "no function takes events of this type"}).encode()).decode()
    letter = events.build("some.type", "/s", {}, id="letter", knativeerrorcode="400", knativeerrordata=reason)
    display.event(letter, False)
    shown = " ".join(capsys.readouterr().out.split())
    assert shown.endswith("some.type letter 400 no function takes events of this type")


@pytest.mark.parametrize("data", ["", "not base64!", base64.b64encode(b"not JSON").decode(), base64.b64encode(b'"text"').decode()])
def test_a_dead_letter_with_another_reason_is_shown_as_well(capsys: pytest.CaptureFixture[str], data: str) -> None:
    display.event(events.build("t", "/s", {}, id="letter", knativeerrorcode="500", knativeerrordata=data), False)
    assert "letter 500" in capsys.readouterr().out


def test_json_is_one_line_on_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    display.event(events.build("t", "/s", {"a": "è"}, id="1"), True)
    assert json.loads(capsys.readouterr().out)["data"] == {"a": "è"}


def test_data_that_are_no_json_are_shown_in_base64(capsys: pytest.CaptureFixture[str]) -> None:
    for as_json in (False, True):
        display.event(events.build("t", "/s", b"\xff\x00", id="1"), as_json, data=True)
        assert "/wA=" in capsys.readouterr().out


def test_an_error_names_the_field_and_the_remedy_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    display.error(InvalidRequest("wrong", field="model.name", remedy="Do this."))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "error (model.name): wrong\nDo this.\n"


def test_the_tables_of_tasks_keep_an_id_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    task = {"task_id": "7" * 36, "task_status": "failed", "capability": "train", "request": {}, "stats": {}, "error": {"detail": "why"}}
    display.tasks([task], False)
    row = capsys.readouterr().out.splitlines()[1]
    assert row.split() == ["7" * 36, "train", "failed", "why"]


def test_a_task_that_downloads_says_how_much_of_it_is_done() -> None:
    progress = {"phase": "download", "percent": 0.0, "bytes": 5_000_000, "of_bytes": 20_000_000}
    task = {"task_status": "running", "capability": "index", "progress": progress}
    assert progress_bars.phase(task) == "index running download 5.0 MB of 20.0 MB"


def test_a_transfer_is_shown_from_its_first_bytes_on_and_not_before(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bars.transfer("downloading m"):
        pass
    assert "downloading" not in capsys.readouterr().err
    with progress_bars.transfer("downloading m") as progress:
        progress(3, 4)
        progress(4, 4)
    assert "downloading m" in capsys.readouterr().err


def test_a_running_task_shows_its_pace_in_words() -> None:
    progress = {"phase": "train", "percent": 40.0, "loss": 0.5, "learning_rate": 3e-5, "tokens_per_second": 1234.5}
    progress |= {"memory": {"peak": 1_200_000_000}, "eta": 7500.0}
    running = {"task_id": "7" * 36, "task_status": "running", "capability": "train", "progress": progress}
    assert progress_bars.phase(running) == "train running train loss 0.500 rate 3.0e-05 1,234 tokens/s 1.2 GB 2.1 h left"
    assert progress_bars.phase(running | {"task_status": "succeeded", "progress": {"phase": "done"}}) == "train succeeded done"


def test_a_search_says_how_many_trials_ended_and_shows_each_in_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    trials = [
        {
            "number": 1,
            "state": "complete",
            "parameters": {"model_train.lr": 0.00123456},
            "values": {"1": 0.5, "2": 0.4},
            "value": 0.4,
            "seconds": 61.4,
        },
        {"number": 2, "state": "running", "parameters": {"model_train.lr": 0.1}, "values": {"9": 0.9, "10": 0.8}, "seconds": 0.0},
        {"number": 3, "state": "failed", "parameters": {"model_train.lr": 1}, "values": {}, "error": {"detail": "why"}, "seconds": 2.0},
    ]
    progress = {"phase": "search", "trials": {"complete": 1, "failed": 1, "running": 1, "of": 9}, "best": {"value": 0.4}}
    task = {"task_status": "running", "capability": "train", "progress": progress, "history": {"trials": trials}}
    assert progress_bars.phase(task) == "train running search 2 of 9 trials best 0.4"
    display.task(task, False)
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[-4:]]
    assert rows == [
        ["trial", "state", "value", "epochs", "seconds", "lr"],
        ["1", "complete", "0.4", "2", "61", "0.001235"],
        ["2", "running", "0.8", "2", "0", "0.1"],
        ["3", "failed:", "why", "-", "0", "2", "1"],
    ]
