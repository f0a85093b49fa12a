"""The table of faults: what was broken when, what was in flight, what was lost, how long until service."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

__all__ = ["Row", "insert", "render"]

_HEAD = "| fault | struck | in flight | lost | twice, same id | service after |\n|---|---|---|---:|---:|---:|"


@dataclass(kw_only=True)
class Row:
    """One fault. A test fills in what it measured; `outcome` is what became of the test, and a row without one never ran."""

    fault: str
    moment: str = ""
    in_flight: str = ""
    lost: int | None = None
    twice: int = 0
    seconds: float | None = None
    outcome: Literal["passed", "failed", "not run"] = "not run"
    reason: str = ""

    def measured(self, *, moment: str, in_flight: str, lost: int, twice: int = 0, seconds: float) -> None:
        """What was found. `moment` says when the fault struck, `lost` and `twice` count, `seconds` are those until service."""
        self.moment, self.in_flight, self.lost, self.twice, self.seconds = moment, in_flight, lost, twice, seconds

    def cells(self) -> list[str]:
        """The row as text. Only a test that passed may say what was lost."""
        if self.outcome == "passed" and self.lost is not None and self.seconds is not None:
            return [self.fault, self.moment, self.in_flight, str(self.lost), str(self.twice), f"{self.seconds:.1f} s"]
        return [self.fault, self.moment, self.in_flight, f"**{self.outcome}**", "", self.reason]


def render(rows: Sequence[Row], lines: Sequence[str]) -> str:
    """Markdown: `lines` about the run, how many rows passed, and the table."""
    passed = sum(row.outcome == "passed" for row in rows)
    said = "; ".join([*lines, f"{passed} of {len(rows)} rows passed"])
    return "\n".join([f"{said}.\n", _HEAD, *(f"| {' | '.join(row.cells())} |" for row in rows)])


def insert(file: Path, table: str, name: str = "faults") -> None:
    """Put `table` between the markers of that `name` in `file`. Raises ValueError where they are not, once each and in order."""
    opening, closing = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    text = file.read_text("utf-8")
    head, begin, rest = text.partition(opening)
    _, end, tail = rest.partition(closing)
    if not (begin and end):
        raise ValueError(f"{file.name} has no {opening} and {closing}")
    file.write_text(f"{head}{opening}\n{table}\n{closing}{tail}", "utf-8")
