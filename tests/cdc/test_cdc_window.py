"""What a chunk leaves out for what the stream has told meanwhile, and how little is kept for that."""

from __future__ import annotations

import asyncio
from typing import Any

from eventmill.core.changes import Begin, Chunk, Column, Commit, RowChange, Shape
from eventmill.core.limits import Limits
from eventmill.core.registry import Registry
from eventmill.patterns.cdc.change import declare
from eventmill.patterns.cdc.messages import Translator
from eventmill.patterns.cdc.progress import Copied, Progress
from eventmill.patterns.cdc.teller import Teller
from eventmill.patterns.cdc.window import Window

SHAPE = Shape(table="t", name="public.t", columns=(Column("id", "integer"), Column("big", "text")), key=("id",))


class Seen:
    """A view that sees these transactions."""

    def __init__(self, *transactions: int) -> None:
        self._seen = transactions

    def saw(self, transaction: int) -> bool:
        return transaction in self._seen

    forgettable = saw


def chunk(view: Seen, *keys: int) -> Chunk:
    return Chunk([((key,), {"id": key}) for key in keys], (str(keys[-1]),), False, view, SHAPE)


def test_rows_are_left_out_for_changes_that_the_chunk_has_not_seen() -> None:
    window = Window("t")
    window.changed((1,), 10)
    window.changed((2,), 11)
    read = chunk(Seen(10), 1, 2, 3, 4)
    window.read(read)
    window.changed((3,), 12)
    window.changed((4,), 10)
    assert [key for key, _ in window.rows(read)] == [(1,), (4,)]
    window.truncated(10)
    assert [key for key, _ in window.rows(read)] == [(1,), (4,)]
    window.truncated(13)
    assert list(window.rows(read)) == []


def test_however_much_is_told_while_a_chunk_waits_little_is_kept() -> None:
    window = Window("t")
    for key in range(10_000):
        window.changed((key,), 10)
    window.read(chunk(Seen(10, 11), 1, 2))
    for key in range(10_000):
        assert not window.changed((key,), 11)
        assert window.changed((key,), 12) == (key in (1, 2))
    assert len(window._changes) == 2


def teller(asked: list[Any]) -> Teller:
    async def fill(shape: Shape, key: Any, columns: Any) -> dict[str, Any]:
        asked.append((key, columns))
        return dict.fromkeys(columns, "large")

    registry = Registry()
    declare(registry, "c", ["t"])
    translator = Translator(
        source="s", capture="c", epoch="e", tables=["t"], order="row", limits=Limits(), registry=registry
    )
    progress = Progress(epoch="e", position=1, tables={"t": Copied(state="copying")})
    return Teller(translator, progress, {"t": SHAPE}, fill)


def update(key: int) -> RowChange:
    return RowChange("t", "update", (key,), None, {"id": key}, ("big",))


def test_large_values_are_asked_for_only_where_a_row_may_be_left_out() -> None:
    asked: list[Any] = []
    told = teller(asked)
    window = Window("t")
    window.read(chunk(Seen(7), 1, 2))
    told.windows.append(window)

    async def main() -> None:
        for position, transaction in ((10, 7), (20, 8)):
            await told.tell(Begin(position, transaction, 0), 0)
            for key in (1, 3):
                await told.tell(update(key), 0)
            await told.tell(Commit(position + 1), 0)

    asyncio.run(main())
    assert asked == [((1,), ("big",))]
    assert [b'"unchanged"' in message.data for message in told.messages] == [True, True, False, True]


def test_a_transaction_counts_as_told_from_its_beginning() -> None:
    """It may be large: a chunk that is read while it is told, and does not see it yet, would tell older rows after it."""
    told = teller([])

    async def main() -> None:
        await told.tell(Begin(10, 7, 0), 0)
        await told.tell(update(1), 0)
        await told.tell(update(2), 0)

    asyncio.run(main())
    assert not told.recent.all_seen_by(Seen(6))
    assert told.recent.all_seen_by(Seen(7))
