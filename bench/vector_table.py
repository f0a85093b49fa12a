"""The record of vector_search.py as Markdown."""

from __future__ import annotations

from typing import Any

from machine import markdown

__all__ = ["table"]

_TITLES = (
    "way",
    "build s",
    "MB on disk",
    "MB of memory to build / search",
    "first answer s, cold / warm",
    "recall@10",
    "queries/s alone",
    "p50 / p99 ms",
    "queries/s batched",
)


def table(record: dict[str, Any]) -> str:
    """One table for each size; in brackets, how many times as many queries ours answers: with documents, and its index without them."""
    parts = []
    for one in record["sizes"].values():
        rows = [row for name, found in one["ways"].items() for row in _rows(name, found, one["ratios_of_ours"].get(name, {}))]
        on = f"{one['processor']}, {one['cores']} cores, load {one['load']}, {one['date']}"
        parts.append(f"{one['vectors']:,} vectors of {one['dimension']} ({on}):\n\n{markdown(_TITLES, rows)}")
    return "\n\n".join(parts)


def _rows(name: str, found: dict[str, Any], ratio: dict[str, float]) -> list[list[str]]:
    if "not_done" in found:
        return [[f"{name}: {found['what']}", found["not_done"], *[""] * 7]]
    effort = found.get("effort", found.get("parameters"))
    given = effort.items() if isinstance(effort, dict) else [("ef", effort)] if effort else []
    what = ", ".join([f"{name}: {found['what']}", *(f"{key} {value}" for key, value in given)])
    memory = f"{found['build_peak_mb']:,} / {found['search_private_mb']:,}"
    opened = f"{found['open_s']:.3f} / {found['open_s_warm']:.3f}"
    cells = [f"{found['build_s']:,.1f}", f"{found['size_mb']:,.0f}", memory, opened, f"{found['recall']:.4f}"]
    rows = [[what, *cells, *_speed(found, "", ratio)]]
    if "index_qps" in found:
        rows.append([f"{name}, without documents", *[""] * 5, *_speed(found, "index_", {})])
    return rows


def _speed(found: dict[str, Any], prefix: str, ratio: dict[str, float]) -> list[str]:
    def times(key: str) -> str:
        return f" ({ratio[key]:.2f}, index {ratio[f'index_{key}']:.2f})" if ratio else ""

    latency = f"{found[f'{prefix}p50_ms']:.3f} / {found[f'{prefix}p99_ms']:.3f}"
    return [f"{found[f'{prefix}qps']:,}{times('qps')}", latency, f"{found[f'{prefix}qps_batched']:,}{times('qps_batched')}"]
