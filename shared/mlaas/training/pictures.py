"""Pictures of a model card: loss curves and the confusion matrix, as SVG that needs no library and no font of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape

__all__ = ["SHOWN", "confusion_matrix", "loss_curves"]

SHOWN = 40  # classes of a confusion matrix that are drawn, those with the most rows
WIDTH, HEIGHT, LEFT, TOP = 640, 360, 60, 30  # pixels
CELL, NAMES = 22, 150
Points = Sequence[tuple[float, float]]


def loss_curves(history: Mapping[str, Any]) -> str | None:
    """The training loss per step and the held-out loss per epoch; None where nothing was recorded."""
    epochs = list(history.get("validation_loss") or [])
    training = [(float(point["step"]), float(point["loss"])) for point in history.get("steps") or []]
    last = training[-1][0] if training else float(len(epochs))
    if not training:
        training = [((number + 1) * last / len(epochs), float(loss)) for number, loss in enumerate(history.get("loss") or [])]
    held_out = [((number + 1) * last / len(epochs), float(loss)) for number, loss in enumerate(epochs)]
    both = [*training, *held_out]
    if not both:
        return None
    top = max(value for _, value in both) or 1.0
    drawn = [_axes(last, top, "optimizer steps" if history.get("steps") else "epochs")]
    for number, (name, colour, points) in enumerate((("training", "#1f77b4", training), ("held out", "#d62728", held_out))):
        drawn.append(_line(points, last, top, colour))
        drawn.append(_text(WIDTH - 90, TOP + 16 * (number + 1), name, f'fill="{colour}"'))
    return _svg(WIDTH, HEIGHT, "Loss while training", "".join(drawn))


def confusion_matrix(labels: Sequence[str], matrix: Sequence[Sequence[int]]) -> str | None:
    """A square for each actual (row) and predicted (column) class, darker for a larger share of its row; None without rows."""
    rows = [sum(row) for row in matrix]
    shown = sorted(sorted(range(len(labels)), key=lambda each: -rows[each])[:SHOWN])
    if not any(rows):
        return None
    drawn = []
    for y, actual in enumerate(shown):
        drawn.append(_text(NAMES - 6, NAMES + CELL * y + 15, _short(labels[actual]), 'text-anchor="end"'))
        column = NAMES + CELL * y + 15
        drawn.append(_text(column, NAMES - 6, _short(labels[actual]), f'transform="rotate(-90 {column} {NAMES - 6})"'))
        drawn += [_cell(x, y, matrix[actual][predicted], rows[actual]) for x, predicted in enumerate(shown)]
    size = NAMES + CELL * len(shown) + 10
    return _svg(size, size, "Confusion matrix: actual classes are rows, predicted ones columns", "".join(drawn))


def _cell(x: int, y: int, count: int, of: int) -> str:
    share = count / of if of else 0.0
    place = f'x="{NAMES + CELL * x}" y="{NAMES + CELL * y}" width="{CELL}" height="{CELL}"'
    square = f'<rect {place} fill="{"#2ca02c" if x == y else "#d62728"}" fill-opacity="{share:.3f}" stroke="#ddd"/>'
    number = _text(NAMES + CELL * x + CELL // 2, NAMES + CELL * y + 15, str(count), 'text-anchor="middle" font-size="9"')
    return square + (number if count else "")


def _axes(last: float, top: float, unit: str) -> str:
    right, bottom = WIDTH - 20, HEIGHT - 40
    parts = [f'<path d="M{LEFT} {TOP}V{bottom}H{right}" fill="none" stroke="#333"/>']
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts.append(_text(LEFT - 6, bottom - share * (bottom - TOP) + 4, f"{share * top:.3g}", 'text-anchor="end"'))
        parts.append(_text(LEFT + share * (right - LEFT), bottom + 16, f"{share * last:.0f}", 'text-anchor="middle"'))
    return "".join([*parts, _text((LEFT + right) / 2, HEIGHT - 6, unit, 'text-anchor="middle"')])


def _line(points: Points, last: float, top: float, colour: str) -> str:
    right, bottom = WIDTH - 20, HEIGHT - 40
    places = [(LEFT + x / last * (right - LEFT), bottom - y / top * (bottom - TOP)) for x, y in points]
    dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{colour}"/>' for x, y in places)
    return f'<polyline points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in places)}" fill="none" stroke="{colour}"/>{dots}'


def _text(x: float, y: float, text: str, more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {more}>{escape("".join(filter(str.isprintable, text)))}</text>'


def _short(label: str) -> str:
    return label if len(label) <= 20 else f"{label[:19]}…"


def _svg(width: int, height: int, title: str, drawn: str) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    font = 'font-family="sans-serif" font-size="11"'
    return f'{head} {font}><title>{escape(title)}</title><rect width="100%" height="100%" fill="#fff"/>{drawn}</svg>\n'
