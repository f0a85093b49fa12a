"""Tensors of the Open Inference Protocol, in JSON and after it as bytes (the extension for binary data).

With the header `Inference-Header-Content-Length` a body is so many bytes of JSON, and then the bytes of the tensors that have
`binary_data_size`, in their order. An element of a BYTES tensor is its length (4 bytes, little-endian) and its bytes; here these are
UTF-8. Whatever the functions read is text, so BYTES is the one datatype of inputs.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from pydantic import Field

from ..contracts import Contract, parse
from ..errors import InvalidRequest, Malformed, TooLarge

__all__ = ["HEADER", "Asked", "Tensor", "read", "unpacked", "write"]

HEADER = "Inference-Header-Content-Length"
_NUMPY = {"FP32": "<f4", "INT32": "<i4", "BOOL": "?"}
_ENCODINGS = {"gzip": 31, "deflate": 15}  # zlib's window bits: with gzip's header, with zlib's


class Input(Contract):
    """A tensor of a request."""

    name: str
    shape: list[int]
    datatype: str
    parameters: dict[str, Any] | None = None
    data: list[Any] | None = None


class Output(Contract):
    """A tensor that is asked for."""

    name: str
    parameters: dict[str, Any] | None = None


class Body(Contract):
    """What POST .../infer takes. KServe's client says `model_name` here as well; the path decides."""

    id: str | None = None
    model_name: str | None = None
    parameters: dict[str, Any] | None = None
    inputs: list[Input] = Field(min_length=1, max_length=16)
    outputs: list[Output] | None = Field(None, max_length=64)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A request: texts by the name of their tensor, parameters, and which outputs are wanted (None for all), each in which form."""

    id: str | None = None
    inputs: Mapping[str, list[str]]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    wanted: Mapping[str, bool] | None = None  # name to whether it is to be binary
    binary: bool = False


@dataclass(frozen=True)
class Tensor:
    """An output. BYTES are texts, flat in the order of their rows; everything else is an array of its shape."""

    datatype: str
    shape: Sequence[int]
    values: Any

    @classmethod
    def texts(cls, values: Sequence[str], *shape: int) -> Tensor:
        """BYTES of this shape, or a row of them."""
        return cls("BYTES", shape or (len(values),), values)

    @classmethod
    def numbers(cls, datatype: str, values: Any, *shape: int) -> Tensor:
        """Numbers of this shape, or of their own."""
        array: NDArray[Any] = np.asarray(values, dtype=_NUMPY[datatype])
        array = array.reshape(shape) if shape else array
        return cls(datatype, array.shape, array)

    def flat(self) -> Any:
        """The elements as JSON has them."""
        return list(self.values) if self.datatype == "BYTES" else self.values.ravel()

    def bytes(self) -> bytes:
        """The elements as they are sent after the JSON."""
        if self.datatype != "BYTES":
            return bytes(self.values.tobytes())
        encoded = [text.encode() for text in self.values]
        return b"".join(len(one).to_bytes(4, "little") + one for one in encoded)


def unpacked(body: bytes, encoding: str | None, limit: int) -> bytes:
    """`body` without its Content-Encoding. Raises Malformed, and TooLarge where it is more than `limit` bytes."""
    if encoding in (None, "", "identity"):
        return body
    bits = _ENCODINGS.get(str(encoding).strip().lower())
    if bits is None:
        raise Malformed("this Content-Encoding is not known", field="Content-Encoding", remedy="Use gzip, deflate, or none.")
    reading = zlib.decompressobj(bits)
    try:
        found = reading.decompress(body, limit + 1)
    except zlib.error:
        found = None
    if found is not None and len(found) > limit:
        raise TooLarge(f"the request is larger than {limit} bytes", field="$", remedy="Send fewer texts at once.")
    if found is None or not reading.eof or reading.unused_data:
        raise Malformed("the body is not what its Content-Encoding says", field="Content-Encoding", remedy="Compress the whole body once.")
    return found


def read(body: bytes, header: str | None) -> Asked:
    """The request in `body`, whose JSON has as many bytes as `header` says, or is all of it. Raises Malformed, InvalidRequest."""
    size = len(body) if header is None else _number(header)
    if size is None or size > len(body):
        raise Malformed(
            f"`{HEADER}` is not a number of bytes of the body, which has {len(body)}", field=HEADER, remedy="Say how long the JSON is."
        )
    try:
        data = json.loads(body[:size] or b"null")
    except (ValueError, RecursionError):
        remedy = f"Send JSON; where bytes of tensors follow it, `{HEADER}` says how long it is."
        raise Malformed("the body does not begin with JSON", field="$", remedy=remedy) from None
    asked = parse(Body, data)
    _once([one.name for one in asked.inputs], "inputs")
    _once([one.name for one in asked.outputs or ()], "outputs")
    rest, inputs = memoryview(body)[size:], dict[str, list[str]]()
    for one in asked.inputs:
        length = (one.parameters or {}).get("binary_data_size")
        if length is not None:
            if type(length) is not int or not 0 <= length <= len(rest):
                raise InvalidRequest(
                    f"`binary_data_size` of `{one.name}` is no number of bytes that follow the JSON: there are {len(rest)} left",
                    field=f"{one.name}.parameters.binary_data_size",
                    remedy="Give the tensors' sizes in the order in which their bytes are.",
                )
            inputs[one.name], rest = _texts(one, bytes(rest[:length])), rest[length:]
        else:
            inputs[one.name] = _texts(one, None)
    if len(rest):
        remedy = "Give each tensor that is sent as bytes its `binary_data_size`."
        raise InvalidRequest(f"{len(rest)} bytes after the JSON belong to no tensor", field="inputs", remedy=remedy)
    parameters = dict(asked.parameters or {})
    binary = parameters.pop("binary_data_output", False) is True
    wanted = None if not asked.outputs else {one.name: _is_binary(one, binary) for one in asked.outputs}
    return Asked(id=asked.id, inputs=inputs, parameters=parameters, wanted=wanted, binary=binary)


def write(outputs: Mapping[str, Tensor], asked: Asked, **said: Any) -> tuple[bytes, dict[str, str]]:
    """The body of an answer that has `outputs` and what is `said` beside them, and its headers."""
    shown, following = [], []
    for name, tensor in outputs.items():
        one = {"name": name, "datatype": tensor.datatype, "shape": list(tensor.shape)}
        if asked.binary if asked.wanted is None else asked.wanted[name]:
            following.append(tensor.bytes())
            shown.append({**one, "parameters": {"binary_data_size": len(following[-1])}})
        else:
            shown.append({**one, "data": tensor.flat()})
    body = orjson.dumps({**said, "outputs": shown}, option=orjson.OPT_SERIALIZE_NUMPY)
    if not following:
        return body, {"Content-Type": "application/json"}
    return b"".join([body, *following]), {"Content-Type": "application/octet-stream", HEADER: str(len(body))}


def _texts(one: Input, raw: bytes | None) -> list[str]:
    """The texts of a tensor, from its JSON or from `raw`. Raises InvalidRequest."""
    if one.datatype != "BYTES":
        raise InvalidRequest(f"`{one.name}` has another datatype than BYTES", field=f"{one.name}.datatype", remedy="Send texts as BYTES.")
    if not 1 <= len(one.shape) <= 2 or one.shape[0] < 1 or one.shape[1:] not in ([], [1]):
        remedy = "Its shape is [n] or [n, 1], n the number of texts, at least 1."
        raise InvalidRequest(f"`{one.name}` has a shape that no list of texts has", field=f"{one.name}.shape", remedy=remedy)
    if (raw is None) == (one.data is None):
        shared = any(name.startswith("shared_memory") for name in one.parameters or {})
        detail = "is in shared memory, which is not read" if shared else "needs either `data` or `binary_data_size`"
        raise InvalidRequest(f"`{one.name}` {detail}", field=f"{one.name}.data", remedy="Send its elements in the request.")
    texts = list(_of_json(one.data or [], one.name) if raw is None else _of_bytes(raw, one.name))
    if len(texts) != one.shape[0]:
        detail = f"`{one.name}` has {len(texts)} elements, and by its shape {one.shape[0]}"
        raise InvalidRequest(detail, field=f"{one.name}.shape", remedy="Correct the shape or the data.")
    return texts


def _of_json(data: Sequence[Any], name: str) -> Iterator[str]:
    place = 0
    for row in data:
        for text in row if isinstance(row, list) else [row]:
            if not isinstance(text, str):
                remedy = "Elements of BYTES are JSON strings."
                raise InvalidRequest(f"element {place} of `{name}` is no text", field=f"{name}.{place}", remedy=remedy)
            yield text
            place += 1


def _of_bytes(raw: bytes, name: str) -> Iterator[str]:
    at, place = 0, 0
    while at < len(raw):
        start, at = at + 4, at + 4 + int.from_bytes(raw[at : at + 4], "little")
        if at > len(raw):
            remedy = "Each element is its length (4 bytes, little-endian) and then so many bytes."
            raise InvalidRequest(f"element {place} of `{name}` is longer than what was sent", field=f"{name}.{place}", remedy=remedy)
        try:
            yield raw[start:at].decode()
        except UnicodeDecodeError:
            detail = f"element {place} of `{name}` is not UTF-8"
            raise InvalidRequest(detail, field=f"{name}.{place}", remedy="Encode texts as UTF-8.") from None
        place += 1


def _is_binary(one: Output, otherwise: bool) -> bool:
    parameters = one.parameters or {}
    if unknown := set(parameters) - {"binary_data"}:
        detail = f"`{one.name}` is asked for with `{sorted(unknown)[0][:50]}`, which is not known"
        remedy = "The only parameter of an output is `binary_data`."
        raise InvalidRequest(detail, field=f"{one.name}.parameters", remedy=remedy)
    return parameters.get("binary_data", otherwise) is True


def _once(names: Sequence[str], field: str) -> None:
    if len(set(names)) < len(names):
        raise InvalidRequest("a tensor is there twice", field=field, remedy="Name each tensor once.")


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None
