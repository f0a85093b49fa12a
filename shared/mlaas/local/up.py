"""`mlaas up`: the platform on one machine until Ctrl-C, and what to try next."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import secrets
from pathlib import Path

from .. import display, logs
from ..catalog import Catalog
from ..documents import shared
from ..settings import Settings, current
from ..web.session import invitation
from .platform import Platform

__all__ = ["run"]


def run(*, port: int, kafka_port: int, kafka: str | None, home: Path | None, as_json: bool) -> None:
    """Start everything, say where it listens and what to try, and stop it all on SIGINT or SIGTERM."""
    settings = current()
    if home:
        settings = dataclasses.replace(settings, home=home.expanduser().absolute())

    settings.home.mkdir(parents=True, exist_ok=True)
    settings = dataclasses.replace(settings, token=settings.token or _own_token(settings.home / "token"))
    logs.configure(settings.home / "platform.log")

    def say(line: str) -> None:
        if not as_json:
            display.note(line)

    with Platform(settings, port=port, kafka_port=kafka_port, kafka_external=kafka, say=say) as platform:
        web = platform.url + invitation(settings)
        if as_json:
            display.json_(
                {"url": platform.url, "kafka": platform.bootstrap, "home": str(settings.home), "token": settings.token, "web": web}
            )
        else:
            display.console.print(_welcome(platform, settings, web), markup=False, soft_wrap=True)
        platform.wait()
        say("stopping")
    say("stopped; nothing is left running")


def _own_token(path: Path) -> str:
    """The token of this home, made at the first start and kept where only its owner reads it."""
    with contextlib.suppress(FileExistsError), os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secrets.token_urlsafe(24))
    return path.read_text().strip()


def _welcome(platform: Platform, settings: Settings, web: str) -> str:
    default = Settings()
    exports = {"MLAAS_URL": platform.url, "MLAAS_KAFKA": platform.bootstrap, "MLAAS_HOME": str(settings.home)}
    usual = {"MLAAS_URL": default.url, "MLAAS_KAFKA": default.kafka, "MLAAS_HOME": str(default.home.expanduser())}
    needed = [f"  export {name}={value}" for name, value in exports.items() if value != usual[name]]
    if settings.documents or settings.s3_endpoint:  # what they are may be secret
        needed.append("  and set the other MLAAS_ and AWS_ variables as they are here")
    known = {entry["name"] for entry in Catalog(shared(settings)).versions("models")}
    return "\n".join(
        [
            f"\nWeb    {web}",
            f"       logs in once, within a day; later {platform.url} and the token",
            f"HTTP   {platform.url}        functions: {', '.join(sorted(platform.functions))}",
            f"       {platform.url}/v1 for OpenAI's clients (embeddings), /v2 for the Open Inference Protocol",
            f"Kafka  {platform.bootstrap}        requests to mlaas.requests, replies in mlaas.events",
            f"State  {settings.home}",
            f"Token  {settings.token}        changes the catalog at {platform.url}/catalog/v1, on this machine only\n",
            *(["In another terminal, first:", *needed, ""] if needed else []),
            *([] if "infn-structures" in known else _first_steps()),
            *_asking(platform),
            "\nCtrl-C stops everything.",
        ]
    )


def _first_steps() -> list[str]:
    return [
        "The catalog has no classifier yet. Try next, in another terminal:",
        "  mlaas samples",
        "  mlaas export -m local:checkpoints/minilm --objective no-objective --save models/minilm",
        "  mlaas index -m minilm --dataset local:samples/abstracts.jsonl --column abstract --id-column id --save indexes/abstracts --watch",
        "  mlaas search -i abstracts 'oscillations of neutrinos'",
        "  mlaas train -m local:checkpoints/minilm --objective text-classification --dataset local:samples/affiliations.tsv"
        " --text-column affiliation --learning-rate 3e-4 --save models/infn-structures --watch",
        "",
    ]


def _asking(platform: Platform) -> list[str]:
    request = '{"model": {"name": "infn-structures"}, "predict_input": {"input_text": ["INFN, Sezione di Pisa, Italy"]}}'
    return [
        "Ask, in another terminal:",
        "  mlaas classify -m infn-structures 'INFN, Sezione di Pisa, Italy'",
        f"  curl -s {platform.url}/classify -H 'Content-Type: application/json' -d '{request}'",
        f"  mlaas send classify '{request}' --wait",
        "  mlaas watch",
        "  mlaas catalog",
    ]
