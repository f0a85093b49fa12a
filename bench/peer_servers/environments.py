"""The environments of the servers: each made by uv from a list of exact versions, within a bounded time, and what became of it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from .ways import ENVIRONMENTS, HERE, ROOT, Way, python_of

__all__ = ["NOT_PUBLISHED", "make", "missing", "remember", "versions"]

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
NOT_PUBLISHED = "huggingfaceserver is on no package registry: its maintainers publish images only"
REASONS = ENVIRONMENTS / "reasons.json"
MADE = ".made"  # holds what the environment was made from, or why it was not made
Sources = dict[str, Path]


def make(environment: str, seconds: float, sources: Sources) -> str | None:
    """Make an environment unless it is there; the reason, where it cannot be. `sources`: folders of packages that no registry has."""
    folder, wanted = ENVIRONMENTS / environment, _requirements(environment, sources)
    if wanted is None:
        return NOT_PUBLISHED
    if (folder / MADE).is_file() and (folder / MADE).read_text("utf-8") == wanted:
        return None
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    listed = folder.parent / f"{environment}.txt"
    listed.write_text(wanted, "utf-8")
    exactly = ["--constraint", ROOT / "constraints.txt"] if environment == "openvino" else ["--no-deps"]
    quiet = {**os.environ, "UV_NO_PROGRESS": "1"}
    uv = Path(sys.executable).with_name("uv")
    for command in (
        [uv, "venv", "--quiet", "--python", PYTHON, folder],
        [uv, "pip", "install", "--quiet", "--compile-bytecode", *exactly, "--python", python_of(environment), "--requirement", listed],
    ):
        try:
            ran = subprocess.run([str(each) for each in command], capture_output=True, text=True, timeout=seconds, env=quiet, cwd=ROOT)
        except subprocess.TimeoutExpired:
            return f"not installed within {seconds:.0f} s"
        except FileNotFoundError:
            return "uv is not in this environment: make setup"
        if ran.returncode:
            return _last_line(ran.stderr)
    (folder / MADE).write_text(wanted, "utf-8")
    return None


def missing(way: Way) -> str | None:
    """Why a way cannot be measured now, if it cannot."""
    if not way.environment or (ENVIRONMENTS / way.environment / MADE).is_file():
        return None
    reasons = json.loads(REASONS.read_text("utf-8")) if REASONS.is_file() else {}
    return str(reasons.get(way.environment, NOT_PUBLISHED if way.environment == "kserve" else "run bench/peers.py --setup first"))


def remember(reasons: dict[str, str]) -> None:
    """Keep why environments could not be made, for the runs that miss them."""
    REASONS.write_text(json.dumps(reasons, indent=1), "utf-8")


def versions(way: Way) -> dict[str, str]:
    """Of the packages that count, in the way's environment."""
    if not way.environment:
        return {name: metadata.version(name) for name in way.packages}
    program = "import sys, importlib.metadata as m; print(*(m.version(name) for name in sys.argv[1:]))"
    ran = subprocess.run([str(python_of(way.environment)), "-c", program, *way.packages], capture_output=True, text=True, check=True)
    return dict(zip(way.packages, ran.stdout.split(), strict=True))


def _requirements(environment: str, sources: Sources) -> str | None:
    """The text of the list to install from; None where a package is on no registry and no folder with it was given."""
    text = (HERE / "requirements" / f"{environment}.txt").read_text("utf-8")
    if environment == "openvino":  # ours, with the versions that it is tested with
        return f"{text}--editable {ROOT}\n"
    if environment == "kserve":
        folder = sources.get("kserve")
        return f"{text}{folder.resolve() / 'python' / 'huggingfaceserver'}\n" if folder else None
    return text


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "no reason was given"
