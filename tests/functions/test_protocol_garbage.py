"""Whatever is sent in a protocol is answered or refused with a reason in the protocol's form, and is never a defect."""

from __future__ import annotations

import gzip
import json
import zlib
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as trying
from hypothesis import strategies as st

from mlaas import serve
from mlaas.protocols.tensors import HEADER
from mlaas.settings import Settings

FUNCTIONS = Path(__file__).parents[2] / "functions"
INFER = "/v2/models/infn-structures/infer"
TEXT: dict[str, Any] = {"name": "text", "datatype": "BYTES", "shape": [1], "data": ["INFN Frascati"]}
often = trying(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def client(home: Settings) -> Any:
    return _client("classify")


@pytest.fixture
def embed(home: Settings) -> Any:
    return _client("embed")


def _client(name: str) -> Any:
    return serve.create_app(serve.load_function(FUNCTIONS / name), serve.State(ready=True)).test_client()


def element(data: bytes, length: int | None = None) -> bytes:
    return (len(data) if length is None else length).to_bytes(4, "little") + data


def sent(raw: bytes, size: Any = None, shape: Any = None, **more: Any) -> tuple[bytes, dict[str, str]]:
    """A request whose one tensor is sent as bytes, and its header."""
    tensor = {
        **TEXT,
        "shape": [1] if shape is None else shape,
        "parameters": {"binary_data_size": len(raw) if size is None else size},
        **more,
    }
    head = json.dumps({"inputs": [{name: value for name, value in tensor.items() if name != "data" or "data" in more}]}).encode()
    return head + raw, {HEADER: str(len(head))}


GOOD = element(b"INFN Frascati")
BROKEN: dict[str, tuple[bytes, dict[str, str], str]] = {
    "an element that is longer than what was sent": (*sent(element(b"INFN", 5)), "text.0"),
    "an element as long as a number can be": (*sent(element(b"INFN", 2**32 - 1)), "text.0"),
    "half a length": (*sent(b"\x01\x00"), "text.0"),
    "an element that is no UTF-8": (*sent(element(b"\xff\xfe")), "text.0"),
    "the second element that is no UTF-8": (*sent(GOOD + element(b"\xff"), shape=[2]), "text.1"),
    "more elements than its shape": (*sent(GOOD + GOOD), "text.shape"),
    "fewer elements than its shape": (*sent(GOOD, shape=[2]), "text.shape"),
    "no element": (*sent(b"", shape=[0]), "text.shape"),
    "a shape of an image": (*sent(GOOD, shape=[1, 3, 224, 224]), "text.shape"),
    "a negative shape": (*sent(GOOD, shape=[-1]), "text.shape"),
    "a shape of nothing": (*sent(GOOD, shape=[]), "text.shape"),
    "a shape that is a text": (*sent(GOOD, shape="1"), "inputs.0.shape"),
    "a shape like no machine's memory": (*sent(GOOD, shape=[2**63]), "text.shape"),
    "more bytes than were sent": (*sent(GOOD, size=10**9), "text.parameters.binary_data_size"),
    "a negative number of bytes": (*sent(GOOD, size=-1), "text.parameters.binary_data_size"),
    "a number of bytes that is a text": (*sent(GOOD, size="4"), "text.parameters.binary_data_size"),
    "a number of bytes that is true": (*sent(GOOD, size=True), "text.parameters.binary_data_size"),
    "bytes that belong to nothing": (*sent(GOOD + b"x", size=len(GOOD)), "inputs"),
    "data in JSON and bytes as well": (*sent(GOOD, data=["x"]), "text.data"),
    "another datatype": (*sent(GOOD, datatype="FP32"), "text.datatype"),
    "a datatype that there is not": (*sent(GOOD, datatype="STRING"), "text.datatype"),
    "a header that is no number": (GOOD, {HEADER: "many"}, HEADER),
    "a header that is negative": (GOOD, {HEADER: "-1"}, HEADER),
    "a header beyond the body": (GOOD, {HEADER: "1000"}, HEADER),
    "a header of more digits than a number has": (GOOD, {HEADER: "9" * 5000}, HEADER),
    "a header in the middle of the JSON": (sent(GOOD)[0], {HEADER: "7"}, "JSON"),
    "no JSON at all": (GOOD, {HEADER: "0"}, "JSON"),
    "an encoding that nobody knows": (b"{}", {"Content-Encoding": "br"}, "Content-Encoding"),
    "what is not compressed": (b"{}", {"Content-Encoding": "gzip"}, "Content-Encoding"),
    "half of what was compressed": (gzip.compress(json.dumps({"inputs": [TEXT]}).encode())[:-9], {"Content-Encoding": "gzip"}, "Content-Encoding"),
    "something after what was compressed": (zlib.compress(b"{}") + b"x", {"Content-Encoding": "deflate"}, "Content-Encoding"),
}  # fmt: skip

TENSORS: dict[str, tuple[Any, str]] = {
    "nothing": (None, "JSON object"),
    "a list": ([TEXT], "JSON object"),
    "no inputs": ({}, "inputs"),
    "an empty list of inputs": ({"inputs": []}, "inputs"),
    "an input that is a text": ({"inputs": ["x"]}, "inputs.0"),
    "an input without data": ({"inputs": [{**TEXT, "data": None}]}, "text.data"),
    "no data for a text": ({"inputs": [{**TEXT, "data": []}]}, "text.shape"),
    "numbers for texts": ({"inputs": [{**TEXT, "data": [3]}]}, "text.0"),
    "null for a text": ({"inputs": [{**TEXT, "shape": [2], "data": ["x", None]}]}, "text.1"),
    "lists of lists of lists": ({"inputs": [{**TEXT, "data": [[["x"]]]}]}, "text.0"),
    "half of a character": ({"inputs": [{**TEXT, "data": ["\ud800"]}]}, "text.0"),
    "a tensor twice": ({"inputs": [TEXT, TEXT]}, "inputs"),
    "a tensor that nobody takes": ({"inputs": [TEXT, {**TEXT, "name": "image"}]}, "image"),
    "only a tensor that is optional": ({"inputs": [{**TEXT, "name": "text_pair"}]}, "text"),
    "a tensor in shared memory": ({"inputs": [{**TEXT, "data": None, "parameters": {"shared_memory_region": "r"}}]}, "shared memory"),
    "an output that there is not": ({"inputs": [TEXT], "outputs": [{"name": "logits"}]}, "logits"),
    "an output twice": ({"inputs": [TEXT], "outputs": [{"name": "label"}] * 2}, "outputs"),
    "an output classified": ({"inputs": [TEXT], "outputs": [{"name": "label", "parameters": {"classification": 3}}]}, "classification"),
    "a parameter that there is not": ({"inputs": [TEXT], "parameters": {"topk": 3}}, "topk"),
    "a parameter of a sequence": ({"inputs": [TEXT], "parameters": {"sequence_id": 3}}, "sequence_id"),
    "top_k of 0": ({"inputs": [TEXT], "parameters": {"top_k": 0}}, "top_k"),
    "top_k that is a list": ({"inputs": [TEXT], "parameters": {"top_k": [1]}}, "top_k"),
    "an id that is a number": ({"id": 7, "inputs": [TEXT]}, "id"),
    "a misspelt field": ({"input": [TEXT]}, "inputs"),
    "a text that is too long": ({"inputs": [{**TEXT, "data": ["x" * 100_001]}]}, "text.0"),
    "too many texts": ({"inputs": [{**TEXT, "shape": [4097], "data": ["x"] * 4097}]}, "text"),
}  # fmt: skip


def assert_refused(answer: Any, word: str, status: int = 400) -> None:
    assert answer.status_code == status, answer.text
    assert answer.content_type == "application/json"
    (error,) = answer.json.values()
    assert word in error
    assert error.endswith((".", "?"))
    assert not any(leak in error for leak in ("Traceback", "/tmp", "Error(", "site-packages", "predict_input"))


@pytest.mark.parametrize("what", BROKEN)
def test_bytes_that_are_no_tensors_are_refused_with_the_place(client: Any, what: str) -> None:
    body, headers, word = BROKEN[what]
    assert_refused(client.post(INFER, data=body, headers=headers), word)


@pytest.mark.parametrize("what", TENSORS)
def test_tensors_that_a_function_does_not_take_are_refused_with_their_name(client: Any, what: str) -> None:
    body, word = TENSORS[what]
    assert_refused(client.post(INFER, json=body), word)


def test_what_is_too_large_is_refused_compressed_or_not(client: Any, home: Settings) -> None:
    large = json.dumps({"inputs": [{**TEXT, "data": ["x" * home.max_body_bytes]}]}).encode()
    assert_refused(client.post(INFER, data=large), "larger", 413)
    assert_refused(client.post(INFER, data=gzip.compress(large), headers={"Content-Encoding": "gzip"}), "larger", 413)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v2/models/nobody", 404),
        ("/v2/models/nobody/ready", 404),
        ("/v2/models/infn-structures/versions/9", 404),
        ("/v2/models/infn-structures/versions/nobody/ready", 404),
        ("/v2/models/infn-structures/versions/1/", 404),
        ("/v2/models/physics-lm/ready", 404),
        ("/v2/models/%2e%2e%2fetc", 404),
        ("/v2/models/a%00b", 404),
        ("/v2/models/%ed%a0%80", 404),
        ("/v2/models/" + "x" * 5000, 404),
        ("/v2/models/infn-structures/config", 404),
        ("/v2/models/infn-structures/infer", 404),
        ("/v2/nothing", 404),
    ],
)
def test_what_is_not_there_is_said_in_the_protocols_form(client: Any, path: str, status: int) -> None:
    assert_refused(client.get(path), "", status)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
tensors = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["text", "text_pair", "x"]) | json_values,
        "datatype": st.sampled_from(["BYTES", "FP32"]) | json_values,
        "shape": st.lists(st.integers(-2, 5), max_size=3) | json_values,
    },
    optional={
        "data": st.lists(st.text(max_size=5) | json_values, max_size=4) | json_values,
        "parameters": st.fixed_dictionaries({"binary_data_size": st.integers(-1, 60)}) | json_values,
    },
)
bodies = st.fixed_dictionaries(
    {"inputs": st.lists(tensors | json_values, max_size=3) | json_values},
    optional={
        "id": json_values,
        "outputs": st.lists(st.fixed_dictionaries({"name": st.sampled_from(["label", "scores"]) | json_values}) | json_values, max_size=3),
        "parameters": st.dictionaries(st.sampled_from(["top_k", "binary_data_output", "priority"]), json_values, max_size=3) | json_values,
    },
)


def answered_or_refused(answer: Any) -> None:
    assert answer.status_code in (200, 400, 404, 413), answer.text
    if answer.status_code != 200:
        (error,) = answer.json.values()
        assert error


@often
@given(body=bodies, raw=st.binary(max_size=60), shift=st.integers(-3, 3))
def test_no_tensors_are_a_defect(client: Any, body: Any, raw: bytes, shift: int) -> None:
    head = json.dumps(body).encode()
    answered_or_refused(client.post(INFER, data=head + raw, headers={HEADER: str(len(head) + shift)}))
    answered_or_refused(client.post(INFER, data=head))


@often
@given(raw=st.binary(max_size=80), lengths=st.lists(st.integers(0, 2**32 - 1), max_size=3), rows=st.integers(0, 4))
def test_no_bytes_of_a_tensor_are_a_defect(client: Any, raw: bytes, lengths: list[int], rows: int) -> None:
    body, headers = sent(b"".join(element(raw, length) for length in lengths) + raw, shape=[rows])
    answered_or_refused(client.post(INFER, data=body, headers=headers))


@often
@given(
    body=st.binary(max_size=40) | json_values.map(lambda value: json.dumps(value).encode()), header=st.text("0123456789-+ e.x", max_size=6)
)
def test_no_body_and_no_header_is_a_defect(client: Any, body: bytes, header: str) -> None:
    answered_or_refused(client.post(INFER, data=body, headers={HEADER: header}))


@often
@given(
    body=st.fixed_dictionaries(
        {"input": st.lists(st.integers(-1, 200) | st.text(max_size=4), max_size=4) | json_values},
        optional={"model": st.just("minilm") | json_values, "encoding_format": st.sampled_from(["float", "base64"]) | json_values, "dimensions": json_values},
    )
    | json_values
)  # fmt: skip
def test_no_embeddings_request_is_a_defect(embed: Any, body: Any) -> None:
    answer = embed.post("/v1/embeddings", json=body)
    answered_or_refused(answer)
    if answer.status_code != 200:
        assert set(answer.json["error"]) == {"message", "type", "param", "code"}


@often
@given(
    path=st.text(max_size=30),
    prefix=st.sampled_from(["/v1/", "/v1/models/", "/v2/", "/v2/models/", "/v2/models/infn-structures/versions/"]),
)
def test_no_path_is_a_defect(embed: Any, path: str, prefix: str) -> None:
    answer = embed.get(prefix + quote(path, errors="replace"))
    assert answer.status_code in (200, 301, 308, 404), answer.text
