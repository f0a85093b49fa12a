"""The web app's pages as HTML: what they show, to whom, and that nothing that others wrote becomes part of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mlaas import serve
from mlaas.catalog import Catalog
from mlaas.documents import shared
from mlaas.settings import Settings
from mlaas.testing.web_home import TOKEN

FUNCTION = Path(__file__).parents[2] / "functions" / "catalog"
HOSTILE = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>"
KNOWN = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def client(web_settings: Settings) -> Any:
    return serve.create_app(serve.load_function(FUNCTION), serve.State(ready=True)).test_client()


def text(client: Any, path: str, **options: Any) -> str:
    answer = client.get(path, **{"headers": KNOWN, **options})
    assert answer.status_code == 200, answer.text
    return str(answer.text)


PATHS = (
    "/web/",
    "/web/help",
    "/web/models",
    "/web/datasets",
    "/web/indexes",
    "/web/models/infn-structures",
    "/web/models/infn-structures?version=1",
    "/web/models/infn-structures?alias=production",
    "/web/models/minilm",
    "/web/datasets/affiliations",
    "/web/indexes/abstracts",
    "/web/models/infn-structures/versions/2/files",
)


@pytest.mark.parametrize("path", PATHS)
def test_each_page_is_there_with_a_policy_that_lets_nothing_else_in(client: Any, path: str) -> None:
    answer = client.get(path, headers=KNOWN)
    assert answer.status_code == 200
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert " style=" not in answer.text  # the policy would drop it
    assert "http://" not in answer.text.replace("http://www.w3.org/2000/svg", "")
    assert answer.text.count("<h1") == 1


def test_a_model_has_metrics_curves_a_confusion_matrix_lineage_versions_and_aliases(client: Any) -> None:
    page = text(client, "/web/models/infn-structures")
    for expected in (
        "macro f1",
        'aria-label="Loss while training',
        "Accuracy on held-out rows",
        '<th scope="row">CNAF</th>',
        "int8",
        "where allowed",
        "not measured",
    ):
        assert expected in page
    assert 'href="/web/datasets/affiliations?version=1"' in page  # in the graph
    assert "production → 3" in page
    assert "to 2" in page  # the alias' history
    assert "Every text gets a class" in page  # the card


def test_a_list_is_searched_and_narrowed_and_says_what_is_wrong_with_a_query(client: Any) -> None:
    page = text(client, "/web/models?q=physics&task=masked-lm")
    assert "physics-lm" in page
    assert "/web/models/minilm" not in page
    assert "1 model found" in page
    assert "`tag.0`" in text(client, "/web/models?tag=NO+TAG")
    assert "Nothing fits" in text(client, "/web/models?q=absent")


def test_who_is_not_logged_in_sees_what_is_public_and_nothing_else(client: Any) -> None:
    page = text(client, "/web/models", headers={})
    assert "minilm" in page
    assert "infn-structures" not in page
    hidden = client.get("/web/models/infn-structures")
    absent = client.get("/web/models/absent")
    assert hidden.status_code == absent.status_code == 404
    assert "The catalog has no model" in hidden.text
    assert client.get("/web/models/infn-structures/versions/1/files/model.onnx").status_code == 404
    assert client.get("/web/models/infn-structures/versions/1/card").status_code == 404
    Catalog(shared()).entries.change("datasets", "affiliations", {"visibility": "public"})
    assert "infn-structures" not in text(client, "/web/datasets/affiliations", headers={})  # its lineage leads to what is hidden


def test_nothing_that_others_wrote_becomes_part_of_a_page(client: Any) -> None:
    catalog = Catalog(shared())
    first = catalog.resolve("models", "minilm")
    kept = {name: first[name] for name in ("path", "storage_type", "objective")}
    card = f"# title\n\n{HOSTILE}\n\n[run](javascript:alert(1)) [fine](https://example.org) ![p](http://example.org/p.png)\n\n| a |\n|---|\n| {HOSTILE} |\n"
    evaluation = {
        "confusion": {"labels": [HOSTILE], "matrix": [[3]]},
        "per_class": {HOSTILE: {"precision": 1.0, "recall": 1.0, "f1": 1.0, "support": 3}},
    }
    hostile = {
        **kept,
        "labels": [HOSTILE],
        "evaluation": evaluation,
        "parent": {"path": HOSTILE},
        "card": {"markdown": card, "figures": {}},
    }
    catalog.publish("models", "hostile", "h", hostile, about={"description": HOSTILE, "owner": HOSTILE})
    for path in ("/web/models/hostile", f"/web/models?q={HOSTILE}", "/web/models", f"/web/models/{HOSTILE.replace('/', '')}"):
        page = client.get(path, headers=KNOWN).text
        assert "<script>alert" not in page
        assert "<img" not in page
        assert 'href="javascript' not in page
    assert '<a href="https://example.org" rel="nofollow noopener noreferrer">fine</a>' in text(client, "/web/models/hostile")


def test_a_file_comes_as_a_download_and_a_defect_says_no_more_than_its_id(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with client.get("/web/models/minilm/versions/1/files/model.onnx") as got:
        assert got.headers["Content-Disposition"].startswith("attachment")

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("secret/path")

    monkeypatch.setattr(Catalog, "entry", broken)
    answer = client.get("/web/models/minilm")
    assert answer.status_code == 500
    assert "secret/path" not in answer.text
    assert "Error " in answer.text


def test_only_the_catalog_waits_for_the_web_app_at_its_start() -> None:
    code = (
        "import sys; from pathlib import Path; from mlaas import serve; serve.load_function(Path(sys.argv[1])); "
        "print('mlaas.web' in sys.modules, *sorted({'markdown_it', 'httpx2', 'kafka'} & set(sys.modules)))"
    )

    def said(name: str) -> str:
        return subprocess.run(
            [sys.executable, "-c", code, str(FUNCTION.parent / name)], check=True, capture_output=True, text=True
        ).stdout.strip()

    assert said("catalog") == "True"
    assert said("classify") == "False"
