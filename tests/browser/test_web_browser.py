"""The web app in a browser: accessible, on a phone, by keyboard, without a script, and while a task runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlaas import documents, settings
from mlaas.catalog_api import oidc
from mlaas.documents import shared
from mlaas.settings import Settings
from mlaas.tasks import Run, Tasks
from mlaas.testing.local_issuer import LocalIssuer

Visit = Callable[..., Any]
WORST = ("serious", "critical")
PATHS = (
    "/web/",
    "/web/models",
    "/web/models/infn-structures",
    "/web/models/infn-structures/versions/2/files",
    "/web/datasets",
    "/web/datasets/affiliations",
    "/web/indexes/abstracts",
    "/web/train",
    "/web/upload?kind=datasets",
    "/web/build",
    "/web/tasks",
    "/web/tasks/{running}",
    "/web/tasks/{failed}",
    "/web/tasks/{succeeded}",
    "/web/events",
    "/web/events/chain?id=training-0.94",
    "/web/events/parked",
    "/web/help",
    "/web/login",
    "/web/absent",
)


def with_ids(path: str) -> str:
    """`path` with the id of a task in each state that it names."""
    ids = {one["task_status"]: one["task_id"] for one in Tasks(shared()).find()[0]}
    return path.format(**ids)


def violations(page: Any) -> list[str]:
    """What axe-core finds that is serious, with the elements."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [f"{one['id']}: {[node['html'][:160] for node in one['nodes']]}" for one in found if one["impact"] in WORST]


@pytest.mark.parametrize("path", PATHS)
def test_each_page_is_accessible_in_both_themes_and_fits_a_phone(visit: Visit, path: str) -> None:
    page = visit(with_ids(path), color_scheme="light")
    assert violations(page) == []
    page.emulate_media(color_scheme="dark")
    assert violations(page) == []
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert violations(page) == []


def test_what_is_not_accessible_is_found(visit: Visit) -> None:
    page = visit("/web/help")
    page.evaluate("document.querySelector('h1').insertAdjacentHTML('afterend', '<button></button>')")
    assert "button-name" in str(violations(page))


@pytest.mark.parametrize(
    "path", ["/web/models/infn-structures", "/web/models/physics-lm", "/web/models/physics-ner", "/web/indexes/abstracts"]
)
def test_an_answer_appears_where_it_was_asked_for(visit: Visit, path: str) -> None:
    page = visit(path, color_scheme="dark")
    page.locator("#tried").evaluate("element => { window.kept = element }")  # a page that was loaded anew would not have it
    page.locator("form[data-in-place] textarea").first.press("Control+Enter")
    page.wait_for_selector("#tried :text('answered in')")
    assert page.evaluate("window.kept === document.getElementById('tried')")
    assert violations(page) == []
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_the_candidates_of_a_mask_open_in_place(visit: Visit) -> None:
    page = visit("/web/models/physics-lm")
    page.click("text=Fill")
    page.click("details.slot summary >> nth=1")
    assert page.locator("details.slot[open] [role=listitem]").count() == 5


def test_what_goes_wrong_is_said_in_place(visit: Visit) -> None:
    page = visit("/web/models/physics-lm")
    page.fill("textarea", "nothing is missing")
    page.click("text=Fill")
    page.wait_for_selector("#tried .problem")
    assert "MASK" in page.inner_text("#tried .problem")


def test_everything_is_read_and_tried_without_a_script(visit: Visit) -> None:
    page = visit("/web/models/infn-structures", java_script_enabled=False)
    for expected in ("Metrics", "Confusion matrix", "Lineage"):
        assert page.locator(f"h2:text-is('{expected}')").is_visible()
    assert page.locator("svg.plot").count() == 2
    page.click("text=Classify")
    assert page.inner_text(".best").startswith("LNF")
    page.goto(with_ids("/web/tasks/{running}"))
    assert page.locator("svg.plot").first.is_visible()
    page.goto("/web/train")
    page.click("button:text-is('Train')")
    assert page.locator("[aria-invalid=true]").count() >= 3


def test_an_alias_is_moved_and_rolled_back_without_a_script(visit: Visit) -> None:
    page = visit("/web/models/infn-structures", java_script_enabled=False)
    for version in ("1", "2"):
        page.fill("#alias", "candidate")
        page.fill("#to", version)
        page.click("button:text('Move alias')")
        assert page.inner_text(".done") == f"candidate points to version {version}."
    assert page.locator("ol.history >> nth=0").inner_text().count("by token") == 2
    page.click("button:text('Roll candidate back')")
    assert page.inner_text(".done") == "candidate points back to version 1."
    page.fill("#alias", "No name")
    page.click("button:text('Move alias')")
    assert "lowercase letters" in page.inner_text("#refused")
    assert page.input_value("#alias") == "No name"


def test_a_refused_alias_is_accessible(visit: Visit) -> None:
    page = visit("/web/models/infn-structures", color_scheme="dark")
    page.fill("#to", "77")
    page.fill("#alias", "production")
    page.click("button:text('Move alias')")
    page.wait_for_selector("#refused")
    assert violations(page) == []
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


ROWS = b"text,label\nINFN Frascati,LNF\n"


def offered(name: str, content: bytes) -> Any:
    """A file as Playwright has it chosen."""
    return {"name": name, "mimeType": "application/octet-stream", "buffer": content}


@pytest.mark.parametrize("scripted", [True, False])
def test_a_data_set_is_uploaded_after_a_refusal_that_is_said_in_the_page(visit: Visit, scripted: bool) -> None:
    page, name = visit("/web/datasets", java_script_enabled=scripted), f"of-a-browser-{scripted}".lower()
    page.click("text=Upload a data set")
    page.fill("input[name=name]", "No name")
    page.set_input_files("input[type=file]", [offered("rows.csv", ROWS)])
    page.click("button:text-is('Upload')")
    page.wait_for_selector("#wrong-name")
    if scripted:  # which keeps the file
        assert page.evaluate("document.activeElement.getAttribute('role')") == "alert"
        assert violations(page) == []
    page.fill("input[name=name]", name)
    if not scripted:
        page.set_input_files("input[type=file]", [offered("rows.csv", ROWS)])
    page.click("button:text-is('Upload')")
    page.wait_for_url(f"**/web/datasets/{name}?version=1")
    assert page.locator("td:text('INFN Frascati')").is_visible()


def test_a_file_that_is_too_large_is_not_sent(visit: Visit) -> None:
    page, sent = visit("/web/upload"), list[str]()
    page.on("request", lambda request: sent.append(request.method))
    page.locator("form[data-upload]").evaluate("form => { form.dataset.limit = 10 }")
    page.fill("input[name=name]", "mine")
    page.set_input_files("input[type=file]", [offered("rows.csv", ROWS)])
    page.click("button:text-is('Upload')")
    page.wait_for_selector("[data-progress] [role=status]:text('are taken')")
    assert violations(page) == []
    assert "POST" not in sent


@pytest.mark.parametrize("scripted", [True, False])
def test_somebody_logs_in_at_the_issuer_and_out(visit: Visit, issuer: LocalIssuer, scripted: bool) -> None:
    page = visit("/web/tasks", known=False, java_script_enabled=scripted)
    page.click("text=Log in at localhost")
    page.click("text=Go on as ada")
    page.wait_for_url("**/web/tasks")
    assert page.locator("h1").inner_text() == "Tasks"
    page.goto("/web/models/infn-structures")
    assert page.locator("text=Move alias").count() == 0  # a user, to whom it does not belong
    page.click("button:text('Log out')")
    page.wait_for_url("**/web/")  # by way of the issuer
    assert page.locator("text=Log in").first.is_visible()
    assert any(path.startswith("/realms/test/logout?") for path in issuer.asked)
    page.goto("/web/tasks")
    assert page.url.endswith("/web/login?next=%2Fweb%2Ftasks")


def test_the_login_at_an_issuer_and_its_refusals_are_accessible(visit: Visit, issuer: LocalIssuer) -> None:
    page = visit("/web/login", known=False)
    for path in ("/web/login", "/web/login/callback?state=x&code=y"):
        page.goto(path)
        page.click("summary:text('With a token')")
        for theme in ("light", "dark"):
            page.emulate_media(color_scheme=theme)
            assert violations(page) == []
        page.set_viewport_size({"width": 390, "height": 844})
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
    issuer.away = True
    page.goto("/web/login")
    oidc._issuer.cache_clear()
    page.click("text=Log in at localhost")
    assert "The issuer does not answer as it should" in page.inner_text("[role=alert]")


def test_keys_lead_to_pages_and_to_the_search_field(visit: Visit) -> None:
    page = visit("/web/")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("g")
    page.keyboard.press("m")
    page.wait_for_url("**/web/models")
    page.keyboard.press("/")
    page.keyboard.type("gm/?missing")  # in a field, keys are text
    assert page.input_value("#q") == "gm/?missing"
    page.keyboard.press("Enter")
    page.wait_for_url("**q=gm*")
    page.locator("h1").click()
    page.keyboard.press("?")
    page.wait_for_url("**/web/help")


def test_the_page_of_a_task_follows_it_until_it_ends(visit: Visit) -> None:
    tasks = Tasks(shared())
    task_id = next(one["task_id"] for one in tasks.find(status="running")[0])
    run = Run(task_id, 1, None, {})  # type: ignore[arg-type]  # as its job holds it
    page = visit(f"/web/tasks/{task_id}")
    page.evaluate("window.kept = true")
    before = page.locator("svg.plot .dot").count()
    steps = [{"step": 7 * number, "loss": 3 / number} for number in range(1, 31)]
    tasks.report(run, progress={"phase": "evaluate", "percent": 90.0, "eta": 3.0}, history={"steps": steps})
    page.wait_for_selector("text=about 3.0 s left")
    assert page.locator("svg.plot .dot").count() != before
    page.wait_for_function("document.getElementById('state').textContent === 'running, evaluate'")
    page.click("summary:text('Cancel this task')")
    page.click("button:text('Cancel the task')")
    page.wait_for_load_state()
    page.evaluate("window.kept = true")
    assert page.is_visible("text=It will be cancelled at its next report.")
    tasks.finish(run, "cancelled")
    page.wait_for_selector(".task[data-ended] .badge.cancelled")
    assert page.evaluate("window.kept")
    assert page.locator("text=Cancel the task").count() == 0


def test_the_request_is_shown_while_its_form_is_filled(visit: Visit) -> None:
    page = visit("/web/train")
    page.click("text=The request that is sent")
    page.fill("input[name='model_save.path']", "models/typed")
    page.wait_for_selector("#preview :text('models/typed')")
    page.wait_for_selector("#preview :text('`dataset` is required')")


@pytest.fixture
def empty_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, web_settings: Settings) -> Path:
    """A platform at its first start."""
    monkeypatch.setenv("MLAAS_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MLAAS_DOCUMENTS", raising=False)
    settings.current.cache_clear()
    (tmp_path / "home").mkdir()
    return tmp_path


def as_jobsink(folder: Path, ended: threading.Event) -> None:
    """Run the job of the first task that is accepted, as JobSink does."""

    kept = documents.connect(settings.current().documents_url)
    while not ended.is_set():
        if waiting := kept.find("tasks", {"task_status": "accepted"}):
            (folder / "event").write_text(json.dumps(waiting[0].body["accepted"]))
            subprocess.run(
                [sys.executable, "-m", "mlaas.training.job"], env={**os.environ, "K_EVENT_PATH": str(folder)}, check=True, timeout=80
            )
            break
        time.sleep(0.1)
    kept.close()


@pytest.mark.training
def test_a_first_user_has_a_classified_string_after_three_clicks(empty_home: Path, visit: Visit) -> None:
    ended = threading.Event()
    job = threading.Thread(target=as_jobsink, args=(empty_home, ended))
    job.start()
    try:
        page = visit("/web/")  # click 1: the link that `mlaas up` prints
        page.click("button:text('Train the demonstration classifier')")  # click 2
        page.wait_for_selector("button:text-is('Classify')", timeout=90_000)  # the page goes on by itself
        page.click("button:text-is('Classify')")  # click 3
        page.wait_for_selector(".best")
        assert page.inner_text(".best").startswith("LNF")
    finally:
        ended.set()
        job.join()
