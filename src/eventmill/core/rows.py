"""What an SQL statement takes and gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Row = tuple[Any, ...]
SqlParameters = Sequence[object] | Mapping[str, object]


class Rows(list[Row]):
    """The rows of a statement; `rowcount` is how many it changed, `columns` their names."""

    rowcount: int = -1
    columns: tuple[str, ...] = ()
