"""Where a version comes from and what was made of it, as a graph: what it was made from on the left, what it made on the right."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any
from urllib.parse import quote

from markupsafe import Markup, escape

from ..catalog import Kind
from ..catalog.contracts import Lineage
from ..catalog.dependants import dependants_of
from ..catalog.kinds import NOUNS
from ..documents import Documents

__all__ = ["Node", "drawn", "nodes"]

_KINDS: Mapping[str, Kind] = {noun: kind for kind, noun in NOUNS.items()}
SHOWN = 8  # of what was made of it
BOX_WIDTH, BOX_HEIGHT, GAP_X, GAP_Y = 178, 56, 30, 14
LETTERS = 18  # of a name in a box


@dataclass(frozen=True)
class Node:
    """`column` is 0 for what it was made from, 1 for what made it, 2 for the version itself, 3 for what was made of it."""

    column: int
    what: str
    name: str
    detail: str = ""
    link: str | None = None


def nodes(
    documents: Documents, kind: Kind, body: Mapping[str, Any], lineage: Lineage, *, visible: Callable[[Any, str], bool]
) -> list[Node]:
    """The nodes around a version; what the visitor may not see is left out, or has no link where it is only named."""
    found = [node for what, of, ref in (("base model", "models", lineage.parent), ("data set", "datasets", lineage.dataset))
             if (node := _origin(what, of, ref, visible))]  # fmt: skip
    if lineage.task_id:
        found.append(Node(1, "task", lineage.task_id[:13], "what made it", f"/web/tasks/{quote(lineage.task_id)}"))
    found.append(Node(2, NOUNS[kind], body["name"], f"version {body['version']}"))
    made = [one for one in dependants_of(documents, kind, body) if one.kind == "alias" or visible(_KINDS[one.kind], one.name)]
    for one in made[:SHOWN]:
        if one.kind == "alias":
            found.append(Node(3, "alias", one.name, "points here"))
        else:
            link = f"/web/{_KINDS[one.kind]}/{quote(one.name)}?version={quote(one.version or '')}"
            found.append(Node(3, one.kind, one.name, f"version {one.version}", link))
    if len(made) > SHOWN:
        found.append(Node(3, "and", f"{len(made) - SHOWN} more"))
    return found


def _origin(what: str, kind: str, ref: Mapping[str, Any] | None, visible: Callable[[Any, str], bool]) -> Node | None:
    if not ref:
        return None
    name, version = ref.get("name"), ref.get("version") or ref.get("revision")
    if name:
        link = (
            f"/web/{kind}/{quote(str(name))}" + (f"?version={quote(str(version))}" if version else "") if visible(kind, str(name)) else None
        )
        return Node(0, what, str(name), f"version {version}" if version else "", link)
    path = ref.get("path") or ref.get("checkpoint") or ref.get("architecture") or ref.get("model_type") or ref.get("digest") or "unnamed"
    sha256 = ref.get("sha256") or ref.get("digest")
    return Node(0, what, str(path), f"sha256 {str(sha256)[:8]}" if sha256 else str(ref.get("storage_type") or ""))


def drawn(found: Sequence[Node]) -> Markup | None:
    """The graph as SVG; None where a version has neither origin nor use."""
    columns = [column for column in ([one for one in found if one.column == number] for number in range(4)) if column]
    if len(columns) < 2:
        return None
    height = max(len(column) for column in columns) * (BOX_HEIGHT + GAP_Y) - GAP_Y + 4
    width = len(columns) * (BOX_WIDTH + GAP_X) - GAP_X + 4
    parts = [f'<svg class="graph" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="group" aria-label="Lineage">']
    places = [[_place(x, y, len(column), height) for y in range(len(column))] for x, column in enumerate(columns)]
    for before, after in pairwise(places):
        parts += [_edge(start, end) for start in before for end in after]
    for column, put in zip(columns, places, strict=True):
        parts += [_box(node, *place) for node, place in zip(column, put, strict=True)]
    return Markup("".join(parts) + "</svg>")  # noqa: S704 - numbers and escaped texts


def _place(x: int, y: int, count: int, height: int) -> tuple[int, int]:
    free = height - 4 - (count * (BOX_HEIGHT + GAP_Y) - GAP_Y)
    return 2 + x * (BOX_WIDTH + GAP_X), 2 + free // 2 + y * (BOX_HEIGHT + GAP_Y)


def _edge(start: tuple[int, int], end: tuple[int, int]) -> str:
    x, y, to, on = start[0] + BOX_WIDTH, start[1] + BOX_HEIGHT // 2, end[0] - 6, end[1] + BOX_HEIGHT // 2
    middle = (x + to) // 2
    arrow = f'<path class="arrow" d="M{to} {on - 4}l6 4l-6 4z"/>'
    return f'<path class="edge" d="M{x} {y}C{middle} {y} {middle} {on} {to} {on}"/>{arrow}'


def _box(node: Node, x: int, y: int) -> str:
    name = node.name if len(node.name) <= LETTERS else f"…{node.name[1 - LETTERS :]}"
    box = (
        f'<rect class="box{" here" if node.column == 2 else ""}" x="{x}" y="{y}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="6"/>'
        f'<text class="what" x="{x + 12}" y="{y + 17}">{escape(node.what)}{escape(f" · {node.detail}" if node.detail else "")}</text>'
        f'<text class="name" x="{x + 12}" y="{y + 40}">{escape(name)}</text>'
    )
    return f'<a href="{escape(node.link)}">{box}</a>' if node.link else f"<g>{box}</g>"
