"""A server as a process: from its start to the first correct answer, under load, and what it holds in memory."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from .ways import HERE, Answers, Place, Way

__all__ = ["NotServed", "Server", "difference", "load", "served"]

STOP_SECONDS = 10


class NotServed(Exception):
    """A way did not start, or does not answer as it should."""


@dataclass(frozen=True)
class Server:
    """A running server, and how long it took from its start to the first correct answer (seconds)."""

    way: Way
    place: Place
    pid: int
    cold: float

    def pids(self) -> list[int]:
        """The process and all that it started."""
        found = [self.pid]
        for pid in found:
            for children in Path(f"/proc/{pid}/task").glob("*/children"):
                found += [int(each) for each in children.read_text(encoding="ascii").split()]
        return found

    def memory(self) -> dict[str, float]:
        """MiB in memory now: `rss`, and `pss`, which counts pages shared with other processes by their part."""
        kib = {"rss": 0, "pss": 0}
        for pid in self.pids():
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
                name, _, rest = line.partition(":")
                if name.lower() in kib:
                    kib[name.lower()] += int(rest.split()[0])
        return {name: round(value / 1024, 1) for name, value in kib.items()}

    def ask(self, texts: Sequence[str]) -> Answers:
        """The answers to `texts`. Raises NotServed."""
        connection = http.client.HTTPConnection("127.0.0.1", self.place.port, timeout=60)
        return _ask(connection, self.way, self.place.task, texts)


@contextmanager
def served(way: Way, place: Place, texts: Sequence[str], right: Answers, *, patience: float) -> Iterator[Server]:
    """A server that has given the answers `right` to `texts` once. Raises NotServed if it does not within `patience` seconds."""
    with socket.socket() as other:
        if other.connect_ex(("127.0.0.1", place.port)) == 0:
            raise NotServed(f"another process listens on port {place.port}: give a free --port")
    log = place.models / "log.txt"
    with log.open("wb") as output:
        started = time.perf_counter()
        process = subprocess.Popen(
            way.command(place), cwd=way.folder(place), env=way.environ(place), stdout=output, stderr=output, start_new_session=True
        )
        try:
            yield Server(way, place, process.pid, _first_answer(process, way, place, texts, right, started, patience))
        finally:
            _stop(process)


def difference(found: Answers, right: Answers) -> float:
    """The largest between two numbers in the same place; infinite where there are others or not as many."""
    if [len(each) for each in found] != [len(each) for each in right]:
        return float("inf")
    return max(abs(a - b) for one, other in zip(found, right, strict=True) for a, b in zip(one, other, strict=True))


def load(server: Server, bodies: Path, tokens: Sequence[int], connections: int, seconds: float) -> dict[str, float]:
    """Figures of so many seconds over kept connections. `tokens` has how many each body holds."""
    asked = {
        "port": server.place.port,
        "path": server.way.path(server.place.task),
        "bodies": str(bodies),
        "connections": connections,
        "seconds": seconds,
        "pids": server.pids(),
    }
    ran = subprocess.run(
        [sys.executable, str(HERE / "load.py")], input=json.dumps(asked), capture_output=True, text=True, timeout=seconds + 120
    )
    if ran.returncode:
        raise NotServed(ran.stderr.strip().splitlines()[-1][:300])
    seen = json.loads(ran.stdout)
    if seen["others"] or not seen["latencies"]:
        raise NotServed(f"{seen['others']} answers were no 200, {len(seen['latencies'])} in all")
    total = sum(count * each for count, each in zip(seen["answered"], tokens, strict=True))
    ordered = sorted(seen["latencies"])
    return {
        "tokens_per_second": round(total / seen["seconds"], 1),
        "requests_per_second": round(len(ordered) / seen["seconds"], 2),
        "p50_ms": round(statistics.median(ordered) * 1000, 2),
        "p99_ms": round(ordered[int(len(ordered) * 0.99)] * 1000, 2),
        "cpu_seconds_per_1000_tokens": round(seen["cpu"] / total * 1000, 4),
    }


def _first_answer(
    process: subprocess.Popen[bytes], way: Way, place: Place, texts: Sequence[str], right: Answers, started: float, patience: float
) -> float:
    problem = "it does not listen"
    while time.perf_counter() - started < patience:
        if process.poll() is not None:
            raise NotServed(f"it ended: {_last_line(place.models / 'log.txt')}")
        try:
            found = _ask(http.client.HTTPConnection("127.0.0.1", place.port, timeout=patience), way, place.task, texts)
        except (OSError, http.client.HTTPException):
            time.sleep(0.01)
            continue
        except NotServed as error:
            problem = str(error)
            time.sleep(0.01)
            continue
        seconds = time.perf_counter() - started
        if not difference(found, right) < 0.02:  # the right model; how close it is, is measured by itself
            raise NotServed(f"its answers differ by {difference(found, right):.2g}")
        return seconds
    raise NotServed(f"no answer within {patience:.0f} s: {problem}")


def _ask(connection: http.client.HTTPConnection, way: Way, task: str, texts: Sequence[str]) -> Answers:
    try:
        connection.request("POST", way.path(task), json.dumps(way.body(task, texts)), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        body = answer.read()
    finally:
        connection.close()
    if answer.status != 200:
        raise NotServed(f"status {answer.status}: {body[:200].decode(errors='replace')}")
    try:
        return way.read(task, json.loads(body))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise NotServed(f"an answer of another form ({type(error).__name__}): {body[:200].decode(errors='replace')}") from error


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # what it started, in the session that was made for it
    process.wait()


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it said nothing"
