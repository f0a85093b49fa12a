"""`mlaas classify`, `fill-mask`, `ner`, `answer`, `embed`, `generate` and `search`: predictions."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from .. import display
from ..client import Answer, Client
from ..client.names import model_ref, store_ref
from ..contracts import ModelRef, parse
from ..errors import InvalidRequest
from ..settings import current
from . import completion, files
from .options import Json, Kafka, MaxLoss, Model, Texts, Timeout, TopK, Variant, given, json_argument, read_texts, says_why, text_argument

__all__ = ["app"]

app = typer.Typer()


@app.command(epilog="Example: mlaas classify -m infn-structures 'INFN, Sezione di Pisa, Italy'")
@says_why
def classify(
    texts: Texts = None,
    model: Model = "",
    variant: Variant = None,
    max_accuracy_loss: MaxLoss = None,
    top_k: TopK = 1,
    file: files.File = None,
    column: files.Column = "text",
    id_column: files.IdColumn = None,
    output: files.Output = None,
    again: files.Again = False,
    kafka: Kafka = False,
    timeout: Timeout = 60.0,
    as_json: Json = False,
) -> None:
    """Classify texts, or a file of them."""
    named = _named(model, variant, max_accuracy_loss)
    if file:
        asked = _of_file(texts, file=file, column=column, id_column=id_column, output=output, again=again, kafka=kafka, timeout=timeout)
        files.predict("classify", _model(named, top_k), asked, as_json)
        return
    request = _predict(named, read_texts(texts), top_k)
    display.classified(request["predict_input"]["input_text"], _ask("classify", request, kafka, timeout), as_json)


@app.command("fill-mask", epilog="Example: mlaas fill-mask -m physics-lm 'The [MASK] boson decays into two [MASK].'")
@says_why
def fill_mask(
    texts: Texts = None,
    model: Model = "",
    variant: Variant = None,
    max_accuracy_loss: MaxLoss = None,
    top_k: TopK = 5,
    file: files.File = None,
    column: files.Column = "text",
    id_column: files.IdColumn = None,
    output: files.Output = None,
    again: files.Again = False,
    kafka: Kafka = False,
    timeout: Timeout = 60.0,
    as_json: Json = False,
) -> None:
    """Fill every [MASK] in, of texts or of a file of them."""
    named = _named(model, variant, max_accuracy_loss)
    if file:
        asked = _of_file(texts, file=file, column=column, id_column=id_column, output=output, again=again, kafka=kafka, timeout=timeout)
        files.predict("fill_mask", _model(named, top_k), asked, as_json)
        return
    request = _predict(named, read_texts(texts), top_k)
    display.filled(request["predict_input"]["input_text"], _ask("fill_mask", request, kafka, timeout), as_json)


@app.command(epilog="Example: mlaas ner -m science-ner 'The ATLAS experiment measures the Higgs boson.'")
@says_why
def ner(
    texts: Texts = None,
    model: Model = "",
    variant: Variant = None,
    max_accuracy_loss: MaxLoss = None,
    kafka: Kafka = False,
    timeout: Timeout = 60.0,
    as_json: Json = False,
) -> None:
    """Find named entities."""
    request = _predict(_named(model, variant, max_accuracy_loss), read_texts(texts))
    display.recognized(request["predict_input"]["input_text"], _ask("ner", request, kafka, timeout), as_json)


@app.command(epilog="Example: mlaas answer -m reader 'Where is LNF?' --context 'LNF is in Frascati.'")
@says_why
def answer(
    questions: Texts = None,
    model: Model = "",
    variant: Variant = None,
    max_accuracy_loss: MaxLoss = None,
    context: Annotated[str, typer.Option("--context", "-c", metavar="TEXT", help="The text that holds the answers; @FILE reads it.")] = "",
    kafka: Kafka = False,
    timeout: Timeout = 60.0,
    as_json: Json = False,
) -> None:
    """Answer questions with words of a text."""
    if not context:
        raise InvalidRequest("there is no text to answer from", field="--context", remedy="Give it with --context TEXT or --context @FILE.")
    asked = read_texts(questions)
    request = {
        **_predict(_named(model, variant, max_accuracy_loss), []),
        "predict_input": {"question": asked, "context": [text_argument(context, "--context")]},
    }
    display.answered(asked, _ask("answer", request, kafka, timeout), as_json)


@app.command(epilog="Example: mlaas embed -m minilm 'neutrino oscillations' --json")
@says_why
def embed(
    texts: Texts = None,
    model: Model = "",
    variant: Variant = None,
    max_accuracy_loss: MaxLoss = None,
    kafka: Kafka = False,
    timeout: Timeout = 60.0,
    as_json: Json = False,
) -> None:
    """Turn texts into vectors; --json prints them whole."""
    request = _predict(_named(model, variant, max_accuracy_loss), read_texts(texts))
    display.embedded(request["predict_input"]["input_text"], _ask("embed", request, kafka, timeout), as_json)


@app.command(epilog="Example: mlaas generate -m physics-writer 'Dark matter' --max-new-tokens 20")
@says_why
def generate(
    texts: Texts = None,
    model: Model = "",
    variant: Variant = None,
    max_accuracy_loss: MaxLoss = None,
    max_new_tokens: Annotated[int, typer.Option("--max-new-tokens", "-n", min=1)] = 32,
    top_k: Annotated[int, typer.Option("--top-k", "-k", min=1, help="1 takes the likeliest token each time.")] = 1,
    temperature: Annotated[float, typer.Option("--temperature", help="With --top-k above 1.")] = 1.0,
    seed: Annotated[int, typer.Option("--seed", min=0, help="With --top-k above 1.")] = 0,
    kafka: Kafka = False,
    timeout: Timeout = 60.0,
    as_json: Json = False,
) -> None:
    """Continue texts."""
    settings = {"max_new_tokens": max_new_tokens, "top_k": top_k, "temperature": temperature, "seed": seed}
    request = {**_predict(_named(model, variant, max_accuracy_loss), read_texts(texts)), "generate": settings}
    display.generated(request["predict_input"]["input_text"], _ask("generate", request, kafka, timeout), as_json)


@app.command(epilog="Example: mlaas search -i abstracts 'neutrino oscillations' -k 3")
@says_why
def search(
    texts: Texts = None,
    index: Annotated[
        str,
        typer.Option(
            "--index",
            "-i",
            metavar="INDEX",
            help="NAME, NAME@ALIAS or NAME:VERSION of the catalog, local:PATH or s3:KEY.",
            autocompletion=completion.indexes,
        ),
    ] = "",
    top_k: TopK = 5,
    condition: Annotated[
        str | None, typer.Option("--filter", metavar="JSON", help='Of metadata, e.g. \'{"year": {"gte": 2015}}\', or @FILE.')
    ] = None,
    hybrid: Annotated[bool, typer.Option("--hybrid", help="Search by words as well.")] = False,
    file: files.File = None,
    column: files.Column = "text",
    id_column: files.IdColumn = None,
    output: files.Output = None,
    again: files.Again = False,
    kafka: Kafka = False,
    timeout: Timeout = 60.0,
    as_json: Json = False,
) -> None:
    """Find the nearest documents of an index, for texts or for a file of them."""
    if not index:
        raise InvalidRequest("which index?", field="--index", remedy="Name one with --index; `mlaas catalog` lists them.")
    request = {"dataset": store_ref(index).model_dump(exclude_none=True), "top_k": top_k}
    request |= given(filter=json_argument(condition) if condition else None, hybrid={} if hybrid else None)
    if file:
        asked = _of_file(texts, file=file, column=column, id_column=id_column, output=output, again=again, kafka=kafka, timeout=timeout)
        files.predict("search", request, asked, as_json)
        return
    queries = read_texts(texts)
    display.searched(queries, _ask("search", {**request, "search_input": {"input_text": queries}}, kafka, timeout), as_json)


def _named(model: str, variant: str | None, max_accuracy_loss: float | None) -> ModelRef:
    if not model:
        raise InvalidRequest("which model?", field="--model", remedy="Name one with --model; `mlaas catalog` lists them.")
    chosen = given(variant=variant, max_accuracy_loss=max_accuracy_loss)
    return parse(ModelRef, model_ref(model).model_dump(exclude_none=True) | chosen)


def _model(model: ModelRef, top_k: int | None) -> dict[str, Any]:
    return {"model": model.model_dump(exclude_none=True), **given(top_k=top_k)}


def _predict(model: ModelRef, texts: list[str], top_k: int | None = None) -> dict[str, Any]:
    return {**_model(model, top_k), "predict_input": {"input_text": texts}}


def _of_file(texts: list[str] | None, **options: Any) -> files.Asked:
    if texts:
        raise InvalidRequest("there are both texts and a file", field="--file", remedy="Give one of them.")
    return files.Asked(**options)


def _ask(capability: str, request: dict[str, Any], kafka: bool, timeout: float) -> Answer:
    with Client(kafka=current().kafka if kafka else None, timeout=timeout) as client:
        return client.ask(capability, request)
