"""The Open Inference Protocol v2, as Triton's own client sees it and as JSON, beside the function's own answers."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import parliament.server
import pytest
import requests
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from test_functions import REQUESTS
from tritonclient.utils import InferenceServerException

from mlaas import embedder, models, serve, settings
from mlaas import served as served_counts
from mlaas.catalog import Catalog, usage
from mlaas.documents import shared
from mlaas.errors import Overloaded, StoreAway

FUNCTIONS = Path(__file__).parents[2] / "functions"
MODELS = {
    name: (request.get("model") or request["dataset"])["name"] for name, request in REQUESTS.items() if name not in ("index", "train")
}
INPUTS: dict[str, dict[str, list[str]]] = {
    name: {
        tensor: texts
        for field, texts in (REQUESTS[name].get("predict_input") or REQUESTS[name]["search_input"]).items()
        for tensor in [field if field != "input_text" else "text"]
    }
    for name in MODELS
}
PARAMETERS = {"classify": {"top_k": 2}, "search": {"top_k": 2}}


@pytest.fixture
def address(home: settings.Settings, served: Callable[[str], str]) -> Callable[[str], str]:
    return served


def tensor(name: str, texts: Sequence[str | bytes], *, binary: bool = True, column: bool = False) -> triton.InferInput:
    values = np.array(texts, dtype=object).reshape((-1, 1) if column else -1)
    made = triton.InferInput(name, list(values.shape), "BYTES")
    return made.set_data_from_numpy(values, binary_data=binary)


def client_of(url: str) -> triton.InferenceServerClient:
    return triton.InferenceServerClient(url.removeprefix("http://"), connection_timeout=30, network_timeout=30)


def of(result: triton.InferResult, name: str) -> Any:
    """A tensor as lists, texts as `str`."""
    values = result.as_numpy(name).tolist()
    return json.loads(json.dumps(values, default=bytes.decode))


def answered(url: str, name: str, **options: Any) -> triton.InferResult:
    """The answer to this function's usual request."""
    binary, column = options.pop("binary", True), options.pop("column", False)
    tensors = [tensor(one, texts, binary=binary, column=column) for one, texts in INPUTS[name].items()]
    with client_of(url) as client:
        return client.infer(MODELS[name], tensors, parameters=PARAMETERS.get(name), **options)


def close(given: Any, expected: Any) -> bool:
    """Equal as 32-bit floats, whose texts have more digits than they hold."""
    return bool(np.array_equal(np.asarray(given, "<f4"), np.asarray(expected, "<f4")))


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("name", MODELS)
def test_triton_gets_the_predictions_of_the_functions_own_interface(address: Callable[[str], str], name: str, binary: bool) -> None:
    url = address(name)
    own = requests.post(url, json=REQUESTS[name], timeout=30).json()
    with client_of(url) as client:
        described = client.get_model_metadata(MODELS[name])
        assert client.is_model_ready(MODELS[name])
    outputs = None if binary else [triton.InferRequestedOutput(one["name"], binary_data=False) for one in described["outputs"]]
    result = answered(url, name, binary=binary, column=binary, outputs=outputs, request_id="r-42")
    response = result.get_response()
    assert (response["model_name"], response["model_version"], response["id"]) == (MODELS[name], "1", "r-42")
    given = {one["name"]: one for one in response["outputs"]}
    assert [(one["name"], one["datatype"]) for one in described["outputs"]] == [(one["name"], one["datatype"]) for one in given.values()]
    assert all(len(one["shape"]) == len(given[one["name"]]["shape"]) for one in described["outputs"])
    assert all(("data" in one) is not binary for one in given.values())
    COMPARED[name](result, own)


def classified(result: triton.InferResult, own: Any) -> None:
    assert of(result, "label") == [one["label"] for one in own["predictions"]]
    assert close(of(result, "score"), [one["score"] for one in own["predictions"]])
    assert of(result, "labels") == [[each["label"] for each in one["scores"]] for one in own["predictions"]]
    assert close(of(result, "scores"), [[each["score"] for each in one["scores"]] for one in own["predictions"]])
    classes, rows = of(result, "classes"), result.as_numpy("probabilities")
    assert classes == ["[NoSite]", "LNF", "CNAF", "FI"]
    assert np.allclose(rows.sum(axis=1), 1)
    assert [classes[row.argmax()] for row in rows] == of(result, "label")


def filled(result: triton.InferResult, own: Any) -> None:
    assert of(result, "filled") == [one["filled"] for one in own["predictions"]]
    assert of(result, "counts") == [3]
    masks = [mask for one in own["predictions"] for mask in one["masks"]]
    assert of(result, "tokens") == [[each["token"] for each in mask] for mask in masks]
    assert close(of(result, "probabilities"), [[each["probability"] for each in mask] for mask in masks])


def recognized(result: triton.InferResult, own: Any) -> None:
    found = [each for one in own["predictions"] for each in one["entities"]]
    assert of(result, "counts") == [len(found)]
    for name, field in (("entity", "text"), ("label", "label"), ("start", "start"), ("end", "end")):
        assert of(result, name) == [each[field] for each in found]
    assert close(of(result, "score"), [each["score"] for each in found])


def replied(result: triton.InferResult, own: Any) -> None:
    for name in ("answer", "start", "end"):
        assert of(result, name) == [one[name] for one in own["predictions"]]
    assert close(of(result, "score"), [one["score"] for one in own["predictions"]])


def embedded(result: triton.InferResult, own: Any) -> None:
    assert result.as_numpy("embedding").dtype == np.float32
    assert close(of(result, "embedding"), own["vectors"])
    assert of(result, "truncated") == own["truncated"]


def generated(result: triton.InferResult, own: Any) -> None:
    assert of(result, "generated") == [one["text"] for one in own["predictions"]]
    assert of(result, "tokens") == [one["tokens"] for one in own["predictions"]]
    assert of(result, "finish") == [one["finish"] for one in own["predictions"]]


def found(result: triton.InferResult, own: Any) -> None:
    neighbours = own["results"][0]
    assert of(result, "counts") == [2]
    assert of(result, "id") == [one["id"] for one in neighbours]
    assert of(result, "document") == [one["text"] for one in neighbours]
    assert [json.loads(text) for text in of(result, "metadata")] == [one["metadata"] for one in neighbours]
    assert close(of(result, "score"), [one["score"] for one in neighbours])


COMPARED: dict[str, Callable[[triton.InferResult, Any], None]] = {
    "classify": classified,
    "fill_mask": filled,
    "ner": recognized,
    "answer": replied,
    "embed": embedded,
    "generate": generated,
    "search": found,
}


def test_results_that_texts_have_different_numbers_of_follow_one_another(address: Callable[[str], str]) -> None:
    url = address("ner")
    with client_of(url) as client:
        result = client.infer("physics-ner", [tensor("text", ["nothing", "The Higgs boson and the top quark", "nothing"])])
        assert of(result, "counts") == [0, 2, 0]
        assert of(result, "entity") == ["Higgs boson", "top quark"]
        result = client.infer("physics-ner", [tensor("text", ["nothing"])])
    assert [result.as_numpy(name).shape for name in ("counts", "entity", "score")] == [(1,), (0,), (0,)]


def test_only_the_outputs_that_are_asked_for_come_each_in_its_form(address: Callable[[str], str]) -> None:
    wanted = [triton.InferRequestedOutput("score", binary_data=True), triton.InferRequestedOutput("label", binary_data=False)]
    result = answered(address("classify"), "classify", outputs=wanted)
    one, other = result.get_response()["outputs"]
    assert (one["name"], one["parameters"], other["name"], other["data"]) == (
        "score",
        {"binary_data_size": 8},
        "label",
        ["LNF", "[NoSite]"],
    )
    assert close(of(result, "score"), [0.92045575, 0.4753669])


def test_the_server_says_what_it_is_and_whether_it_is_ready(home: settings.Settings) -> None:
    state = serve.State(ready=False)
    client = serve.create_app(serve.load_function(FUNCTIONS / "embed"), state).test_client()
    assert client.get("/v2/health/live").json == {"live": True}
    assert (client.get("/v2/health/ready").status_code, client.get("/v2/health/ready").json["ready"]) == (503, False)
    state.ready = True
    assert client.get("/v2/health/ready").json == {"live": True, "ready": True}
    state.waiting_limit = -1  # whoever asks whether it is ready is never told to come back
    assert client.get("/v2/health/ready").status_code == 200
    assert client.get("/v2/models/minilm").status_code == 429
    state.waiting_limit = 1
    assert client.get("/v2").json["extensions"] == ["binary_tensor_data"]


def test_a_model_that_is_asked_whether_it_is_ready_is_loaded(home: settings.Settings) -> None:
    client = serve.create_app(serve.load_function(FUNCTIONS / "embed"), serve.State(ready=True)).test_client()
    assert client.get("/v2/models/minilm").status_code == 200
    assert not models._models._items
    assert client.get("/v2/models/minilm/ready").json == {"name": "minilm", "ready": True}
    assert models._models._items
    elsewhere = client.get("/v2/models/infn-structures/ready")
    assert elsewhere.status_code == 404
    assert "text-classification" in elsewhere.json["error"]


def test_versions_are_the_catalogs_and_production_answers_by_default(address: Callable[[str], str]) -> None:
    catalog = Catalog(shared())
    for kind, name in (("models", "minilm"), ("indexes", "abstracts")):
        first = catalog.resolve(kind, name)  # type: ignore[arg-type]
        catalog.publish(
            kind, name, "another", {key: value for key, value in first.items() if key not in ("name", "version", "digest", "created")}
        )  # type: ignore[arg-type]
    with client_of(address("embed")) as client:

        def answering(version: str = "") -> Any:
            return client.infer("minilm", [tensor("text", ["x"])], model_version=version).get_response()["model_version"]

        assert (answering(), answering("1"), answering("2")) == ("2", "1", "2")
        catalog.set_alias("models", "minilm", "production", "1")
        assert (answering(), answering("production")) == ("1", "1")
        assert client.get_model_metadata("minilm")["versions"] == ["1", "2"]
        assert client.get_model_metadata("minilm", "2")["versions"] == ["2"]
        assert (client.is_model_ready("minilm", "2"), client.is_model_ready("minilm", "3")) == (True, False)
    with client_of(address("search")) as client:
        result = client.infer("abstracts", [tensor("text", ["neutrino"])], model_version="1")
        assert result.get_response()["model_version"] == "1"


def test_pairs_are_a_second_input_and_named_where_a_model_needs_them(address: Callable[[str], str]) -> None:
    url = address("classify")
    with client_of(url) as client:
        assert [one["name"] for one in client.get_model_metadata("infn-structures")["inputs"]] == ["text"]
        pairs = [tensor("text", ["in frascati"]), tensor("text_pair", ["and cnaf"])]
        own = {**REQUESTS["classify"], "predict_input": {"input_text": ["in frascati"], "text_pair": ["and cnaf"]}}
        assert of(client.infer("infn-structures", pairs), "label") == [
            requests.post(url, json=own, timeout=30).json()["predictions"][0]["label"]
        ]
        with pytest.raises(InferenceServerException, match="text_pair"):
            client.infer("infn-structures", [tensor("text", ["a", "b"]), tensor("text_pair", ["c"])])


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_compressed_request_is_read(address: Callable[[str], str], encoding: str) -> None:
    result = answered(address("classify"), "classify", request_compression_algorithm=encoding, response_compression_algorithm=encoding)
    assert of(result, "label") == ["LNF", "[NoSite]"]


def test_the_asynchronous_client_gets_the_same(address: Callable[[str], str]) -> None:
    url = address("embed")

    async def ask() -> Any:
        async with triton_aio.InferenceServerClient(url.removeprefix("http://")) as client:
            return await client.infer("minilm", [tensor("text", INPUTS["embed"]["text"])])

    assert close(of(asyncio.run(ask()), "embedding"), requests.post(url, json=REQUESTS["embed"], timeout=30).json()["vectors"])


def test_a_refusal_reaches_the_client_with_its_status_and_its_reason(
    address: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with client_of(address("embed")) as client:

        def refused(model: str = "minilm", name: str = "text") -> tuple[str, str]:
            with pytest.raises(InferenceServerException) as caught:
                client.infer(model, [tensor(name, ["x"])])
            return caught.value.status(), caught.value.message()

        assert refused("minilmm") == ("404", "The catalog has no model `minilmm` (`model`). Did you mean `minilm`?")
        assert refused("infn-structures")[0] == "400"
        assert refused(name="x") == ("400", "There is no input `x` (`inputs`). There are text.")
        for error, status in ((Overloaded("too much"), "429"), (StoreAway("away"), "503"), (RuntimeError("a secret"), "500")):

            def broken(*_: Any, error: Exception = error) -> None:
                raise error

            monkeypatch.setattr(embedder, "embed", broken)
            found = refused()
            assert found[0] == status
            assert "secret" not in found[1]


def test_an_answer_is_counted_for_the_catalog_and_a_question_about_a_model_is_not(address: Callable[[str], str]) -> None:
    url = address("classify")
    answered(url, "classify")
    requests.get(f"{url}/v2/models/infn-structures/ready", timeout=30)
    served_counts.flush()
    assert usage.of(shared(), "models", "infn-structures").served == 1


def test_under_parliament_there_is_the_functions_own_interface_alone(home: settings.Settings) -> None:
    client = parliament.server.create(serve.load_function(FUNCTIONS / "embed")).test_client()
    assert client.post("/", json=REQUESTS["embed"]).status_code == 200
    assert client.get("/v2").status_code == 404


def test_nothing_of_the_protocols_is_imported_before_it_is_asked_for(home: settings.Settings) -> None:
    program = f"""
import sys, pathlib
from mlaas import serve
client = serve.create_app(serve.load_function(pathlib.Path({str(FUNCTIONS / "embed")!r})), serve.State(ready=True)).test_client()
loaded = lambda: sorted(name for name in sys.modules if name.startswith("mlaas.protocols."))
assert client.post("/", json={REQUESTS["embed"]!r}).status_code == 200
assert client.get("/v2/health/ready").status_code == 200
print(loaded())
client.get("/v2")
assert "mlaas.protocols.inference" in loaded()
assert "mlaas.catalog_api" not in sys.modules
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, ran.stdout.strip()) == (0, "[]"), ran.stderr
