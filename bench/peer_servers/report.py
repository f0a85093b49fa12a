"""From the rounds of all ways to one figure each, to ratios, to what was promised and does not hold, and to Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import Any

__all__ = ["broken", "ours_to_judge", "summary", "table"]

CLOSE = 1e-3  # the stated bound in float32: what a probability or a part of a unit vector may differ by from PyTorch
ALIKE = 0.9999  # and in bf16: the cosine of what a text gets with that
FASTER, COLDER, SMALLER = 2.0, 10.0, 3.0
Record = dict[str, Any]


def summary(rows: list[Record]) -> Record:
    """Medians over the rounds of one way and task. `rows` are its rounds: cold, load (by connections), single, memory, accuracy."""
    loads = {name: _medians([row["load"][name] for row in rows]) for name in rows[0]["load"]}
    return {
        "rounds": len(rows),
        "cold_start_seconds": round(statistics.median(row["cold"] for row in rows), 3),
        "load": loads,
        "single": _medians([row["single"] for row in rows]),
        "memory_mib": _medians([row["memory"] for row in rows]),
        "largest_difference": max(row["accuracy"]["largest_difference"] for row in rows),
        "smallest_cosine": min(row["accuracy"]["smallest_cosine"] for row in rows),
    }


def ours_to_judge(record: Record, task: str) -> str | None:
    """Of our ways, the one that is fastest on this machine: OpenVINO, in bf16 where the processor computes in it."""
    ours = [name for name, way in record["ways"].items() if way["kind"] == "ours" and task in way["tasks"]]
    wanted = "mlaas, OpenVINO bf16" if record["bf16"] else "mlaas, OpenVINO"
    return wanted if wanted in ours else next(iter(ours), None)


def broken(record: Record) -> list[str]:
    """What was promised and does not hold, a sentence each."""
    return [sentence for task in record["tasks"] for sentence in _broken(record, task)]


def table(record: Record) -> str:
    """The figures of all ways as Markdown, a table for each task."""
    bf16 = f"computes in bf16 ({', '.join(record['bf16'])})" if record["bf16"] else "does not compute in bf16"
    lines = [f"The processor {bf16}. Medians of {record['rounds']} rounds at the most; ratios are ours to each other server."]
    for task in record["tasks"]:
        lines += ["", *_table(record, task)]
    lines += ["", "Versions: " + "; ".join(_versions(record)) + "."]
    failed = broken(record)
    return (
        "\n".join([*lines, "", *(f"- Does not hold: {each}" for each in failed), *([] if failed else ["All that was promised holds."])])
        + "\n"
    )


def _table(record: Record, task: str) -> Iterator[str]:
    ours = ours_to_judge(record, task)
    mine = _of(record, ours, task) if ours else None
    yield f"**{task}**, {record['texts'][task]}. In brackets: how many times better `{ours}` is."
    yield ""
    connections = [str(each) for each in record["connections"]]
    yield (
        "| server | "
        + " | ".join(f"tokens/s, {each} conn." for each in connections)
        + (
            f" | requests/s, {connections[-1]} | p50 / p99 ms, {connections[-1]} | one text p50 / p99 ms | cold start s | RSS (PSS) MiB"
            " | CPU s per 1,000 tokens | largest difference | smallest cosine |"
        )
    )
    yield "|---" * (len(connections) + 9) + "|"
    for name, way in record["ways"].items():
        if task not in way["tasks"]:
            continue
        one = _of(record, name, task)
        if one is None:
            yield f"| {name} | {way['tasks'][task]['reason']} |" + " |" * (len(connections) + 7)
            continue
        last, memory = one["load"][connections[-1]], one["memory_mib"]
        other = mine if mine is not None and name != ours else None
        speeds = [
            f"{one['load'][each]['tokens_per_second']:,.0f}"
            + _ratio(other and other["load"][each]["tokens_per_second"] / one["load"][each]["tokens_per_second"])
            for each in connections
        ]
        cold = f"{one['cold_start_seconds']:.2f}" + _ratio(other and one["cold_start_seconds"] / other["cold_start_seconds"])
        held = f"{memory['rss']:.0f} ({memory['pss']:.0f})" + _ratio(other and memory["rss"] / other["memory_mib"]["rss"])
        cells = [
            name,
            *speeds,
            f"{last['requests_per_second']:.1f}",
            f"{last['p50_ms']:.0f} / {last['p99_ms']:.0f}",
            f"{one['single']['p50_ms']:.1f} / {one['single']['p99_ms']:.1f}",
            cold,
            held,
            f"{last['cpu_seconds_per_1000_tokens']:.3f}",
            f"{one['largest_difference']:.1e}",
            f"{one['smallest_cosine']:.6f}",
        ]
        yield "| " + " | ".join(cells) + " |"


def _broken(record: Record, task: str) -> Iterator[str]:
    name = ours_to_judge(record, task)
    ours = _of(record, name, task) if name else None
    if ours is None:
        yield f"{task}: {name or 'no way of ours'} was not measured"
        return
    peers = [
        (peer, one, way["torch"])
        for peer, way in record["ways"].items()
        if way["kind"] == "peer" and task in way["tasks"] and (one := _of(record, peer, task))
    ]
    if not peers:
        yield f"{task}: no peer was measured"
    wanted = FASTER if record["bf16"] else 1.0
    for each in map(str, record["connections"]):
        for peer, one, _ in peers:
            ratio = ours["load"][each]["tokens_per_second"] / one["load"][each]["tokens_per_second"]
            if ratio < wanted:
                yield f"{task}, {each} connections: {ratio:.2f} times the tokens/s of {peer}, not {wanted:g} times"
    for peer, one, of_torch in peers:
        if (ratio := one["cold_start_seconds"] / ours["cold_start_seconds"]) < COLDER:
            yield f"{task}: starts {ratio:.1f} times faster than {peer}, not {COLDER:g} times"
        if of_torch and (ratio := one["memory_mib"]["rss"] / ours["memory_mib"]["rss"]) < SMALLER:
            yield f"{task}: {peer} holds {ratio:.2f} times the memory, not {SMALLER:g} times"
    for way in (way for way in record["ways"] if record["ways"][way]["kind"] == "ours"):
        one = _of(record, way, task)
        if one and "bf16" in way and not one["smallest_cosine"] >= ALIKE:
            yield f"{task}: answers of {way} have a cosine of {one['smallest_cosine']:.6f} with float32's, less than {ALIKE:g}"
        if one and "bf16" not in way and not one["largest_difference"] <= CLOSE:
            yield f"{task}: answers of {way} differ by {one['largest_difference']:.1e} from float32, more than {CLOSE:g}"


def _of(record: Record, name: str, task: str) -> Record | None:
    found: Record = record["ways"][name]["tasks"][task]
    return found if "load" in found else None


def _versions(record: Record) -> Iterator[str]:
    for name, way in record["ways"].items():
        if way.get("versions"):
            yield f"{name}: " + ", ".join(f"{package} {version}" for package, version in way["versions"].items())


def _ratio(value: float | None) -> str:
    return f" ({value:.2f})" if value else ""


def _medians(rows: list[dict[str, float]]) -> dict[str, float]:
    return {name: round(statistics.median(row[name] for row in rows), 4) for name in rows[0]}
