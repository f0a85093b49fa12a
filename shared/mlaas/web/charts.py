"""Charts, drawn on the server: curves as SVG, a confusion matrix as what a table needs. Colours are the style sheet's."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape

__all__ = ["Confusion", "Curve", "confusion", "curves", "plot"]

SHOWN = 40  # classes of a confusion matrix, those with the most rows
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 720, 300, 64, 12, 14, 48
Point = tuple[float, float]


@dataclass(frozen=True)
class Curve:
    """A line of a plot. `style` is a class of the style sheet."""

    name: str
    points: Sequence[Point]
    style: str


def curves(history: Mapping[str, Any], progress: Mapping[str, Any] | None = None) -> list[tuple[str, Markup]]:
    """Title and plot of what a training wrote down: losses, and the accuracy on held-out rows. Empty where there is nothing.

    `progress` of a run that goes on says how many steps an epoch has.
    """
    steps = [(float(one["step"]), float(one["loss"])) for one in history.get("steps") or [] if one.get("loss") is not None]
    last = steps[-1][0] if steps else None
    if last and progress and progress.get("epoch") and progress.get("step"):
        last = len(history.get("validation_loss") or []) * progress["step"] / progress["epoch"]
    training = steps or _by_epoch(history.get("loss"), last)
    held_out = _by_epoch(history.get("validation_loss"), last)
    unit = "optimizer steps" if steps else "epochs"
    drawn: list[tuple[str, Markup]] = []
    if training or held_out:
        lines = [Curve("training", training, "c1"), Curve("held out", held_out, "c2")]
        drawn.append(("Loss", plot("Loss while training", unit, [line for line in lines if line.points])))
    if accuracy := _by_epoch(history.get("accuracy"), last):
        drawn.append(("Accuracy", plot("Accuracy on held-out rows", unit, [Curve("held out", accuracy, "c2")])))
    return drawn


def _by_epoch(values: Sequence[float | None] | None, last: float | None) -> list[Point]:
    found = list(values or [])
    width = last / len(found) if last and found else 1.0
    return [((number + 1) * width, float(value)) for number, value in enumerate(found) if value is not None and math.isfinite(value)]


def plot(title: str, unit: str, lines: Sequence[Curve]) -> Markup:
    """Lines in one frame, with ticks at round numbers and the last value of each line in words for who does not see them."""
    xs = [x for line in lines for x, _ in line.points]
    ys = [y for line in lines for _, y in line.points]
    low, high = min(0.0, *ys) if min(ys) < 0.3 * max(ys) else min(ys), max(ys)
    bottom, top = _wide(low, high)
    left, right = (min(0.0, *xs), max(xs)) if len(set(xs)) > 1 else (0.0, max(xs))
    right = right if right > left else left + 1

    def at(x: float, y: float) -> tuple[float, float]:
        across = (x - left) / (right - left) * (WIDTH - LEFT - RIGHT) + LEFT
        return across, HEIGHT - BOTTOM - (y - bottom) / (top - bottom) * (HEIGHT - TOP - BOTTOM)

    said = "; ".join(f"{line.name}: {line.points[-1][1]:.4g} at the end of {len(line.points)} points" for line in lines)
    parts = [f'<svg class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(f"{title}. {said}")}">']
    for value in _ticks(bottom, top):
        y = at(left, value)[1]
        parts.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{value:.4g}</text>')
    for value in _ticks(left, right):
        x = at(value, bottom)[0]
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle">{value:,.10g}</text>')
    parts.append(f'<path class="axis" d="M{LEFT} {HEIGHT - BOTTOM}H{WIDTH - RIGHT}"/>')
    parts.append(f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 5}" text-anchor="end">{escape(unit)}</text>')
    for number, line in enumerate(lines):
        places = [at(x, y) for x, y in line.points]
        parts.append(f'<path class="line {line.style}" d="M{"L".join(f"{x:.1f} {y:.1f}" for x, y in places)}"/>')
        if len(places) <= 40:
            parts += [f'<circle class="dot {line.style}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in places]
        start = LEFT + 150 * number
        parts.append(f'<path class="line {line.style}" d="M{start} {HEIGHT - 9}h22"/>')
        parts.append(f'<text x="{start + 28}" y="{HEIGHT - 5}">{escape(line.name)}</text>')
    return Markup("".join(parts) + "</svg>")  # noqa: S704 - numbers and escaped texts


def _wide(low: float, high: float) -> tuple[float, float]:
    """Ends of an axis at round numbers."""
    if high <= low:
        low, high = (low - 0.5, high + 0.5) if low else (0.0, 1.0)
    step = _step(low, high)
    return math.floor(low / step) * step, math.ceil(high / step) * step


def _step(low: float, high: float, wanted: int = 5) -> float:
    rough = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)


def _ticks(low: float, high: float) -> list[float]:
    step = _step(low, high)
    first = math.ceil(low / step - 1e-9)
    return [round((first + number) * step, 12) for number in range(int((high - first * step) / step + 1e-9) + 1)]


@dataclass(frozen=True)
class Confusion:
    """`rows` has for each actual class its cells: how many, and in which tenth of the row's share that is. `left_out` counts classes."""

    labels: Sequence[str]
    rows: Sequence[tuple[str, Sequence[tuple[int, int]]]]
    left_out: int


def confusion(counted: Mapping[str, Any] | None) -> Confusion | None:
    """What the table of a confusion matrix shows; None where nothing was counted."""
    if not counted or not any(map(any, counted.get("matrix") or [])):
        return None
    labels, matrix = counted["labels"], counted["matrix"]
    sums = [sum(row) for row in matrix]
    kept = sorted(sorted(range(len(labels)), key=lambda each: -sums[each])[:SHOWN])
    rows = [(labels[actual], [(matrix[actual][taken], _tenth(matrix[actual][taken], sums[actual])) for taken in kept]) for actual in kept]
    return Confusion([labels[each] for each in kept], rows, len(labels) - len(kept))


def _tenth(count: int, of: int) -> int:
    return math.ceil(10 * count / of) if of else 0
