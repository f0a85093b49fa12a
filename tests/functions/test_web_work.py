"""Tasks, and the forms that ask for trainings and vector stores, with the real functions behind the gateway."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

import pytest
import requests

from mlaas import events, jobs, logs, settings
from mlaas.contracts import TrainRequest
from mlaas.documents import shared
from mlaas.errors import InvalidRequest
from mlaas.jobs import Job
from mlaas.settings import Settings
from mlaas.tasks import Tasks
from mlaas.testing.web_home import TOKEN
from mlaas.web import request_forms
from mlaas.web.forms import Written

KNOWN = {"Authorization": f"Bearer {TOKEN}"}
GOOD = {
    "model.objective": "text-classification",
    "model.architecture": "tfidf-linear",
    "dataset.path": "affiliations.tsv",
    "dataset.text_column": "affiliation",
    "model_train.seed": "7",
    "model_save.path": "models/mine",
}


def post(url: str, path: str, **data: str) -> requests.Response:
    return requests.post(f"{url}/web/{path}", data=data, headers=KNOWN, allow_redirects=False)


def get(url: str, path: str) -> str:
    answer = requests.get(f"{url}/web/{path}", headers=KNOWN)
    assert answer.status_code == 200, answer.text
    return answer.text


def task_ids(status: str) -> list[str]:
    return [one["task_id"] for one in Tasks(shared()).find(status=status)[0]]


def beside(page: str, field: str) -> str:
    """What is said to be wrong with a field."""
    found = re.search(rf'id="wrong-{re.escape(field)}">(.*?)</div>', page, re.S)
    return html.unescape(found[1]) if found else ""


def test_tasks_and_what_asks_for_them_are_for_who_is_logged_in(web_url: str) -> None:
    for path in ("tasks", "train", "build", f"tasks/{task_ids('running')[0]}", "tasks?status=failed"):
        answer = requests.get(f"{web_url}/web/{path}", allow_redirects=False)
        assert answer.status_code == 303
        assert answer.headers["Location"].startswith("/web/login?next=%2Fweb%2F")
    assert requests.post(f"{web_url}/web/train", data=GOOD, allow_redirects=False).headers["Location"].startswith("/web/login")
    assert requests.post(f"{web_url}/web/demo", allow_redirects=False).headers["Location"].startswith("/web/login")
    assert not [one for one in Tasks(shared()).find()[0] if one["request"].get("model_save", {}).get("path") == "models/mine"]


def test_the_list_has_each_task_and_can_be_narrowed_to_a_state(web_url: str) -> None:
    page = get(web_url, "tasks")
    assert all(f"/web/tasks/{one['task_id']}" in page for one in Tasks(shared()).find()[0])
    failed = get(web_url, "tasks?status=failed")
    assert "There is nothing at `samples/absent.tsv`" in failed
    assert task_ids("running")[0] not in failed


def test_a_running_task_shows_its_progress_curve_and_log(web_url: str) -> None:
    task_id = task_ids("running")[0]
    page = get(web_url, f"tasks/{task_id}")
    for expected in (
        "about 74 s left",
        "57 %",
        "step 168 of 280",
        "Loss while training",
        "job.phase",
        f'data-poll="/web/tasks/{task_id}/live"',
    ):
        assert expected in page
    assert '<noscript><meta http-equiv="refresh"' in page
    part = get(web_url, f"tasks/{task_id}/live")
    assert "<html" not in part
    assert 'data-state="running, train"' in part


def test_a_task_that_ended_says_how_and_is_not_asked_again(web_url: str) -> None:
    failed = get(web_url, f"tasks/{task_ids('failed')[0]}")
    assert "Give the path of a file that is there." in failed
    assert "data-poll" not in failed
    done = get(web_url, f"tasks/{task_ids('succeeded')[0]}")
    assert "is in the catalog" in done
    assert "Cancel the task" not in done
    assert 'href="/web/indexes/abstracts?version=1"' in done  # it is an index, made with a model


def test_a_running_task_is_cancelled_and_one_that_ended_is_not(web_url: str) -> None:
    running, ended = task_ids("running")[0], task_ids("failed")[0]
    assert post(web_url, f"tasks/{running}/cancel").headers["Location"] == f"/web/tasks/{running}"
    stored = shared().get("tasks", running)
    assert stored
    assert stored.body["cancel_requested"] is True
    assert post(web_url, f"tasks/{ended}/cancel").status_code == 422
    assert post(web_url, "tasks/absent/cancel").status_code == 404


def test_a_form_sends_the_request_of_the_contract_once(web_url: str) -> None:
    first, second = (post(web_url, "train", key="one-form", **GOOD) for _ in range(2))
    assert first.status_code == 303, first.text
    assert first.headers["Location"] == second.headers["Location"]
    task = Tasks(shared()).get(first.headers["Location"].rpartition("/")[2])
    assert task["capability"] == "train"
    assert task["request"]["model_train"]["seed"] == 7
    assert task["request"]["model_save"]["path"] == "models/mine"


def test_each_problem_is_beside_its_field_with_what_to_do(web_url: str) -> None:
    answer = post(
        web_url, "train", **{**GOOD, "model_train.epochs": "many", "model_train.batch_size": "0", "model_save.path": "", "model.path": "x"}
    )
    assert answer.status_code == 422
    page = answer.text
    assert "4 things keep the request from being sent" in page
    assert "valid integer" in beside(page, "model_train.epochs")
    assert "greater than or equal to 1" in beside(page, "model_train.batch_size")
    assert "required" in beside(page, "model_save.path")
    assert "give one of `path`" in beside(page, "model.path")
    assert 'name="model_train.epochs" value="many"' in page  # what was written stays


def test_what_the_function_refuses_is_beside_its_field_as_well(web_url: str) -> None:
    answer = post(web_url, "train", **{**GOOD, "dataset.path": "absent.tsv"})
    assert answer.status_code in (404, 422)
    assert "There is no data set at this path" in beside(answer.text, "dataset.path")


def test_the_request_can_be_written_as_json(web_url: str) -> None:
    page = post(web_url, "train", action="json", **GOOD).text
    assert '"architecture": "tfidf-linear"' in html.unescape(page)
    broken = post(web_url, "train", as_json="1", request="{")
    assert (broken.status_code, "no JSON object" in broken.text) == (400, True)
    misspelt = post(web_url, "train", as_json="1", request=json.dumps({"modell": {}}))
    assert "Did you mean `model`?" in misspelt.text
    request = {
        "model": {"architecture": "tfidf-linear", "objective": "text-classification"},
        "dataset": {"path": "affiliations.tsv"},
        "model_save": {"path": "models/json"},
    }
    assert post(web_url, "train", as_json="1", request=json.dumps(request)).status_code == 303
    back = post(web_url, "train", action="fields", as_json="1", request=json.dumps(request)).text
    assert 'value="models/json"' in back
    more = {**request, "index_after": [{"dataset": {"path": "x"}, "vector_store_save": {"path": "y"}}]}
    assert "no field for some of this" in post(web_url, "train", action="fields", as_json="1", request=json.dumps(more)).text


def test_the_preview_is_the_request_and_its_problems(web_url: str) -> None:
    part = post(web_url, "train", action="preview", **{**GOOD, "model_train.epochs": "0"}).text
    assert "<html" not in part
    assert '"epochs": 0' in html.unescape(part)
    assert "greater than or equal to 1" in part


def test_a_vector_store_is_asked_for_and_a_tasks_request_used_again(web_url: str) -> None:
    form = {
        "model.name": "minilm",
        "dataset.path": "affiliations.tsv",
        "dataset.loader_kwargs.page_content_column": "affiliation",
        "vector_store_save.path": "indexes/mine",
    }
    assert '<option value="minilm">' in get(web_url, "build")
    made = post(web_url, "build", **form)
    assert made.status_code == 303, made.text
    task_id = made.headers["Location"].rpartition("/")[2]
    assert Tasks(shared()).get(task_id)["capability"] == "index"
    assert 'value="indexes/mine"' in get(web_url, f"build?task={task_id}")


def test_the_demonstration_is_one_click_and_the_start_page_waits_for_it(web_url: str) -> None:
    first, second = post(web_url, "demo"), post(web_url, "demo")
    assert first.status_code == second.status_code == 303
    task_id = first.headers["Location"].partition("task=")[2]
    request = Tasks(shared()).get(task_id)["request"]
    assert request["model"]["architecture"] == "tfidf-linear"
    assert "A job is being started" in get(web_url, f"demo/{task_id}")
    assert "demo-affiliations" in get(web_url, "datasets")
    assert "/web/datasets/demo-affiliations?version=2" not in get(web_url, "datasets/demo-affiliations")  # the same data, the same version


def test_every_field_of_a_form_is_one_of_the_contract() -> None:
    form = request_forms.train([])
    given = {one.path: one.options[-1][0] if one.options else "3" if one.number else "x" for one in form.fields}
    written = Written.of_fields(
        form,
        {
            **given,
            "dataset.train_test_split": "0.1",
            "model_train.optimizer.init_lr": "1e-4",
            "model_train.optimizer.weight_decay_rate": "0",
        },
    )
    written.check()
    assert "is not a field" not in "".join(one.detail for one in written.found)
    assert set(written.request) <= set(TrainRequest.model_fields)


def test_a_job_leaves_the_last_lines_of_its_log_with_its_task(
    web_settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = Tasks(shared())
    accepted = tasks.accept("train", {}, events.new("train", {}, source="/test", id="logged"), publish=False)
    (tmp_path / "event").write_text(json.dumps(events.to_json(accepted)))
    monkeypatch.setenv("K_EVENT_PATH", str(tmp_path))
    settings.current.cache_clear()

    def work(job: Job) -> dict[str, Any]:
        job.report({"phase": "load", "percent": 0.0})
        logs.logging.getLogger("mlaas").warning("checkpoint.ignored", extra={"fields": {"reason": "it is older"}})
        raise InvalidRequest("no", remedy="Do otherwise.")

    monkeypatch.setattr(jobs, "heed_signals", lambda: None)
    assert jobs.main(work) == 0
    kept = tasks.log(str(accepted["subject"]))
    assert [(one["event"], one.get("phase") or one.get("reason")) for one in kept][:2] == [
        ("job.phase", "load"),
        ("checkpoint.ignored", "it is older"),
    ]


def test_the_trials_of_a_search_are_listed(web_url: str) -> None:
    task_id = task_ids("running")[0]
    stored = shared().get("tasks", task_id)
    assert stored
    trials = [
        {"number": 0, "state": "complete", "value": 0.25, "parameters": {"model_train.optimizer.init_lr": 3e-4}},
        {"number": 1, "state": "running"},
    ]
    shared().replace("tasks", stored, {**stored.body, "history": {"trials": trials}})
    part = get(web_url, f"tasks/{task_id}/live")
    assert "model_train.optimizer.init_lr 0.0003" in part
    assert part.index(">1</th>") < part.index(">0</th>")
