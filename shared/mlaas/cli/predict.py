"""`mlaas classify`, `fill-mask` and `search`: predictions."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from .. import display
from ..client import Answer, EventClient, HttpClient
from ..errors import InvalidRequest
from ..settings import current
from .options import Json, Kafka, Model, Texts, Timeout, TopK, model_ref, read_texts, says_why, store_ref

__all__ = ["app"]

app = typer.Typer()


@app.command(epilog="Example: mlaas classify -m infn-structures 'INFN, Sezione di Pisa, Italy'")
@says_why
def classify(
    texts: Texts = None, model: Model = "", top_k: TopK = 1, kafka: Kafka = False, timeout: Timeout = 60.0, as_json: Json = False
) -> None:
    """Classify texts."""
    request = _predict(model, read_texts(texts), top_k)
    display.classified(request["predict_input"]["input_text"], _ask("classify", request, kafka, timeout), as_json)


@app.command("fill-mask", epilog="Example: mlaas fill-mask -m physics-lm 'The [MASK] boson decays into two [MASK].'")
@says_why
def fill_mask(
    texts: Texts = None, model: Model = "", top_k: TopK = 5, kafka: Kafka = False, timeout: Timeout = 60.0, as_json: Json = False
) -> None:
    """Fill every [MASK] in."""
    request = _predict(model, read_texts(texts), top_k)
    display.filled(request["predict_input"]["input_text"], _ask("fill_mask", request, kafka, timeout), as_json)


@app.command(epilog="Example: mlaas search -i abstracts 'neutrino oscillations' -k 3")
@says_why
def search(
    texts: Texts = None,
    index: Annotated[
        str, typer.Option("--index", "-i", metavar="INDEX", help="NAME or NAME@ALIAS of the catalog, local:PATH or s3:KEY.")
    ] = "",
    top_k: TopK = 5,
    kafka: Kafka = False,
    timeout: Timeout = 60.0,
    as_json: Json = False,
) -> None:
    """Find the nearest documents of an index."""
    asked = read_texts(texts)
    request = {"dataset": store_ref(index), "search_input": {"input_text": asked}, "top_k": top_k}
    display.searched(asked, _ask("search", request, kafka, timeout), as_json)


def _predict(model: str, texts: list[str], top_k: int) -> dict[str, Any]:
    if not model:
        raise InvalidRequest("which model?", field="--model", remedy="Name one with --model; `mlaas catalog` lists them.")
    return {"model": model_ref(model).model_dump(exclude_none=True), "predict_input": {"input_text": texts}, "top_k": top_k}


def _ask(capability: str, request: dict[str, Any], kafka: bool, timeout: float) -> Answer:
    settings = current()
    if not kafka:
        return HttpClient(settings.url, timeout=timeout).ask(capability, request)
    with EventClient(settings) as client:
        return client.ask(capability, request, seconds=timeout)
