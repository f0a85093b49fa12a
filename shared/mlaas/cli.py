"""The command line. Every command has --json for scripts and an example in its --help.

Exit statuses: 0 done, 1 a task failed or a defect, 2 wrong usage, 3 the request was refused, 4 not now (the platform is
away or too slow), 130 interrupted.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, ParamSpec, TypeVar

import typer

from . import __version__, display, events
from .client import DEAD_LETTERS, EVENTS, Answer, EventClient, HttpClient
from .contracts import ModelRef, ModelSave, TrainRequest, VectorStoreRef, parse
from .errors import InvalidRequest, MlaasError, Unavailable
from .settings import current

__all__ = ["app", "main"]

P = ParamSpec("P")
T = TypeVar("T")

FAILED, REFUSED, NOT_NOW, INTERRUPTED = 1, 3, 4, 130

app = typer.Typer(
    name="mlaas",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Machine learning as a service: predictions, trainings and searchable indexes by events and by HTTP.",
    epilog="Exit statuses: 0 done, 1 failed, 2 wrong usage, 3 refused, 4 not now, 130 interrupted.",
)
tasks_app = typer.Typer(help="Tasks: trainings and index builds.", invoke_without_command=True)
catalog_app = typer.Typer(help="The catalog of models and indexes.", invoke_without_command=True)
app.add_typer(tasks_app, name="tasks")
app.add_typer(catalog_app, name="catalog")

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Texts = Annotated[list[str] | None, typer.Argument(help="Texts; one a line from standard input if none is given.")]
Model = Annotated[
    str,
    typer.Option(
        "--model", "-m", metavar="MODEL", help="NAME, NAME@ALIAS, NAME:VERSION of the catalog, or local:PATH, s3:BUCKET/KEY, hub:ORG/REPO."
    ),
]
Kafka = Annotated[bool, typer.Option("--kafka", help="Ask by an event on Kafka instead of HTTP.")]
TopK = Annotated[int, typer.Option("--top-k", "-k", min=1)]
Timeout = Annotated[float, typer.Option("--timeout", help="Seconds to wait for the answer.")]


def _says_why(command: Callable[P, T]) -> Callable[P, T]:
    """Errors as one sentence on standard error and an exit status that scripts can rely on."""

    @wraps(command)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return command(*args, **kwargs)
        except MlaasError as error:
            display.error(error)
            raise typer.Exit(
                REFUSED if isinstance(error, InvalidRequest) else NOT_NOW if isinstance(error, Unavailable) else FAILED
            ) from None
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            sys.stderr.close()
            raise typer.Exit(0) from None

    return wrapper


def model_ref(text: str) -> ModelRef:
    """The model that the command line names. Raises InvalidRequest."""
    storages = {"local": "local", "s3": "s3", "hub": "hugging_face_hub"}
    scheme, colon, rest = text.partition(":")
    if colon and scheme in storages:
        return parse(ModelRef, {"path": rest, "storage_type": storages[scheme]})
    name, at, alias = text.partition("@")
    name, _, version = name.partition(":")
    return parse(ModelRef, {"name": name, "alias": alias if at else None, "revision": version or None})


@app.callback()
def _main(version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


@app.command(epilog="Example: mlaas up --port 8080")
@_says_why
def up(
    port: Annotated[int, typer.Option(help="The HTTP port in front of every function.")] = 8080,
    kafka_port: Annotated[int, typer.Option(help="The port of the Kafka that is started.")] = 9092,
    kafka: Annotated[str | None, typer.Option(help="Use this Kafka (HOST:PORT,...) instead of starting one.")] = None,
    home: Annotated[Path | None, typer.Option(help="Folder of all state; MLAAS_HOME by default.")] = None,
    as_json: Json = False,
) -> None:
    """Start the platform on this machine: Kafka, every function in its own process, one HTTP port. Ctrl-C stops it."""
    from .local import up as local

    local.run(port=port, kafka_port=kafka_port, kafka=kafka, home=home, as_json=as_json)


@app.command(
    epilog='Example: mlaas send classify \'{"model": {"name": "infn-structures"}, "predict_input": {"input_text": ["INFN Pisa"]}}\' --wait'
)
@_says_why
def send(
    capability: Annotated[str, typer.Argument(help="classify, fill_mask, search, index or train; or a whole event type.")],
    data: Annotated[str, typer.Argument(help="The request as JSON, @FILE, or - for standard input.")],
    id: Annotated[str | None, typer.Option(help="The event's id; the same id from the same source gives the same reply.")] = None,
    source: Annotated[str, typer.Option(help="The event's source.")] = "/mlaas/cli",
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Wait for the reply and print it.")] = False,
    structured: Annotated[bool, typer.Option(help="Send a structured CloudEvent instead of a binary one.")] = False,
    timeout: Timeout = 60.0,
    as_json: Json = False,
) -> None:
    """Publish a request to Kafka as a CloudEvent."""
    kind = capability if "." in capability else events.event_type(capability.replace("-", "_"), "requested")
    event = events.build(kind, source, _json_argument(data), id=id)
    with EventClient(current().kafka) as client:
        client.send([event], structured=structured)
        if not wait:
            display.event(event, as_json)
            return
        reply = client.replies([event["id"]], seconds=timeout)[event["id"]]
    display.event(reply, as_json, data=True)
    if reply["type"].endswith(".failed.v1"):
        raise typer.Exit(REFUSED)


@app.command(epilog="Example: mlaas watch --type train")
@_says_why
def watch(
    type: Annotated[str | None, typer.Option(help="Only events whose type contains this.")] = None,
    from_beginning: Annotated[bool, typer.Option(help="Begin with the oldest event that Kafka holds.")] = False,
    dead_letters: Annotated[bool, typer.Option(help="Watch the dead letters, with their reasons.")] = False,
    seconds: Annotated[float | None, typer.Option(help="Stop after this time.")] = None,
    data: Annotated[bool, typer.Option(help="Show the events' data as well.")] = False,
    as_json: Json = False,
) -> None:
    """Show the platform's events as they arrive. Ctrl-C ends it."""
    with EventClient(current().kafka, topic=DEAD_LETTERS if dead_letters else EVENTS) as client:
        if from_beginning:
            client.from_beginning()
        for event in client.watch(seconds=seconds):
            if type is None or type in event["type"]:
                display.event(event, as_json, data=data)


@app.command(epilog="Example: mlaas classify -m infn-structures 'INFN, Sezione di Pisa, Italy'")
@_says_why
def classify(
    texts: Texts = None, model: Model = "", top_k: TopK = 1, kafka: Kafka = False, timeout: Timeout = 60.0, as_json: Json = False
) -> None:
    """Classify texts."""
    request = _predict(model, _texts(texts), top_k)
    display.classified(request["predict_input"]["input_text"], _ask("classify", request, kafka, timeout), as_json)


@app.command("fill-mask", epilog="Example: mlaas fill-mask -m physics-lm 'The [MASK] boson decays into two [MASK].'")
@_says_why
def fill_mask(
    texts: Texts = None, model: Model = "", top_k: TopK = 5, kafka: Kafka = False, timeout: Timeout = 60.0, as_json: Json = False
) -> None:
    """Fill every [MASK] in."""
    request = _predict(model, _texts(texts), top_k)
    display.filled(request["predict_input"]["input_text"], _ask("fill_mask", request, kafka, timeout), as_json)


@app.command(epilog="Example: mlaas search -i abstracts 'neutrino oscillations' -k 3")
@_says_why
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
    asked = _texts(texts)
    request = {"dataset": _store(index), "search_input": {"input_text": asked}, "top_k": top_k}
    display.searched(asked, _ask("search", request, kafka, timeout), as_json)


@app.command(
    epilog="Example: mlaas index -m minilm --dataset local:samples/abstracts.jsonl --column abstract --save indexes/abstracts --watch"
)
@_says_why
def index(
    model: Model,
    dataset: Annotated[str, typer.Option(help="local:PATH or s3:BUCKET/KEY of a CSV, TSV, JSONL or Parquet file.")],
    save: Annotated[str, typer.Option(help="Where the index is published: PATH (local) or s3:BUCKET/KEY.")],
    column: Annotated[str, typer.Option(help="The column that is embedded.")] = "text",
    id_column: Annotated[str | None, typer.Option(help="The column with each document's id.")] = None,
    name: Annotated[str | None, typer.Option(help="The catalog name; the last part of --save by default.")] = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Follow the build to its end.")] = False,
    as_json: Json = False,
) -> None:
    """Embed documents and build a searchable index."""
    columns = {"page_content_column": column} | ({"id_column": id_column} if id_column else {})
    request = {
        "model": model_ref(model).model_dump(exclude_none=True),
        "dataset": {**_place(dataset), "loader_kwargs": columns},
        "vector_store_save": {**_place(save), "format": "vector_store"} | ({"name": name} if name else {}),
    }
    _submit("index", request, watch, as_json)


@app.command(
    epilog="Example: mlaas train -m local:checkpoints/minilm --objective text-classification --dataset local:affiliations.tsv "
    "--text-column affiliation --save models/infn-structures --watch"
)
@_says_why
def train(
    request: Annotated[str | None, typer.Option("--request", "-r", help="The request as JSON, @FILE or -; options change it.")] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="The checkpoint: local:PATH, s3:BUCKET/KEY or hub:ORG/REPO.")] = None,
    objective: Annotated[str | None, typer.Option(help="text-classification or masked-lm.")] = None,
    dataset: Annotated[str | None, typer.Option(help="local:PATH or s3:BUCKET/KEY of a CSV, TSV, JSONL or Parquet file.")] = None,
    text_column: Annotated[str | None, typer.Option(help="The column with the texts (text).")] = None,
    label_column: Annotated[str | None, typer.Option(help="The column with the labels (label).")] = None,
    split: Annotated[float | None, typer.Option(help="The fraction held out for evaluation (0.1).")] = None,
    epochs: Annotated[int | None, typer.Option(min=1)] = None,
    batch_size: Annotated[int | None, typer.Option(min=1)] = None,
    learning_rate: Annotated[float | None, typer.Option()] = None,
    save: Annotated[str | None, typer.Option(help="Where the model is published: PATH (local) or s3:BUCKET/KEY.")] = None,
    name: Annotated[str | None, typer.Option(help="The catalog name; the last part of --save by default.")] = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Follow the training to its end.")] = False,
    as_json: Json = False,
) -> None:
    """Train a model, export it to ONNX and publish it in the catalog."""
    asked: dict[str, Any] = _json_argument(request) if request else {}
    changes: dict[str, Any] = {
        "model": ({**model_ref(model).model_dump(exclude_none=True)} if model else {}) | _given(objective=objective),
        "dataset": (_place(dataset) if dataset else {})
        | _given(text_column=text_column, label_column=label_column, train_test_split=split),
        "model_train": _given(epochs=epochs, batch_size=batch_size) | ({"optimizer": {"init_lr": learning_rate}} if learning_rate else {}),
        "model_save": (_place(save) if save else {}) | _given(name=name),
    }
    for part, change in changes.items():
        if change:
            asked[part] = {**asked.get(part, {}), **change}
    parse(TrainRequest, asked)  # the same refusal as the platform's, before anything is sent
    _submit("train", asked, watch, as_json)


@tasks_app.callback(epilog="Example: mlaas tasks --status running")
@_says_why
def tasks(
    context: typer.Context,
    status: Annotated[str | None, typer.Option(help="accepted, running, succeeded, failed or cancelled.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 20,
    as_json: Json = False,
) -> None:
    """List tasks, newest first."""
    if context.invoked_subcommand is None:
        display.tasks(_tasks().find(status=status, limit=limit)[0], as_json)


@tasks_app.command("show", epilog="Example: mlaas tasks show 7d0c...")
@_says_why
def tasks_show(
    task_id: str, watch: Annotated[bool, typer.Option("--watch", "-w", help="Follow it to its end.")] = False, as_json: Json = False
) -> None:
    """Show one task."""
    task = display.follow(_tasks().get, task_id, as_json) if watch else _tasks().get(task_id)
    display.task(task, as_json)
    _status_of(task)


@tasks_app.command("cancel", epilog="Example: mlaas tasks cancel 7d0c...")
@_says_why
def tasks_cancel(task_id: str, as_json: Json = False) -> None:
    """Cancel a waiting or running task."""
    display.task(_tasks().cancel(task_id), as_json)


@catalog_app.callback(epilog="Example: mlaas catalog --kind indexes")
@_says_why
def catalog(
    context: typer.Context,
    kind: Annotated[str | None, typer.Option(help="models or indexes; both by default.")] = None,
    as_json: Json = False,
) -> None:
    """List models and indexes with their versions and aliases."""
    if context.invoked_subcommand is None:
        display.catalog({kind: (_catalog().versions(kind), _catalog().aliases(kind)) for kind in _kinds(kind)}, as_json)


@catalog_app.command("show", epilog="Example: mlaas catalog show infn-structures")
@_says_why
def catalog_show(
    name: str,
    version: Annotated[str | None, typer.Option(help="The latest by default.")] = None,
    kind: Annotated[str, typer.Option(help="models or indexes.")] = "models",
    as_json: Json = False,
) -> None:
    """Show an entry."""
    display.entry(_catalog().resolve(_kinds(kind)[0], name, revision=version), as_json)


@catalog_app.command("alias", epilog="Example: mlaas catalog alias infn-structures production 3")
@_says_why
def catalog_alias(
    name: str, alias: str, version: str, kind: Annotated[str, typer.Option(help="models or indexes.")] = "models", as_json: Json = False
) -> None:
    """Let an alias point to a version."""
    entry = _catalog().set_alias(_kinds(kind)[0], name, alias, version)
    display.said(f"{name}@{alias} is version {entry['version']}", entry, as_json)


@app.command(epilog="Example: mlaas export -m local:checkpoints/minilm --objective no-objective --save models/minilm")
@_says_why
def export(
    model: Annotated[str, typer.Option("--model", "-m", help="The checkpoint: local:PATH, s3:BUCKET/KEY or hub:ORG/REPO.")],
    objective: Annotated[str, typer.Option(help="What it is served for: no-objective (embeddings), text-classification, masked-lm, ...")],
    save: Annotated[str, typer.Option(help="Where the model is published: PATH (local) or s3:BUCKET/KEY.")],
    name: Annotated[str | None, typer.Option(help="The catalog name; the last part of --save by default.")] = None,
    as_json: Json = False,
) -> None:
    """Export a PyTorch checkpoint to ONNX and publish it in the catalog. Needs the `train` extra."""
    from .training import publish

    entry = publish.export_and_publish(model_ref(model), objective, parse(ModelSave, _place(save) | _given(name=name)), current())
    display.said(f"{entry['name']} version {entry['version']} is in the catalog", entry, as_json)


@app.command("samples", epilog="Example: mlaas samples --affiliations 5000")
@_says_why
def samples_(
    affiliations: Annotated[int, typer.Option(min=100, max=1_000_000, help="Affiliation strings to generate.")] = 2000,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    as_json: Json = False,
) -> None:
    """Put synthetic sample data and the packaged checkpoints under the local root, to try things with."""
    from .samples.installation import install

    paths = install(current().artefacts, affiliations=affiliations, seed=seed)
    display.said("\n".join(f"local:{path}" for path in paths), paths, as_json)


@app.command(epilog="Example: mlaas demo --output demo-result.json")
@_says_why
def demo(
    output: Annotated[Path, typer.Option(help="Where every request, reply and figure is written.")] = Path("demo-result.json"),
    as_json: Json = False,
) -> None:
    """Run the main job from end to end on real Kafka, in front of your eyes."""
    from .local import demo as local

    raise typer.Exit(local.run(output, as_json))


def _predict(model: str, texts: list[str], top_k: int) -> dict[str, Any]:
    if not model:
        raise InvalidRequest("which model?", field="--model", remedy="Name one with --model; `mlaas catalog` lists them.")
    return {"model": model_ref(model).model_dump(exclude_none=True), "predict_input": {"input_text": texts}, "top_k": top_k}


def _ask(capability: str, request: dict[str, Any], kafka: bool, timeout: float) -> Answer:
    settings = current()
    if not kafka:
        return HttpClient(settings.url, timeout=timeout).ask(capability, request)
    with EventClient(settings.kafka) as client:
        return client.ask(capability, request, seconds=timeout)


def _submit(capability: str, request: dict[str, Any], watch: bool, as_json: bool) -> None:
    client = HttpClient(current().url)
    task = client.ask(capability, request).data
    if watch:
        with _interruptible(task["task_id"]):
            task = display.follow(_tasks().get, task["task_id"], as_json)
    display.task(task, as_json)
    _status_of(task)


@contextmanager
def _interruptible(task_id: str) -> Iterator[None]:
    """Ctrl-C ends the watching, not the task."""
    try:
        yield
    except KeyboardInterrupt:
        display.note(f"The task goes on. See it with: mlaas tasks show {task_id} --watch")
        raise


def _status_of(task: dict[str, Any]) -> None:
    if task["task_status"] in ("failed", "cancelled"):
        raise typer.Exit(FAILED)


def _texts(texts: list[str] | None) -> list[str]:
    if texts:
        return texts
    if sys.stdin.isatty():
        raise InvalidRequest("there is no text", field="TEXTS", remedy="Give texts as arguments or, one a line, on standard input.")
    return [line.rstrip("\n") for line in sys.stdin]


def _json_argument(text: str) -> Any:
    try:
        return json.loads(sys.stdin.read() if text == "-" else Path(text[1:]).read_text() if text.startswith("@") else text)
    except (ValueError, OSError):
        raise InvalidRequest("the data cannot be read as JSON", field="DATA", remedy="Give JSON, @FILE, or - for standard input.") from None


def _place(text: str) -> dict[str, Any]:
    scheme, colon, rest = text.partition(":")
    if colon and scheme in ("local", "s3", "hub"):
        return {"path": rest, "storage_type": {"hub": "hugging_face_hub"}.get(scheme, scheme)}
    return {"path": text, "storage_type": "local"}


def _store(index: str) -> dict[str, Any]:
    if not index:
        raise InvalidRequest("which index?", field="--index", remedy="Name one with --index; `mlaas catalog` lists them.")
    if index.startswith(("local:", "s3:")):
        return parse(VectorStoreRef, _place(index)).model_dump(exclude_none=True)
    name, _, alias = index.partition("@")
    return parse(VectorStoreRef, {"name": name, "alias": alias or None}).model_dump(exclude_none=True)


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _tasks() -> Any:
    from .documents import shared
    from .tasks import Tasks

    return Tasks(shared())


def _catalog() -> Any:
    from .catalog import Catalog
    from .documents import shared

    return Catalog(shared())


def _kinds(kind: str | None) -> list[str]:
    kinds = ["models", "indexes"]
    if kind and kind not in kinds:
        raise InvalidRequest(f"there is no kind `{kind}`", field="--kind", remedy="Use models or indexes.")
    return [kind] if kind else kinds


def main() -> None:
    """The program `mlaas`: SIGTERM stops it as cleanly as Ctrl-C."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    app()


if __name__ == "__main__":
    main()
