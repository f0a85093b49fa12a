"""The pictures of docs/web.md: each page has one, which `pytest tests/browser --pictures docs/images` takes anew."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mlaas.documents import shared
from mlaas.tasks import Tasks

DOCS = Path(__file__).parents[2] / "docs"
LARGEST = 80_000  # bytes


@dataclass(frozen=True)
class Picture:
    """A page, and the button that is pressed before its picture is taken."""

    path: str
    button: str = ""
    dark: bool = False
    width: int = 1200
    height: int = 900


PICTURES: Mapping[str, Picture] = {
    "start": Picture("/web/", "Classify"),
    "models": Picture("/web/models"),
    "model": Picture("/web/models/infn-structures", height=2400),
    "fill-mask": Picture("/web/models/physics-lm", "Fill", height=700),
    "ner": Picture("/web/models/physics-ner", "Find entities", dark=True, height=700),
    "answer": Picture("/web/models/laboratories", "Answer", height=760),
    "dataset": Picture("/web/datasets/affiliations"),
    "search": Picture("/web/indexes/abstracts", "Search"),
    "train": Picture("/web/train", "Train", height=1250),
    "build": Picture("/web/build"),
    "upload": Picture("/web/upload?kind=models&name=my-model", "Upload", height=760),
    "tasks": Picture("/web/tasks", height=700),
    "task": Picture("/web/tasks/{running}", height=1150),
    "events": Picture("/web/events", height=700),
    "chain": Picture("/web/events/chain?id=training-0.94", height=700),
    "parked": Picture("/web/events/parked", height=600),
    "login": Picture("/web/login", height=420),
    "login-issuer": Picture("/web/login", height=420),
    "phone": Picture("/web/models/infn-structures", "Classify", width=390, height=1000),
}


def test_the_guide_shows_a_picture_of_each_page() -> None:
    guide = (DOCS / "web.md").read_text("utf-8")
    for name in PICTURES:
        assert f"](images/web-{name}.webp)" in guide
        assert (DOCS / "images" / f"web-{name}.webp").stat().st_size <= LARGEST


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_can_be_taken(name: str, visit: Callable[..., Any], request: pytest.FixtureRequest, tmp_path: Path) -> None:
    picture = PICTURES[name]
    if name == "login-issuer":
        request.getfixturevalue("issuer")
    ids = {one["task_status"]: one["task_id"] for one in Tasks(shared()).find()[0]}
    if not request.config.getoption("--pictures", default=None) and picture.button != "Classify":
        pytest.skip("only one is taken without --pictures FOLDER")
    page = visit(
        picture.path.format(**ids),
        known=not name.startswith("login"),
        width=picture.width,
        color_scheme="dark" if picture.dark else "light",
    )
    page.set_viewport_size({"width": picture.width, "height": picture.height})
    if name == "upload":
        page.set_input_files("input[type=file]", [{"name": "model.zip", "mimeType": "application/zip", "buffer": b"no zip"}])
    if picture.button:
        page.click(f"main button:text-is('{picture.button}')")
        page.wait_for_selector("[aria-invalid=true]" if name in ("train", "upload") else "#tried :text('answered in')")
    taken = page.context.new_cdp_session(page).send("Page.captureScreenshot", {"format": "webp", "quality": 55})
    folder = Path(request.config.getoption("--pictures", default=None) or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"web-{name}.webp").write_bytes(base64.b64decode(taken["data"]))
    assert (folder / f"web-{name}.webp").stat().st_size <= LARGEST
