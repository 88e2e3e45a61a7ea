"""Changes captured from somebody else's database: what a source hands over, and what it must be able to do.

A source's `position` is a number that only grows in the order of its commits: an LSN on PostgreSQL, the number of a
change on SQLite. Everything before a position is done once it is confirmed, and what begins at or after it is not.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Literal, Protocol

import msgspec

Row = dict[str, Any]
"""Column names and values that JSON can hold."""

Key = tuple[Any, ...]
"""The values of a row's key columns, in the order of `Shape.key`."""

Identity = Literal["default", "full", "index", "nothing"]
"""What a source writes down of a row that is updated or deleted: its primary key, the whole row, an index, nothing."""


class Column(msgspec.Struct, frozen=True, omit_defaults=True):
    """A column. type: as the source's SQL calls it."""

    name: str
    type: str


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """A table as it was at some position. key: the columns that tell its rows apart; identity: see `Identity`.

    table: its name as it was declared, which stays; name: its present name in the source; id: the source's own number
    of it, which survives a renaming (0 where there is none).
    """

    table: str
    name: str
    id: int = 0
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    identity: Identity = "default"


class Begin(msgspec.Struct, gc=False):
    """A transaction begins. position: of its commit. at: when it committed, in microseconds since 1970 UTC."""

    position: int
    transaction: int
    at: int


class Commit(msgspec.Struct, gc=False):
    """It is complete. position: where to go on after it."""

    position: int


class RowChange(msgspec.Struct, gc=False):
    """One row. before: as far as the table's identity tells it. unchanged: columns whose (large) values the source has
    not sent since they are what they were. moved_from: the former key, where the key itself was changed."""

    table: str
    op: Literal["insert", "update", "delete"]
    key: Key
    before: Row | None
    after: Row | None
    unchanged: tuple[str, ...] = ()
    moved_from: Key | None = None


class Truncated(msgspec.Struct, gc=False):
    """Every row of a table is gone."""

    table: str


class Reshaped(msgspec.Struct):
    """From here on, a table's rows have another shape; never an incompatible one. former: None where it was unknown."""

    shape: Shape
    former: Shape | None


class Emitted(msgspec.Struct, gc=False):
    """A message written into the source's log without a table. position: its own, outside of any transaction, or None."""

    prefix: str
    content: bytes
    position: int | None


class Marked(msgspec.Struct, gc=False):
    """The stream has come to the mark that `Source.mark` set."""

    mark: str


class Passed(msgspec.Struct, gc=False):
    """Nothing of interest lies before this position."""

    position: int


Entry = Begin | Commit | RowChange | Truncated | Reshaped | Emitted | Marked | Passed


class View(Protocol):
    """What a reader of a table's rows could see: the effects of some transactions, and not of others."""

    def saw(self, transaction: int) -> bool:
        """Whether the effects of this transaction, which has committed, were visible."""
        ...

    def forgettable(self, transaction: int) -> bool:
        """Whether this and every later view sees the transaction."""
        ...


class Chunk(msgspec.Struct):
    """Rows of a table after some key, in its order. last: where the next chunk begins. final: there are no more.

    shape: the table's as its reader saw it, which the stream may not have told yet.
    """

    rows: Sequence[tuple[Key, Row]]
    last: tuple[str, ...] | None
    final: bool
    view: View
    shape: Shape


class Health(msgspec.Struct, omit_defaults=True):
    """How a source keeps what was not confirmed yet. retained: bytes it keeps for this capture. status: its own word.

    head, confirmed: positions in its log, which count `unit`s.
    gap: why changes of some table are not kept any more, in words that name it; empty where all are.
    """

    present: bool
    active: bool = False
    retained: int = 0
    confirmed: int = 0
    head: int = 0
    status: str = ""
    lost: bool = False
    gap: str = ""
    unit: str = "bytes"


def renamed_columns(before: Sequence[Column], after: Sequence[Column]) -> list[tuple[str, str]]:
    """Former and new names, where as many columns are there as before, and the same place has the same type and a new name.

    A guess: sources tell columns by their names only.
    """
    if len(before) != len(after):
        return []
    former = {column.name for column in before}
    present = {column.name for column in after}
    return [
        (old.name, new.name)
        for old, new in zip(before, after, strict=True)
        if old.name != new.name and old.type == new.type and old.name not in present and new.name not in former
    ]


class Stream(Protocol):
    """Changes in commit order, from the position it was opened at. To be closed by leaving its `async with`."""

    async def read(self, limit: int, timeout: float) -> Sequence[Entry]:
        """The next entries, about `limit` at most; none when the time (seconds) is up.

        Raises BackendUnavailableError where the source is away, ConfigurationError for a change that the capture
        cannot live with (a primary key dropped), naming table and column.
        """
        ...

    def confirm(self, position: int) -> None:
        """What lies before this position is durable here; the source need not keep it. Never waits."""
        ...


class Source(Protocol):
    """A database whose tables can be captured. name: the capture's, in all that the source keeps for it."""

    async def inspect(self, tables: Sequence[str]) -> Sequence[Shape]:
        """The tables' shapes, with what cannot be captured refused: ConfigurationError, with the remedy."""
        ...

    async def estimate(self, shape: Shape) -> int:
        """About how many rows a table has."""
        ...

    async def prepare(self, name: str, shapes: Sequence[Shape], *, anew: bool) -> int:
        """Have the source keep changes of these tables from now on; returns the position to begin at.

        anew: what it kept for this name before is dropped. Otherwise that is refused where there is any.
        """
        ...

    async def adjust(self, name: str, shapes: Sequence[Shape], kept: Sequence[Shape]) -> None:
        """Capture exactly these tables from now on, on what `prepare` made.

        kept: those of them that were captured before, as they were then. Raises ConfigurationError where changes of one
        of them were not kept.
        """
        ...

    async def remove(self, name: str, tables: Sequence[str]) -> None:
        """Remove everything that was made for this name. What is not there is no error."""
        ...

    async def health(self, name: str, shapes: Collection[Shape] = ()) -> Health:
        """How much the source keeps, and whether it still does, for these tables."""
        ...

    def stream(
        self, name: str, position: int, shapes: Mapping[str, Shape], prefixes: Collection[str]
    ) -> AbstractAsyncContextManager[Stream]:
        """Open the stream where everything before `position` is done.

        shapes: by declared name, as they were at that position. prefixes: of emitted messages to hand on.
        Raises ConfigurationError where the source does not have everything after the position any more.
        """
        ...

    async def chunk(self, name: str, shape: Shape, after: Sequence[str] | None, limit: int) -> Chunk:
        """The next rows after a key (its values as text), read in one short transaction."""
        ...

    async def mark(self, name: str, mark: str) -> None:
        """Write a mark which the stream comes to after all that any earlier view has seen."""
        ...

    async def values(self, shape: Shape, key: Key, columns: Sequence[str]) -> Row | None:
        """Present values of some columns of one row, or None where it is gone."""
        ...

    async def close(self) -> None:
        """Release connections. Never raises for a source that is gone."""
        ...
