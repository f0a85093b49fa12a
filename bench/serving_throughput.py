"""The classify function over HTTP under load: requests that share batches against requests that do not, in one run.

    python bench/serving_throughput.py

Exports a classifier with MiniLM-L6's encoder (its head untrained: the cost is the same), starts the function twice as
`python -m mlaas.serve functions/classify`, once with MLAAS_BATCH_WAIT_MS=0 (each request has batches of its own) and once with the default,
and asks each in turn over 1, 16 and 128 kept connections for batches of 1 and of 32 short texts. The clients are threads of this
process, on the same cores. The answers of both processes are compared.

Prints requests/s, texts/s, the median and 99th percentile latency, the function's CPU time per text (which other load on the machine
disturbs least) and the ratios of the two, and writes
bench/results/serving_throughput.json.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import machine

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results" / "serving_throughput.json"
WAYS = {"alone": {"MLAAS_BATCH_WAIT_MS": "0"}, "merged": {}}
ENOUGH = 20  # answers, below which nothing is said of a way
Bodies = list[bytes]


@dataclass(frozen=True)
class Server:
    """A process of the function."""

    port: int
    pid: int

    def cpu_seconds(self) -> float:
        """What it has computed so far, of all its threads."""
        fields = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@dataclass
class Load:
    """What the clients of one measurement saw."""

    latencies: list[float] = field(default_factory=list)
    others: int = 0
    cpu: float = 0.0

    def figures(self, seconds: float, texts: int) -> dict[str, Any]:
        """Requests and texts per second, latencies in ms, and how many answers were no 200."""
        ordered = sorted(self.latencies)
        return {
            "requests_per_second": round(len(ordered) / seconds, 1),
            "texts_per_second": round(len(ordered) * texts / seconds, 1),
            "p50_ms": round(statistics.median(ordered) * 1000, 1) if ordered else None,
            "p99_ms": round(ordered[int(len(ordered) * 0.99)] * 1000, 1) if ordered else None,
            "cpu_ms_per_text": round(self.cpu * 1000 / len(ordered) / texts, 2) if ordered else None,
            "not_answered": self.others,
        }


def prepare(folder: Path) -> Path:
    """The bundle of an untrained classifier around MiniLM-L6's encoder."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from mlaas.samples import checkpoint
    from mlaas.training.export import export

    torch.manual_seed(0)
    kept = folder / "checkpoint"
    AutoModelForSequenceClassification.from_pretrained(checkpoint("minilm"), num_labels=4).eval().save_pretrained(kept)
    AutoTokenizer.from_pretrained(checkpoint("minilm")).save_pretrained(kept)
    return export(kept, "text-classification", folder / "bundle").folder


def bodies(texts: int) -> Bodies:
    """256 requests of `texts` different affiliation strings each."""
    from mlaas.samples.affiliations import affiliations

    known = cycle(one.text for one in affiliations(2000, seed=1))
    model = {"path": "bundle", "storage_type": "local"}
    return [json.dumps({"model": model, "predict_input": {"input_text": [next(known) for _ in range(texts)]}}).encode() for _ in range(256)]


def environment(home: Path) -> dict[str, str]:
    """Of a function's process that finds its models in `home`."""
    return {**os.environ, "MLAAS_HOST": "127.0.0.1", "MLAAS_ROOT": str(home), "MLAAS_HOME": str(home / "home")}


@contextmanager
def served(home: Path, port: int, settings: dict[str, str]) -> Iterator[Server]:
    """The function's process, ready, on `port`."""
    process = subprocess.Popen(
        [sys.executable, "-m", "mlaas.serve", "functions/classify"],
        cwd=ROOT,
        env=environment(home) | {"PORT": str(port)} | settings,
        stderr=subprocess.DEVNULL,
    )
    try:
        while True:
            try:
                ask(http.client.HTTPConnection("127.0.0.1", port), bodies(1)[0])
                break
            except ConnectionError:
                assert process.poll() is None, "the function ended"
                time.sleep(0.05)
        yield Server(port, process.pid)
    finally:
        process.terminate()
        process.wait()


def ask(connection: http.client.HTTPConnection, body: bytes) -> tuple[int, bytes]:
    """Status and body of the answer."""
    connection.request("POST", "/", body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    return answer.status, answer.read()


def load(server: Server, connections: int, requests: Bodies, seconds: float) -> Load:
    """Ask over all connections for so long, after a second that is not counted; each asks again as soon as it is answered."""
    seen, lock = Load(), threading.Lock()
    begin = time.perf_counter() + 1
    end = begin + seconds

    def client(number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", server.port)
        for body in cycle(requests[number:] + requests[:number]):
            started = time.perf_counter()
            if started > end:
                return
            status, _ = ask(connection, body)
            took = time.perf_counter() - started
            if started >= begin:
                with lock:
                    seen.others += status != 200
                    seen.latencies += [took] if status == 200 else []

    threads = [threading.Thread(target=client, args=(number,)) for number in range(connections)]
    for thread in threads:
        thread.start()
    time.sleep(1)
    before = server.cpu_seconds()
    for thread in threads:
        thread.join()
    seen.cpu = server.cpu_seconds() - before
    return seen


def largest_difference(servers: dict[str, Server], requests: Bodies) -> float:
    """Between the scores that both processes give the same texts, asked for under load."""
    found: dict[str, dict[int, list[float]]] = {way: {} for way in servers}

    def client(way: str, number: int) -> None:
        status, answer = ask(http.client.HTTPConnection("127.0.0.1", servers[way].port), requests[number])
        assert status == 200, answer
        found[way][number] = [one["score"] for one in json.loads(answer)["predictions"]]

    for way in servers:
        with ThreadPoolExecutor(32) as pool:
            list(pool.map(partial(client, way), range(64)))
    return max(abs(a - b) for number in range(64) for a, b in zip(found["alone"][number], found["merged"][number], strict=True))


def table(record: dict[str, Any]) -> str:
    """What `record` says, as Markdown."""
    names = ["threads", "connections", "texts", "way", "requests_per_second", "p50_ms", "p99_ms", "cpu_ms_per_text", "ratio"]
    titles = ["threads", "connections", "texts", "way", "requests/s", "p50 ms", "p99 ms", "CPU ms per text", "times alone"]
    return machine.markdown(titles, [[row.get(name) for name in names] for row in record["rows"]])


def main() -> int:
    """Measure, print, record; 1 if an answer depends on what shares its batch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, nargs="+", default=[4, 16])
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 16, 128])
    parser.add_argument("--port", type=int, default=18431)
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        home = prepare(Path(name)).parent
        for threads in options.threads:
            common = {"MLAAS_THREADS": str(threads), "MLAAS_QUEUE_SECONDS": "600"}  # nobody is sent away
            with (
                served(home, options.port, WAYS["alone"] | common) as alone,
                served(home, options.port + 1, WAYS["merged"] | common) as merged,
            ):
                servers = {"alone": alone, "merged": merged}
                difference = largest_difference(servers, bodies(8))
                for texts in (1, 32):
                    requests = bodies(texts)
                    for connections in options.connections:
                        rows += measured(servers, threads, texts, connections, requests, options)
    RESULTS.write_text(
        json.dumps({"command": machine.command(), **machine.described(), "largest_difference": difference, "rows": rows}, indent=1) + "\n"
    )
    print(f"largest difference of a score: {difference:.1e}")
    return 0 if difference <= 1e-5 else 1


def measured(
    servers: dict[str, Server], threads: int, texts: int, connections: int, requests: Bodies, options: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """One row for each way: the better of its rounds, which alternate."""
    best: dict[str, dict[str, Any]] = {}
    for _ in range(options.rounds):
        for way, server in servers.items():
            figures = load(server, connections, requests, options.seconds).figures(options.seconds, texts)
            if figures["requests_per_second"] >= best.get(way, figures)["requests_per_second"]:
                best[way] = figures
    alone, merged = best["alone"], best["merged"]
    if min(each["requests_per_second"] for each in best.values()) * options.seconds < ENOUGH:
        print(f"threads {threads}  texts {texts}  connections {connections}: too few answers to say, give it more --seconds", flush=True)
        return
    merged["ratio"] = round(merged["requests_per_second"] / alone["requests_per_second"], 2)
    for way, figures in best.items():
        row = {"threads": threads, "texts": texts, "connections": connections, "way": way, **figures}
        print(*(f"{key} {value}" for key, value in row.items()), sep="  ", flush=True)
        yield row


if __name__ == "__main__":
    sys.exit(main())
