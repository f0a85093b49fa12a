"""From the start of a container to readiness and to the first answer, as a cluster runs it: what each step takes.

    python bench/container_start.py --image mlaas-serve                     # docker or podman
    python bench/container_start.py --image mlaas-serve --tool runc         # an image of buildah's, run by runc itself; as root

Each run starts the image as the manifests do: not root, a root file system that is read-only, no capabilities, and nothing writable but
MLAAS_HOME and /tmp. The model (MiniLM-L6, exported before, or the bundle of --model) is mounted read-only and preloaded.

- start: from the command to the process in its container (runtime, mounts, namespaces)
- import: until Python has imported everything
- load: until it is ready, the model loaded and warm
- infer: the first answer
- stop: from SIGTERM, which the server gets as process 1, to its end

"warm" has the image's and the model's files in the page cache, as on a node that has run them before; "cold" has them on disk only.
Fails if the container does not answer, is root, can write to its root, or does not end by itself.
Writes bench/results/container_start.json.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import requests

RESULTS = Path(__file__).parent / "results" / "container_start.json"
STEPS = ("start", "import", "load", "ready", "infer", "stop")
TEXT = "We report the observation of a new resonance in the dimuon spectrum."
PROBE = "import os; print(os.getuid(), os.access('/app', os.W_OK), os.access('/tmp', os.W_OK))"


@dataclass(frozen=True)
class Container:
    """How one image is started.

    `files`: where its files are on this machine, None where only the tool's daemon knows.
    `shares`: its weight among all who want the processor.
    """

    image: str
    tool: str
    model: Path
    environment: dict[str, str]
    files: Path | None
    shares: int

    def command(self, bundle: Path, arguments: list[str]) -> list[str]:
        """The command that runs `arguments` in a new container, in the foreground; it passes signals on."""
        if self.tool in ("runc", "crun"):
            (bundle / "config.json").write_text(json.dumps(self._runtime_config(arguments)))
            return [self.tool, "run", "--bundle", str(bundle), f"mlaas-{os.getpid()}-{time.monotonic_ns()}"]
        limits = ["--read-only", "--network=host", "--cap-drop=ALL", "--security-opt=no-new-privileges"]
        places = ["--tmpfs=/tmp", "--tmpfs=/var/lib/mlaas:mode=1777", f"--volume={self.model.parent}:/models:ro"]
        values = [f"--env={name}={value}" for name, value in self.environment.items()]
        return [self.tool, "run", "--rm", f"--cpu-shares={self.shares}", *limits, *places, *values, self.image, *arguments]

    def _runtime_config(self, arguments: list[str]) -> dict[str, Any]:
        """What a container runtime is given, by OCI's runtime specification."""
        config = json.loads(output("buildah", "inspect", "--type", "image", self.image))["OCIv1"]["config"]
        user, _, group = config["User"].partition(":")
        memory = ["nosuid", "nodev", "mode=1777"]
        return {
            "ociVersion": "1.0.2",
            "process": {
                "user": {"uid": int(user), "gid": int(group)},
                "args": arguments,
                "env": [*config["Env"], *(f"{name}={value}" for name, value in self.environment.items())],
                "cwd": config["WorkingDir"],
                "capabilities": {},
                "noNewPrivileges": True,
            },
            "root": {"path": str(self.files), "readonly": True},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=65536k"]},
                {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": memory},
                {"destination": "/var/lib/mlaas", "type": "tmpfs", "source": "tmpfs", "options": memory},
                {"destination": "/models", "type": "bind", "source": str(self.model.parent), "options": ["rbind", "ro"]},
            ],
            "linux": {
                "namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount")],
                "resources": {"cpu": {"shares": self.shares}},
            },
        }


def output(*command: str) -> str:
    """What a command prints. Raises CalledProcessError."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@contextmanager
def mounted(image: str) -> Iterator[Path]:
    """The files of an image that buildah has."""
    container = output("buildah", "from", "--pull-never", image)
    try:
        yield Path(output("buildah", "mount", container))
    finally:
        output("buildah", "rm", container)


def forget(folder: Path) -> None:
    """Take the files of a folder out of the page cache: whoever reads them next, reads the disk."""
    os.sync()
    for parent, _, names in os.walk(folder):
        for place in (Path(parent, name) for name in names):
            if place.is_file() and not place.is_symlink():
                with place.open("rb") as file:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def probe(container: Container, bundle: Path) -> None:
    """Fail unless the container's process is not root and can write to /tmp alone."""
    said = output(*container.command(bundle, ["python", "-c", PROBE])).split()
    assert said[0] != "0", "the container runs as root"
    assert said[1:] == ["False", "True"], f"/app writable: {said[1]}, /tmp writable: {said[2]}"


def measure(container: Container, bundle: Path, function: str, port: int) -> dict[str, float]:
    """Seconds of each step of one run."""
    command = container.command(bundle, ["python", "-m", "mlaas.serve", f"functions/{function}"])
    began, asked = time.time(), time.monotonic() + 120
    body = {"model": json.loads(container.environment["MLAAS_PRELOAD_MODEL"]), "predict_input": {"input_text": [TEXT]}}
    with tempfile.TemporaryFile("w+") as log, subprocess.Popen(command, stderr=log, stdin=subprocess.DEVNULL) as process:
        try:
            while not _is_ready(port):
                assert process.poll() is None, _read(log)
                assert time.monotonic() < asked, "the container does not get ready"
                time.sleep(0.005)
            sent = time.monotonic()
            answer = requests.post(f"http://127.0.0.1:{port}", json=body, timeout=60)
            infer = time.monotonic() - sent
            assert answer.status_code == 200, answer.text
        finally:
            process.terminate()
            stopping = time.monotonic()
            code = process.wait(60)
        stop = time.monotonic() - stopping
        assert code == 0, f"told to stop, the container ended with {code}: {_read(log)}"
        lines = [json.loads(line) for line in _read(log).splitlines() if line.startswith("{")]
        ready = next(line for line in lines if line["event"] == "function.ready")
    at = datetime.fromisoformat(ready["time"]).astimezone(UTC).timestamp()
    start, imported = at - ready["ready_after"] - began, ready["imported_after"]
    load = ready["ready_after"] - imported
    steps = {"start": start, "import": imported, "load": load, "ready": start + imported + load, "infer": infer, "stop": stop}
    return {name: round(value, 3) for name, value in steps.items()}


def _read(log: Any) -> str:
    log.seek(0)
    return log.read()


def _is_ready(port: int) -> bool:
    try:
        return requests.get(f"http://127.0.0.1:{port}/health/readiness", timeout=5).ok
    except requests.ConnectionError:
        return False


def exported(folder: Path) -> Path:
    """MiniLM-L6 as a bundle."""
    from mlaas.samples import checkpoint
    from mlaas.training.export import export

    return export(checkpoint("minilm"), "no-objective", folder / "minilm").folder


def main() -> int:
    """Measure, print, record; 1 if a warm start takes a second or more to readiness."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", default="mlaas-serve")
    parser.add_argument("--tool", choices=["docker", "podman", "runc", "crun"], default="docker" if shutil.which("docker") else "podman")
    parser.add_argument("--function", default="embed", help="one that takes texts: embed, classify or fill_mask")
    parser.add_argument("--model", type=Path, help="the folder of a bundle that the function serves; MiniLM-L6 by default")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--port", type=int, default=18424)
    parser.add_argument("--shares", type=int, default=1024, help="of the processor; 262144 on a machine that does other things as well")
    options = parser.parse_args()
    bare = options.tool in ("runc", "crun")
    with tempfile.TemporaryDirectory() as name, mounted(options.image) if bare else _nowhere() as files:
        bundle, model = Path(name), (options.model or exported(Path(name, "models"))).resolve()
        preload = json.dumps({"path": model.name, "storage_type": "local"})
        environment = {"PORT": str(options.port), "MLAAS_HOST": "127.0.0.1", "MLAAS_ROOT": "/models", "MLAAS_PRELOAD_MODEL": preload}
        container = Container(options.image, options.tool, model, environment, files, options.shares)
        probe(container, bundle)
        seconds: dict[str, list[dict[str, float]]] = {"warm": [], "cold": []}
        for number in range(options.runs + 1):
            for state in seconds if files else ["warm"]:
                if state == "cold":
                    forget(files)
                    forget(model)
                    measured = measure(container, bundle, options.function, options.port)
                else:
                    measure(container, bundle, options.function, options.port)
                    measured = measure(container, bundle, options.function, options.port)
                if number:
                    seconds[state].append(measured)
                    print(f"{state} {measured}", flush=True)
    return report(seconds, options)


@contextmanager
def _nowhere() -> Iterator[None]:
    yield None


def report(seconds: dict[str, list[dict[str, float]]], options: argparse.Namespace) -> int:
    """Print the medians and keep all runs."""
    medians = {
        state: {step: round(statistics.median(run[step] for run in runs), 3) for step in STEPS} for state, runs in seconds.items() if runs
    }
    print("| | " + " | ".join(STEPS) + " |\n|---|" + "---:|" * len(STEPS))
    for state, values in medians.items():
        print(f"| {state} | " + " | ".join(f"{values[step]:.2f}" for step in STEPS) + " |")
    command = (
        f"bench/container_start.py --image {options.image} --tool {options.tool} --function {options.function} --shares {options.shares}"
    )
    record = {
        "command": f"python {command}",
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "cores": os.cpu_count(),
        "medians": medians,
        "runs": seconds,
    }
    RESULTS.write_text(json.dumps(record, indent=1) + "\n")
    return 0 if medians["warm"]["ready"] < 1 else 1


if __name__ == "__main__":
    sys.exit(main())
