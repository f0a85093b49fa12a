"""Every bench of the platform against what it is compared with, one after the other, and the table of what is recorded.

    python bench                          # or: make bench
    python bench --only servers events
    python bench --table                  # only the table, from the records

Each bench is a process of its own and takes as long as its limit at the most (SUBJECTS); one that fails or is late is reported, and the
next begins. A bench writes its record to bench/results/NAME.json. Then bench/results.md is written from all records there: what the
function `table(record)` of the bench of that name says in Markdown, with the command, the machine and the date of the record. The servers
that peers compares with are installed beforehand: `python bench/peers.py --setup`.
Returns 1 if a bench failed.
"""

from __future__ import annotations

import argparse
import importlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

BENCH = Path(__file__).parent
RECORDS, TABLE = BENCH / "results", BENCH / "results.md"
# Name of the bench: minutes that it may take. The other scripts here ask for data of the user, a cluster or hours: they are run by hand.
SUBJECTS = {
    "cold_start": 15,
    "session_load": 5,
    "serving_throughput": 15,
    "servers": 30,
    "function_overhead": 10,
    "events": 20,
    "vector_search": 50,
    "precision": 20,
    "peers": 40,
}
INTRODUCTION = """# Results of the benches

Made by `make bench` from the records in `bench/results/`; `python bench --table` makes it again without measuring. Ratios compare what ran
in turn on one machine. Where `load` (processes that wanted a core) is above the number of cores, other work was on the machine, and
only ratios and CPU times mean something.
"""


def main() -> int:
    """Run the benches and write the table; 1 if one failed."""
    parser = argparse.ArgumentParser(prog="python bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=SUBJECTS, metavar="NAME", help=f"of {', '.join(SUBJECTS)}")
    parser.add_argument("--table", action="store_true", help="write the table from the records, and measure nothing")
    options = parser.parse_args()
    failed = [] if options.table else measure(options.only or list(SUBJECTS))
    TABLE.write_text(document())
    print(f"the table is in {TABLE.relative_to(BENCH.parent)}" + (f"; failed: {', '.join(failed)}" if failed else ""))
    return 1 if failed else 0


def measure(names: list[str]) -> list[str]:
    """Run the benches called `names`, which have to be here: the names of those that failed."""
    failed = []
    print(f"{len(names)} benches, {sum(SUBJECTS[name] for name in names)} minutes at the most", flush=True)
    for number, name in enumerate(names, 1):
        print(f"\n[{number}/{len(names)}] {name}, {SUBJECTS[name]} minutes at the most", flush=True)
        started = time.monotonic()
        why = run(BENCH / f"{name}.py", SUBJECTS[name] * 60)
        print(f"[{number}/{len(names)}] {name}: {why or 'done'} after {time.monotonic() - started:.0f} s", flush=True)
        failed += [name] if why else []
    return failed


def run(script: Path, seconds: float) -> str:
    """Why `script` failed, and nothing if it did not."""
    if not script.exists():
        return "there is no such bench"
    process = subprocess.Popen([sys.executable, f"{BENCH.name}/{script.name}"], cwd=BENCH.parent)
    try:
        status = process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)  # so that it ends its own processes
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        return "it was late and was ended"
    except BaseException:
        process.send_signal(signal.SIGINT)
        process.wait()
        raise
    return f"it returned {status}" if status else ""


def document() -> str:
    """The table of all records whose bench says how they are read."""
    parts = [INTRODUCTION]
    for name in SUBJECTS:
        record = RECORDS / f"{name}.json"
        if record.exists():
            parts.append(section(name, json.loads(record.read_text("utf-8"))))
    return "\n".join(parts)


def section(name: str, record: dict[str, Any]) -> str:
    """A record with its title, its table and its machine."""
    bench = importlib.import_module(name)
    title = (bench.__doc__ or name).partition("\n")[0].rstrip(".")
    machine = [f"{name} {record[name]}" for name in ("date", "processor", "cores", "load") if name in record]
    return f"## {name}\n\n{title}.\n\n{bench.table(record)}\n\n`{record['command']}`; {', '.join(machine)}.\n"


if __name__ == "__main__":
    sys.exit(main())
