"""Trying models and vector stores by forms, with the real functions behind the gateway."""

from __future__ import annotations

from typing import Any

import pytest
import requests

from mlaas import settings
from mlaas.testing.web_home import TOKEN
from mlaas.web import trials

KNOWN = {"Authorization": f"Bearer {TOKEN}"}
IN_PLACE = {**KNOWN, "X-In-Place": "1"}


def tried(url: str, path: str, headers: Any = IN_PLACE, **given: str) -> requests.Response:
    return requests.post(f"{url}/web/{path}/try", data=given, headers=headers)


def test_each_line_is_classified_by_itself(web_url: str) -> None:
    answer = tried(web_url, "models/infn-structures", text="INFN Frascati\n\nINFN CNAF, Bologna")
    assert answer.status_code == 200
    assert "<strong>LNF</strong>" in answer.text
    assert "<strong>CNAF</strong>" in answer.text
    assert "<html" not in answer.text  # the part that the script puts into its page
    assert "Version 3 answered" in answer.text
    assert "Version 1 answered" in tried(web_url, "models/infn-structures", version="1", text="INFN Frascati").text


def test_without_the_script_the_same_form_gives_a_whole_page_with_what_was_written(web_url: str) -> None:
    page = tried(web_url, "models/infn-structures", KNOWN, text="INFN <Frascati>").text
    assert "<html" in page
    assert "INFN &lt;Frascati&gt;</textarea>" in page
    assert "<strong>LNF</strong>" in page


def test_masks_get_their_candidates_where_they_stand(web_url: str) -> None:
    answer = tried(web_url, "models/physics-lm", text="the higgs [MASK] was found at the large hadron [MASK]").text
    assert answer.index("the higgs ") < answer.index("boson") < answer.index("was found at") < answer.index("collider")
    assert answer.count('<details class="slot">') == 2
    assert tried(web_url, "models/physics-lm", text="no mask").status_code == 422


def test_entities_and_answers_are_marked_in_the_text(web_url: str) -> None:
    found = tried(web_url, "models/physics-ner", text="the higgs boson & more").text
    assert "<mark>higgs boson <small>PARTICLE" in found
    assert "&amp; more" in found
    answered = tried(
        web_url, "models/laboratories", question="where is the laboratory ?", context="the national laboratory is in frascati near rome"
    )
    assert "is in <mark>frascati</mark> near rome" in answered.text


def test_a_search_gives_documents_with_distance_and_metadata(web_url: str) -> None:
    found = tried(web_url, "indexes/abstracts", text="neutrino oscillations").text
    assert found.index("syn-2") < found.index("syn-1")
    assert "field: hep-ph" in found
    assert "distance" in found


def test_embeddings_are_compared_and_texts_continued(web_url: str) -> None:
    assert "cosine" in tried(web_url, "models/minilm", text="higgs", other="higgs").text
    assert "the higgs<mark>" in tried(web_url, "models/physics-writer", text="the higgs").text


@pytest.mark.parametrize(("given", "says"), [({"text": " "}, "is empty"), ({}, "is empty"), ({"text": "x\n" * 51}, "more than 50 lines")])
def test_what_cannot_be_asked_is_said(web_url: str, given: dict[str, str], says: str) -> None:
    answer = tried(web_url, "models/infn-structures", **given)
    assert answer.status_code == 422
    assert says in answer.text


def test_what_is_hidden_cannot_be_tried_and_what_is_public_can(web_url: str) -> None:
    assert tried(web_url, "models/infn-structures", {}, text="INFN").status_code == 404
    assert tried(web_url, "indexes/abstracts", {}, text="INFN").status_code == 404
    assert tried(web_url, "models/minilm", {}, text="a", other="b").status_code == 200


def test_a_platform_that_is_away_is_said_in_place(web_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLAAS_URL", "http://127.0.0.1:9")
    settings.current.cache_clear()
    answer = tried(web_url, "models/infn-structures", text="INFN")
    assert answer.status_code == 503
    assert "No platform answers" in answer.text


def test_an_answer_without_a_label_or_words_of_the_text_is_shown_as_such() -> None:
    """Functions leave out what is empty."""
    ((text, labelled),) = trials.CLASSIFY.read({"text": "nowhere"}, {"predictions": [{"scores": []}]})
    assert (text, labelled["label"], labelled["score"]) == ("nowhere", None, None)
    answered = trials.ANSWER.read({"question": "?", "context": "rome"}, {"predictions": [{"truncated": False}]})
    assert (answered["found"]["answer"], answered["before"]) == (None, "rome")
