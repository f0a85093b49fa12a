"""POST /v1/embeddings and GET /v1/models, as OpenAI's own client sees them."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
import requests

from mlaas import embedder, models, serve, settings
from mlaas import served as served_counts
from mlaas.catalog import Catalog, usage
from mlaas.contracts import ModelRef
from mlaas.documents import shared
from mlaas.errors import Overloaded, StoreAway

TEXTS = ["neutrino mass", "dark matter"]


@pytest.fixture
def url(home: settings.Settings, served: Callable[[str], str]) -> str:
    return served("embed")


@pytest.fixture
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as made:
        yield made


def own(url: str, texts: list[str]) -> list[list[float]]:
    """The vectors by the platform's own interface, as 32-bit numbers."""
    request = {"model": {"name": "minilm"}, "predict_input": {"input_text": texts}}
    return exact(requests.post(url, json=request, timeout=30).json()["vectors"])


def exact(vectors: Any) -> Any:
    """32-bit numbers, whatever digits they were written with."""
    return np.asarray(vectors, "<f4").tolist()


def refused(client: openai.OpenAI, **arguments: Any) -> openai.APIStatusError:
    with pytest.raises(openai.APIStatusError) as caught:
        client.embeddings.create(**{"model": "minilm", "input": "x", **arguments})
    return caught.value


def test_the_vectors_are_those_of_the_function_in_both_encodings(url: str, client: openai.OpenAI) -> None:
    by_default = client.embeddings.create(model="minilm", input=TEXTS)  # the client asks for base64
    as_floats = client.embeddings.create(model="minilm", input=TEXTS, encoding_format="float")
    expected = own(url, TEXTS)
    assert exact([one.embedding for one in as_floats.data]) == expected
    assert exact([one.embedding for one in by_default.data]) == expected
    assert [one.index for one in by_default.data] == [0, 1]
    raw = requests.post(f"{url}/v1/embeddings", json={"model": "minilm", "input": "dark matter", "encoding_format": "base64"}, timeout=30)
    assert np.frombuffer(base64.b64decode(raw.json()["data"][0]["embedding"]), "<f4").tolist() == expected[1]


def test_the_asynchronous_client_gets_the_same(url: str) -> None:
    async def ask() -> list[float]:
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="x") as client:
            return (await client.embeddings.create(model="minilm", input=TEXTS[0], user="ada")).data[0].embedding

    assert exact(asyncio.run(ask())) == own(url, TEXTS)[0]


def test_usage_counts_the_tokens_that_the_model_reads(client: openai.OpenAI) -> None:
    answer = client.embeddings.create(model="minilm", input=["neutrino", "neutrino mass"])
    assert (answer.usage.prompt_tokens, answer.usage.total_tokens) == (3 + 4, 7)  # each with [CLS] and [SEP]


def test_tokens_stand_for_the_text_that_they_are_of(client: openai.OpenAI, home: settings.Settings) -> None:
    tokenizer = models.load(ModelRef(name="minilm")).model.tokenizer
    tokens = [tokenizer.encode(text, add_special_tokens=False).ids for text in TEXTS]
    of_texts = [one.embedding for one in client.embeddings.create(model="minilm", input=TEXTS).data]
    assert [one.embedding for one in client.embeddings.create(model="minilm", input=tokens).data] == of_texts
    assert client.embeddings.create(model="minilm", input=tokens[0]).data[0].embedding == of_texts[0]


def test_a_model_is_a_name_or_a_version_or_an_alias_of_it_and_production_by_default(client: openai.OpenAI) -> None:
    catalog = Catalog(shared())
    first = catalog.resolve("models", "minilm")
    catalog.publish("models", "minilm", "another", {name: first[name] for name in ("path", "storage_type", "objective")})

    def answering(model: str) -> str:
        return client.embeddings.create(model=model, input="x").model

    assert (answering("minilm"), answering("minilm:1")) == ("minilm:2", "minilm:1")
    catalog.set_alias("models", "minilm", "production", "1")
    catalog.set_alias("models", "minilm", "next", "2")
    assert (answering("minilm"), answering("minilm:next")) == ("minilm:1", "minilm:2")


def test_a_text_that_lost_its_end_is_marked(client: openai.OpenAI) -> None:
    first, second = client.embeddings.create(model="minilm", input=["mass " * 500, "mass"]).data
    assert first.to_dict()["truncated"] is True
    assert "truncated" not in second.to_dict()


@pytest.mark.parametrize(
    ("arguments", "status", "param"),
    [
        ({"model": "minilmm"}, 404, "model"),
        ({"model": "minilm:9"}, 404, "model"),
        ({"model": "minilm:nobody"}, 404, "model"),
        ({"model": "../../etc/passwd"}, 404, "model"),
        ({"model": "\ud800"}, 400, "model"),
        ({"model": "infn-structures"}, 400, "model"),
        ({"input": ""}, 400, "input.0"),
        ({"input": []}, 400, "input"),
        ({"input": [[]]}, 400, "input.0"),
        ({"input": ["x", 3]}, 400, "input.1"),
        ({"input": ["x", ""]}, 400, "input.1"),
        ({"input": {"text": "x"}}, 400, "input"),
        ({"input": None}, 400, "input"),
        ({"input": ["x" * 100_001]}, 400, "input.0"),
        ({"input": ["x"] * 4097}, 400, "input"),
        ({"input": [5, 99_999]}, 400, "input"),
        ({"input": [[5], [-1]]}, 400, "input.1"),
        ({"input": [[5], [True]]}, 400, "input.1"),
        ({"input": [10**30]}, 400, "input"),
        ({"dimensions": 8}, 400, "dimensions"),
        ({"encoding_format": "hex"}, 400, "encoding_format"),
        ({"extra_body": {"inputs": 1}}, 400, "inputs"),
        ({"input": ["x" * 90_000] * 12}, 413, None),
    ],
)
def test_what_cannot_be_served_is_refused_in_openais_form(url: str, arguments: dict[str, Any], status: int, param: str | None) -> None:
    body = {"model": "minilm", "input": "x", **arguments}
    body |= body.pop("extra_body", {})
    answer = requests.post(f"{url}/v1/embeddings", json=body, timeout=30)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert error["code"] == ("model_not_found" if status == 404 else None)
    assert error["message"].endswith((".", "?"))


def test_the_client_raises_what_it_has_for_each_status(client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(refused(client, model="nobody"), openai.NotFoundError)
    assert isinstance(refused(client, input=""), openai.BadRequestError)
    for error, kind, code in (
        (Overloaded("too much", retry_after=3), openai.RateLimitError, "rate_limit_exceeded"),
        (StoreAway("away", retry_after=3), openai.InternalServerError, "service_unavailable"),
        (RuntimeError("a secret of /etc"), openai.InternalServerError, None),
    ):

        def broken(*_: Any, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(embedder, "embed", broken)
        raised = refused(client)
        assert (type(raised), raised.code) == (kind, code)
        assert raised.response.headers.get("Retry-After") == (None if code is None else "3")
        assert "secret" not in raised.message


def test_an_overloaded_function_says_so_in_openais_form(home: settings.Settings) -> None:
    state = serve.State(ready=True, waiting_limit=-1)
    app = serve.create_app(serve.load_function(Path(__file__).parents[2] / "functions" / "embed"), state)
    answer = app.test_client().post("/v1/embeddings", json={"model": "minilm", "input": "x"})
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "1")
    assert answer.json["error"]["code"] == "rate_limit_exceeded"


def test_models_are_listed_for_who_may_see_them_and_any_key_may_ask(
    url: str, client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLAAS_TOKEN", "secret-of-the-test")
    settings.current.cache_clear()
    entries = Catalog(shared()).entries
    assert [one.id for one in client.models.list()] == []
    trusted = client.with_options(api_key="secret-of-the-test")
    assert [one.id for one in trusted.models.list()] == ["minilm"]  # and none that gives no vectors
    entries.change("models", "minilm", {"owner": "ada"})
    assert [client.models.retrieve("minilm").owned_by, trusted.models.retrieve("minilm:1").owned_by] == ["mlaas", "ada"]
    entries.change("models", "minilm", {"visibility": "public"})
    assert [(one.id, one.owned_by) for one in client.models.list()] == [("minilm", "ada")]
    for unknown in ("nobody", "infn-structures"):
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve(unknown)


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/v1"), ("POST", "/v1/chat/completions"), ("GET", "/v1/embeddings"), ("DELETE", "/v1/models/a")]
)
def test_other_paths_are_not_found_in_openais_form(url: str, method: str, path: str) -> None:
    answer = requests.request(method, f"{url}{path}", timeout=30)
    assert answer.status_code == 404
    assert "/v1/embeddings" in answer.json()["error"]["message"]


def test_an_answer_is_counted_for_the_catalog(client: openai.OpenAI) -> None:
    client.embeddings.create(model="minilm", input="x")
    served_counts.flush()
    assert usage.of(shared(), "models", "minilm").served == 1
