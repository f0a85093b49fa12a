"""pandas in and out: a Series of texts, and results as a DataFrame. pandas is imported when it is needed, and only then."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeGuard, cast

from ..contracts import Contract
from ..errors import InvalidRequest, MlaasError
from .capabilities import Capability, of_result

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["column_of", "filled_rows", "frame_of", "is_pandas", "to_frame"]


def is_pandas(texts: object) -> TypeGuard[pd.Series[Any] | pd.DataFrame]:
    """Whether this is a Series or a DataFrame; nothing is imported to find out."""
    return type(texts).__module__.partition(".")[0] == "pandas"


def column_of(texts: pd.Series[Any] | pd.DataFrame, column: str | None) -> pd.Series[Any]:
    """The texts. Raises InvalidRequest where a DataFrame has no such column."""
    pandas = _pandas()
    if isinstance(texts, pandas.DataFrame):
        if column is None or column not in texts.columns:
            known = ", ".join(f"`{name}`" for name in texts.columns[:20])
            detail = "which column has the texts?" if column is None else f"the DataFrame has no column `{column}`"
            raise InvalidRequest(detail, field="column", remedy=f"Name one of {known}.")
        return cast("pd.Series[Any]", texts[column])
    return cast("pd.Series[Any]", texts)


def filled_rows(texts: pd.Series[Any]) -> list[int]:
    """The positions of texts that are not missing. Raises InvalidRequest, naming the row, for what is no text."""
    there = texts.notna().to_numpy()
    rows = [row for row in range(len(texts)) if there[row]]
    for row in rows:
        if not isinstance(texts.iloc[row], str):
            kind = type(texts.iloc[row]).__name__
            raise InvalidRequest(f"row {row} is no text but a {kind}", field="texts", remedy="Make it one: series.astype(str).")
    return rows


def frame_of(capability: Capability[..., Any, Any], items: Iterable[Any], rows: Sequence[int], index: Any) -> pd.DataFrame:
    """The DataFrame of what the texts at the positions `rows` of `index` gave.

    It has the same index; with any number of rows for a text (documents found, entities) each row has the text's index.
    """
    pandas = _pandas()
    positions, found = [], []
    for position, item in zip(rows, items, strict=True):
        made = capability.rows(item)
        positions += [position] * len(made)
        found += made
    columns = list(capability.columns) or list(found[0] if found else ())
    frame: pd.DataFrame = pandas.DataFrame(found, columns=columns, index=pandas.Index(positions))
    if not capability.many:
        frame = frame.reindex(range(len(index)))  # a missing text has a row of nothing
        frame.index = index
        return frame
    frame.index = index.take(positions)
    return frame


def to_frame(result: Contract, index: Any = None) -> pd.DataFrame:
    """The result of a prediction as a DataFrame: a row for each text, or for each document found and each entity.

    `index` are the rows' names, one for each text; 0, 1, ... by default.
    """
    capability = of_result(result)
    items = capability.items(result)
    pandas = _pandas()
    names = pandas.RangeIndex(len(items)) if index is None else pandas.Index(index)
    return frame_of(capability, items, range(len(items)), names)


def _pandas() -> Any:
    try:
        import pandas
    except ImportError:
        raise MlaasError("pandas is not installed", remedy="Install it: pip install 'mlaas[pandas]'.") from None
    return pandas
