"""`mlaas render`: a training as what a cluster runs, in YAML on standard output."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from .. import events
from ..contracts import TrainRequest, parse
from ..errors import InvalidRequest
from .options import json_argument, says_why

__all__ = ["render_app"]

render_app = typer.Typer(help="A training as resources of Kubernetes, in YAML: kubectl apply -f takes it.", no_args_is_help=True)

Request = Annotated[str, typer.Option("--request", "-r", help="The train request as JSON, @FILE or -.")]
Name = Annotated[str | None, typer.Option(help="What the resources are called; train- and the task's id by default.")]
Namespace = Annotated[str, typer.Option(help="The namespace of the platform.")]
Image = Annotated[str, typer.Option(help="The training image, as the overlay names it.")]
Queue = Annotated[str | None, typer.Option(help="The LocalQueue of Kueue that it waits in; none without.")]
Gpus = Annotated[int, typer.Option(min=0, max=64, help="GPUs of each pod.")]
Ranks = Annotated[int | None, typer.Option(min=1, max=64, help="Pods that share the training; model_train.processes by default.")]
Id = Annotated[str | None, typer.Option(help="The id of the request; of the same request the same by default, so that it is one task.")]
Manifest = Annotated[Path | None, typer.Option(help="The JobSink whose pod is taken; eventing/base/train.jobsink.yaml by default.")]


@render_app.command(
    epilog="Example: mlaas render katib --request @search.json --image registry.example.org/mlaas/train:0.1.0 | kubectl apply -f -"
)
@says_why
def katib(
    request: Request,
    name: Name = None,
    namespace: Namespace = "mlaas",
    image: Image = "mlaas-train",
    queue: Queue = None,
    gpus: Gpus = 0,
    manifest: Manifest = None,
) -> None:
    """Print a Katib Experiment for the request's `search`. Nothing is recorded: the best settings are for a request of their own."""
    from .. import rendering
    from ..rendering.pod import MANIFEST

    asked = parse(TrainRequest, json_argument(request))
    wanted = rendering.Wanted(name=name or f"search-{_digest(asked)[:8]}", namespace=namespace, image=image, queue=queue, gpus=gpus)
    _print(rendering.experiment(asked, wanted, rendering.training_job(wanted, manifest or MANIFEST)))


@render_app.command(epilog="Example: mlaas render trainjob --request @train.json --ranks 2 --queue mlaas | kubectl apply -f -")
@says_why
def trainjob(
    request: Request,
    name: Name = None,
    namespace: Namespace = "mlaas",
    image: Image = "mlaas-train",
    queue: Queue = None,
    gpus: Gpus = 0,
    ranks: Ranks = None,
    id: Id = None,
    manifest: Manifest = None,
) -> None:
    """Record a training as accepted, and print the TrainJob of Kubeflow's Trainer that runs it over several pods."""
    from .. import rendering

    _accepted(
        request, rendering.train_job, {"namespace": namespace, "image": image, "queue": queue, "gpus": gpus}, name, ranks, id, manifest
    )


@render_app.command(epilog="Example: mlaas render job --request @train.json --ranks 2 | kubectl apply -f -")
@says_why
def job(
    request: Request,
    name: Name = None,
    namespace: Namespace = "mlaas",
    image: Image = "mlaas-train",
    queue: Queue = None,
    gpus: Gpus = 0,
    ranks: Ranks = None,
    id: Id = None,
    manifest: Manifest = None,
) -> None:
    """Record a training as accepted, and print the Indexed Job that runs it over several pods, where there is no Trainer."""
    from .. import rendering

    _accepted(
        request, rendering.indexed_job, {"namespace": namespace, "image": image, "queue": queue, "gpus": gpus}, name, ranks, id, manifest
    )


def _accepted(
    request: str,
    render: Callable[..., list[dict[str, Any]]],
    place: dict[str, Any],
    name: str | None,
    ranks: int | None,
    id: str | None,
    manifest: Path | None,
) -> None:
    """Record the task without the event that would have JobSink start a Job of its own, and print what runs it."""
    from .. import rendering
    from ..rendering.pod import MANIFEST
    from ..training.accept import accept

    asked = parse(TrainRequest, json_argument(request))
    if asked.search:
        remedy = "Print it with `mlaas render katib`, or leave `search` out."
        raise InvalidRequest("the trials of a search are not shared by pods", field="search", remedy=remedy)
    cause = events.new("train", asked.model_dump(mode="json", exclude_none=True), source="/mlaas/render", id=id or _digest(asked))
    wanted = rendering.Wanted(name=name or "train", ranks=ranks or asked.model_train.processes, **place)
    spec = rendering.training_job(wanted, manifest or MANIFEST)
    event = accept(asked, cause, publish=False)
    if name is None:
        wanted = rendering.Wanted(name=f"train-{event['subject'][:8]}", ranks=wanted.ranks, **place)
    _print(render(wanted, spec, json.dumps(events.to_json(event), ensure_ascii=False)))


def _digest(request: TrainRequest) -> str:
    return hashlib.sha256(json.dumps(request.model_dump(mode="json", exclude_none=True), sort_keys=True).encode()).hexdigest()[:32]


def _print(resources: list[dict[str, Any]]) -> None:
    import yaml

    typer.echo(yaml.safe_dump_all(resources, sort_keys=False, allow_unicode=True, width=140), nl=False)
