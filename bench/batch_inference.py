"""Predictions for a file of 1,000,000 rows: bounded memory, and a resume after kill -9 that loses and repeats no row.

    python bench/batch_inference.py

Generates the file (synthetic affiliation strings, one row in a hundred without text), runs the job in a process of its own as JobSink
starts it, kills it (SIGKILL) when half of the rows are kept, starts it again, and reads the result: every row from 0 on, once, with its
own text. The classifier is the tests' tiny one, a bag of words with four labels: what is measured is the platform around a model, not a
model.

Prints rows/s and the largest resident set of either process, and writes bench/results/batch_inference.json.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "batch_inference.json"
LIMIT_BYTES = 1024**3


@dataclass(frozen=True)
class Run:
    """A process of the job: how it ended, how long it took, the largest resident set in bytes, and the parts there were then."""

    status: int
    seconds: float
    resident: int
    parts: int


def texts(rows: int) -> Iterator[str]:
    """Affiliation strings, each followed by its row; one in a hundred is empty."""
    from mlaas.samples.affiliations import affiliations

    known = [one.text for one in affiliations(20_000, seed=1)]
    for number, text in enumerate(islice(cycle(known), rows)):
        yield f"{text} {number}" if number % 100 else ""


def prepare(folder: Path, rows: int) -> dict[str, str]:
    """A home with the tiny classifier and the file; the environment of the job."""
    from mlaas.testing.homes import tiny_home

    settings = tiny_home(folder)
    with (settings.artefacts / "rows.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text"])
        writer.writerows([text] for text in texts(rows))
    return {**os.environ, "MLAAS_HOME": str(settings.home)}


def accept() -> tuple[str, dict[str, Any]]:
    """Accept the task as the function does; its id and its event."""
    from mlaas import batch, events
    from mlaas.contracts import ClassifyRequest, parse

    request = {"model": {"name": "infn-structures"}, "predict_input": {"dataset": {"path": "rows.csv"}}}
    event = batch.accept(parse(ClassifyRequest, request), events.new("classify", request), False)
    return event["subject"], events.to_json(event)


def run(environment: dict[str, str], kept: Path, kill_at: int | None) -> Run:
    """Start the job and wait for its end; kill it when it has kept `kill_at` parts."""
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "mlaas.batch"], env=environment, stderr=subprocess.DEVNULL)
    parts = 0
    while True:
        ended, status, usage = os.wait4(process.pid, os.WNOHANG)
        if ended:
            process.returncode = os.waitstatus_to_exitcode(status)
            return Run(process.returncode, round(time.perf_counter() - started, 1), usage.ru_maxrss * 1024, parts)
        parts = max(parts, len(list(kept.glob("part-*.parquet"))))
        if kill_at is not None and parts >= kill_at:
            process.kill()
        time.sleep(0.02)


def wrong_rows(file: Path, rows: int) -> int:
    """How many rows of the result are not the row, the text and the null that they should be."""
    from pyarrow import parquet

    expected, wrong, seen = texts(rows), 0, 0
    with parquet.ParquetFile(file) as table:
        for part in table.iter_batches(batch_size=4096):
            for row in part.to_pylist():
                text = next(expected, None)
                wrong += row["row"] != seen or row["text"] != text or (row["label"] is None) != (text == "")
                seen += 1
    return wrong + abs(rows - seen)


def main() -> int:
    """Measure, print, record; 1 if a row is lost, repeated or wrong, or a process needed 1 GiB."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        environment = prepare(folder, options.rows)
        os.environ.update(environment)
        from mlaas.documents import shared
        from mlaas.settings import current
        from mlaas.tasks import Tasks

        settings = current()
        task_id, event = accept()
        (folder / "event").write_text(json.dumps(event))
        environment["K_EVENT_PATH"] = str(folder / "event")
        kept = settings.artefacts / "exchange" / "results" / task_id / f".draft-{task_id}"
        killed = run(environment, kept, max(1, options.rows // settings.batch_rows // 2))
        done = run(environment, kept, None)
        task = Tasks(shared()).get(task_id)
        assert (killed.status, done.status, task["task_status"]) == (-9, 0, "succeeded"), task
        wrong = wrong_rows(settings.artefacts / task["result"]["predictions"]["path"], options.rows)
        resumed_from = killed.parts * settings.batch_rows
        size = (settings.artefacts / "rows.csv").stat().st_size
    return report(options.rows, size, killed, done, resumed_from, wrong)


def report(rows: int, size: int, killed: Run, done: Run, resumed_from: int, wrong: int) -> int:
    """Print and record the figures; the exit status."""
    seconds = killed.seconds + done.seconds
    resident = max(killed.resident, done.resident)
    print(f"{rows:,} rows ({size / 1e6:.0f} MB) in {seconds:.1f} s, a kill -9 and a second start included: {rows / seconds:,.0f} rows/s")
    print(f"killed after {killed.seconds} s with {resumed_from:,} rows kept; the second process ended after {done.seconds} s")
    print(
        f"largest resident set: {resident / 1024**2:.0f} MiB (first {killed.resident / 1024**2:.0f}, second {done.resident / 1024**2:.0f})"
    )
    print(f"rows that are missing, repeated or wrong: {wrong}")
    record = {
        "command": "python bench/batch_inference.py",
        "model": "tiny bag-of-words classifier with four labels (mlaas.testing.tiny_models)",
        "cores": os.cpu_count(),
        "rows": rows,
        "bytes": size,
        "seconds": round(seconds, 1),
        "rows_per_second": round(rows / seconds),
        "first_process": {"ended_by": "SIGKILL", "seconds": killed.seconds, "rows_kept": resumed_from, "peak_rss_bytes": killed.resident},
        "second_process": {"seconds": done.seconds, "peak_rss_bytes": done.resident},
        "wrong_rows": wrong,
    }
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(record, indent=2) + "\n")
    return 0 if wrong == 0 and resident < LIMIT_BYTES else 1


if __name__ == "__main__":
    sys.exit(main())
