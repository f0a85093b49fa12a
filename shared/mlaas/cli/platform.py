"""`mlaas up`, `samples` and `demo`: the platform on one machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .. import display
from ..settings import current
from .options import Json, says_why

__all__ = ["app"]

app = typer.Typer()


@app.command(epilog="Example: mlaas up --port 8080")
@says_why
def up(
    port: Annotated[int, typer.Option(help="The HTTP port in front of every function.")] = 8080,
    kafka_port: Annotated[int, typer.Option(help="The port of the Kafka that is started.")] = 9092,
    kafka: Annotated[str | None, typer.Option(help="Use this Kafka (HOST:PORT,...) instead of starting one.")] = None,
    home: Annotated[Path | None, typer.Option(help="Folder of all state; MLAAS_HOME by default.")] = None,
    as_json: Json = False,
) -> None:
    """Start the platform on this machine: Kafka, every function in its own process, one HTTP port. Ctrl-C stops it."""
    from ..local import up as local

    local.run(port=port, kafka_port=kafka_port, kafka=kafka, home=home, as_json=as_json)


@app.command("samples", epilog="Example: mlaas samples --affiliations 5000")
@says_why
def samples_(
    affiliations: Annotated[int, typer.Option(min=100, max=1_000_000, help="Affiliation strings to generate.")] = 2000,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    as_json: Json = False,
) -> None:
    """Put synthetic sample data and the packaged checkpoints under the local root, to try things with."""
    from ..samples.installation import install

    paths = install(current().artefacts, affiliations=affiliations, seed=seed)
    display.said("\n".join(f"local:{path}" for path in paths), paths, as_json)


@app.command(epilog="Example: mlaas demo --output demo-result.json")
@says_why
def demo(
    output: Annotated[Path, typer.Option(help="Where every request, reply and figure is written.")] = Path("demo-result.json"),
    as_json: Json = False,
) -> None:
    """Run the main job from end to end on real Kafka, in front of your eyes."""
    from ..local import demo as local

    raise typer.Exit(local.run(output, as_json))
