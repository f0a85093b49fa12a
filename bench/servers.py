"""The classify function under several WSGI servers, over 1, 16 and 128 kept connections, in one run.

    python bench/servers.py

The same application, `mlaas.serve.application` around functions/classify with MiniLM-L6's encoder, is served by waitress as
`python -m mlaas.serve` uses it with 4, 8, 16 and 32 threads, and by gunicorn (gthread), granian, cheroot and uvicorn with a2wsgi, each
in a process of its own started as its documentation says, one worker with the threads of --threads. All run at once and are asked in
turn by a light client in another process (bench/http_load.py): a route that does nothing, batches of 1 and of 32 short texts, and a
body of 4 MB that is no JSON, which is refused once it has been read.

Medians over the rounds of requests/s, the 50th and 99th percentile latency, the CPU time of the server's processes for one request,
which other load on the machine disturbs least, and of the connections that the server closed though the client keeps them. Seconds from
the start of the process to its first answer, and its memory after the load. Prints and writes bench/results/servers.json, with ratios to
waitress with the same number of threads.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import machine
import serving_throughput

BENCH = Path(__file__).parent
RESULTS = BENCH / "results" / "servers.json"
LARGE_BYTES = 4 * 1024**2
START_SECONDS = 60.0
STATUSES = {"nothing": "200", "1 text": "200", "32 texts": "200", "4 MB": "400"}


def commands(port: int, threads: int) -> dict[str, list[str]]:
    """How each server is started."""
    python, where = sys.executable, f"127.0.0.1:{port}"
    return {
        "waitress": [python, "-m", "mlaas.serve", "functions/classify"],
        "gunicorn": [python, "-m", "gunicorn", "-k", "gthread", "-w", "1", f"--threads={threads}", "-b", where,
                     "--chdir=bench", "wsgi:app"],
        "granian": [python, "-m", "granian", "--interface=wsgi", "--workers=1", f"--blocking-threads={threads}", "--host=127.0.0.1",
                    f"--port={port}", "--working-dir=bench", "--no-access-log", "wsgi:app"],
        "cheroot": [python, "-m", "cheroot", "wsgi:app", f"--bind={where}", f"--threads={threads}"],
        "uvicorn": [python, "-m", "uvicorn", "--app-dir=bench", "--host=127.0.0.1", f"--port={port}", "--no-access-log", "wsgi:asgi"],
    }  # fmt: skip


@dataclass(frozen=True)
class Served:
    """A server with so many threads, its first process, and the seconds to its first answer."""

    name: str
    threads: int
    port: int
    pid: int
    started_after: float

    def pids(self) -> list[int]:
        """Its processes."""
        parents = {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                parents[int(stat.parent.name)] = int(stat.read_text(encoding="ascii").rpartition(")")[2].split()[1])
            except OSError:  # it has ended
                continue
        found = [self.pid]
        for pid in found:
            found += [child for child, parent in parents.items() if parent == pid]
        return found

    def cpu_seconds(self) -> float:
        """Of all its processes."""
        return sum(serving_throughput.Server(0, pid).cpu_seconds() for pid in self.pids())

    def memory_mib(self) -> int:
        """Of all its processes; pages that they share count for each."""
        pages = sum(int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) for pid in self.pids())
        return pages * os.sysconf("SC_PAGE_SIZE") // 1024**2


@contextmanager
def served(home: Path, name: str, threads: int, port: int) -> Iterator[Served]:
    """The application under the server `name`, with its model loaded."""
    path = {"PYTHONPATH": str(BENCH)}
    environment = (
        serving_throughput.environment(home) | path | {"PORT": str(port), "MLAAS_THREADS": str(threads), "MLAAS_QUEUE_SECONDS": "600"}
    )
    began = time.perf_counter()
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(commands(port, threads)[name], cwd=BENCH.parent, env=environment, **quiet)
    try:
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health/liveness", timeout=10).close()
                break
            except urllib.error.URLError:
                assert process.poll() is None, f"{name} ended"
                assert time.perf_counter() < began + START_SECONDS, f"{name} did not start"
                time.sleep(0.01)
        one = Served(name, threads, port, process.pid, time.perf_counter() - began)
        urllib.request.urlopen(
            urllib.request.Request(f"http://127.0.0.1:{port}/", serving_throughput.bodies(1)[0], JSON), timeout=60
        ).close()
        yield one
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


JSON = {"Content-Type": "application/json"}


def requests() -> dict[str, list[str]]:
    """The bytes of the requests of each case, as latin-1."""

    def post(body: bytes) -> str:
        head = f"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        return head + body.decode("latin-1")

    return {
        "nothing": ["GET /health/liveness HTTP/1.1\r\nHost: localhost\r\n\r\n"],
        "1 text": [post(body) for body in serving_throughput.bodies(1)],
        "32 texts": [post(body) for body in serving_throughput.bodies(32)[:64]],
        "4 MB": [post(b"x" * LARGE_BYTES)],
    }


def measure(server: Served, connections: int, asked: list[str], status: str, seconds: float) -> dict[str, float]:
    """Ask for so long, and wait for the answers: figures of one round."""
    order = {"port": server.port, "connections": connections, "seconds": seconds, "requests": asked}
    before = server.cpu_seconds()
    done = subprocess.run(
        [sys.executable, str(BENCH / "http_load.py")], input=json.dumps(order), capture_output=True, text=True, check=True
    )
    seen, used = json.loads(done.stdout), server.cpu_seconds() - before
    assert set(seen["statuses"]) == {status}, f"{server.name} answered {seen['statuses']}"
    latencies, answered = sorted(seen["latencies"]), seen["statuses"][status]
    return {
        "requests_per_second": answered / seen["seconds"],
        "p50_ms": statistics.median(latencies) * 1000,
        "p99_ms": latencies[int(len(latencies) * 0.99)] * 1000,
        "cpu_ms": used * 1000 / answered,
        "lost": seen["lost"],
    }


def cases(connections: list[int]) -> Iterator[tuple[str, int]]:
    """What is asked over how many connections."""
    for case in ("nothing", "1 text", "32 texts"):
        yield from ((case, number) for number in connections)
    yield "4 MB", min(16, max(connections))


def compared(servers: list[Served], options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """A row for each case and server: medians over rounds that alternate."""
    asked = requests()
    for case, connections in cases(options.connections):
        rounds: dict[Served, list[dict[str, float]]] = {server: [] for server in servers}
        for number in range(options.rounds):
            for server in servers if number % 2 == 0 else reversed(servers):
                rounds[server].append(measure(server, connections, asked[case], STATUSES[case], options.seconds))
        rows = []
        for server, figures in rounds.items():
            medians = {name: round(statistics.median(one[name] for one in figures), 2) for name in figures[0]}
            rows.append({"case": case, "connections": connections, "server": server.name, "threads": server.threads, **medians})
        for row in rows:
            own = next(one for one in rows if one["server"] == "waitress" and one["threads"] == row["threads"])
            row["ratio"] = round(row["requests_per_second"] / own["requests_per_second"], 2)
            row["cpu_ratio"] = round(row["cpu_ms"] / own["cpu_ms"], 2) if own["cpu_ms"] else None
            print(*(f"{key} {value}" for key, value in row.items()), sep="  ", flush=True)
            yield row


def table(record: dict[str, Any]) -> str:
    """What `record` says, as Markdown."""
    names = ["case", "connections", "server", "threads", "requests_per_second", "ratio", "p50_ms", "p99_ms", "cpu_ms", "cpu_ratio", "lost"]
    titles = [
        "asked",
        "connections",
        "server",
        "threads",
        "requests/s",
        "times waitress",
        "p50 ms",
        "p99 ms",
        "CPU ms per request",
        "times waitress",
    ]
    asked = machine.markdown(titles, [[row[name] for name in names] for row in record["rows"]])
    names = ["server", "threads", "started_after", "memory_mib"]
    processes = machine.markdown(
        ["server", "threads", "s to the first answer", "MiB"], [[one[name] for name in names] for one in record["processes"]]
    )
    return f"{asked}\n\n{processes}"


def main() -> int:
    """Measure, print, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=16, help="of the servers that are not waitress")
    parser.add_argument(
        "--waitress", type=int, nargs="+", default=[4, 8, 16, 32], help="threads of waitress, those of --threads among them"
    )
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 16, 128])
    parser.add_argument("--servers", nargs="+", default=["gunicorn", "granian", "cheroot", "uvicorn"], choices=list(commands(0, 0))[1:])
    parser.add_argument("--port", type=int, default=18441, help="the first of as many as there are servers")
    parser.add_argument("--home", type=Path, help="where the bundle `bundle` is already")
    options = parser.parse_args()
    chosen = [("waitress", threads) for threads in dict.fromkeys([*options.waitress, options.threads])]
    chosen += [(name, options.threads) for name in options.servers]
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        home = options.home or serving_throughput.prepare(Path(name)).parent
        servers = [stack.enter_context(served(home, *one, options.port + place)) for place, one in enumerate(chosen)]
        rows = list(compared(servers, options))
        processes = [
            {"server": one.name, "threads": one.threads, "started_after": round(one.started_after, 2), "memory_mib": one.memory_mib()}
            for one in servers
        ]
    for process in processes:
        print(*(f"{key} {value}" for key, value in process.items()), sep="  ")
    RESULTS.write_text(
        json.dumps({"command": machine.command(), **machine.described(), "rows": rows, "processes": processes}, indent=1) + "\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
