"""The rows in which two generations of a projection differ."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from eventmill.core.errors import BehindError, ConfigurationError
from eventmill.core.message import Partition
from eventmill.core.rows import Row
from eventmill.patterns.projection.catch_up import lag_of
from eventmill.patterns.projection.generations import Generation, State
from eventmill.patterns.projection.reach import passed
from eventmill.patterns.projection.standing import Standing

LIMIT = 20
"""Rows that are told of each table, unless more are asked for."""

PATIENCE = 30.0
"""Seconds for both generations to take in what had been published when the first look was over."""

PAUSE = 0.05


@dataclass(frozen=True, slots=True)
class Change:
    """One row: as readers see it, and as they would after the swap; None where there is none of this key."""

    key: Row
    shown: Row | None
    other: Row | None


@dataclass(frozen=True, slots=True)
class Difference:
    """One table's. columns: the names of a row's values; note: why the rows could not be compared one by one.

    rows: how many differ, of which `changes` holds the first.
    """

    table: str
    columns: Sequence[str]
    key: Sequence[str]
    rows: int
    changes: Sequence[Change]
    note: str = ""

    @property
    def same(self) -> bool:
        """Whether readers would see no difference."""
        return not self.rows and not self.note


async def difference(view: Standing, *, number: int | None = None, limit: int = LIMIT) -> Sequence[Difference]:
    """Compare the live generation with another one, table by table; nothing is locked or written.

    Events go on to come in, so two looks are taken, and both generations have taken in everything of the first look
    before the second one: only what differs alike in both is a difference.
    number: of the other generation; by default the newest, or the one that was shown before.
    Raises BehindError where one of the two does not come so far, because nobody feeds it.
    """
    state = await view.state()
    other = _other(view, state, number)
    first = await _look(view, state.shown, other, limit)
    if all(each.same for each in first):
        return first
    await _both_past(view, (state.shown, other), await _now(view))
    second = await _look(view, state.shown, other, limit)
    return [_lasting(one, two) for one, two in zip(first, second, strict=True)]


def _other(view: Standing, state: State, number: int | None) -> Generation:
    if number is None:
        number = state.newest.number if state.newest is not None else state.previous
    if number is None or number == state.live or number not in state.generations:
        there = ", ".join(str(each) for each in sorted(state.generations) if each != state.live) or "none"
        raise ConfigurationError(
            f"projection {view.name!r}: there is no such generation to compare with the live one; others: {there}; "
            "build one with: eventmill projections rebuild APP --no-swap"
        )
    return state.generations[number]


async def _look(view: Standing, shown: Generation, other: Generation, limit: int) -> list[Difference]:
    found = []
    for table in sorted({*shown.tables, *other.tables}):
        if table not in shown.tables or table not in other.tables:
            where = shown.number if table in shown.tables else other.number
            found.append(Difference(table, (), (), 0, (), f"only generation {where} has this table"))
        else:
            found.append(await _compared(view, table, shown.placed.name(table), other.placed.name(table), limit))
    return found


async def _compared(view: Standing, table: str, shown: str, other: str, limit: int) -> Difference:
    store = view.ground.store
    columns = (await store.query(f'SELECT * FROM "{shown}" WHERE 1 = 0')).columns  # noqa: S608 - checked names
    theirs = (await store.query(f'SELECT * FROM "{other}" WHERE 1 = 0')).columns  # noqa: S608
    if columns != theirs:
        return Difference(table, columns, (), 0, (), f"other columns: {', '.join(columns)} became {', '.join(theirs)}")
    key = await store.primary_key(shown)
    if not key or list(key) != list(await store.primary_key(other)):
        key = columns
    # Both in one statement, so that they are of one moment.
    names = ", ".join(f'"{column}"' for column in columns)
    order = ", ".join(f'"{column}"' for column in key)
    both = (
        f'SELECT 0 AS eventmill_side, a.* FROM (SELECT {names} FROM "{shown}" EXCEPT SELECT {names} FROM "{other}") AS a'  # noqa: S608
        f" UNION ALL "
        f'SELECT 1 AS eventmill_side, b.* FROM (SELECT {names} FROM "{other}" EXCEPT SELECT {names} FROM "{shown}") AS b'
    )
    distinct = f"SELECT count(*) FROM (SELECT DISTINCT {order} FROM ({both}) AS c) AS d"  # noqa: S608
    ((rows,),) = await store.query(distinct)
    if not rows:
        return Difference(table, columns, key, 0, ())
    # Twice as many rows as keys: of each, what was and what would be.
    found = await store.query(f"SELECT * FROM ({both}) AS c ORDER BY {order}, eventmill_side LIMIT {2 * limit}")  # noqa: S608
    return Difference(table, columns, key, int(rows), _paired(found, columns, key)[:limit])


def _paired(rows: Sequence[Row], columns: Sequence[str], key: Sequence[str]) -> list[Change]:
    places = [columns.index(column) for column in key]
    sides: dict[Row, list[Row | None]] = {}
    for side, *row in rows:
        sides.setdefault(tuple(row[place] for place in places), [None, None])[side] = tuple(row)
    return [Change(key, shown, other) for key, (shown, other) in sides.items()]


def _lasting(first: Difference, second: Difference) -> Difference:
    """What is in both looks. Where neither was told whole, the second look's count is the best there is."""
    if first.note or first.same or second.same or second.rows > len(second.changes):
        return second if not first.same else first
    changes = [change for change in second.changes if change in first.changes or first.rows > len(first.changes)]
    return Difference(second.table, second.columns, second.key, len(changes), changes)


async def _now(view: Standing) -> Mapping[Partition, int]:
    topics = view.projection.topics(await view.ground.source.topics())
    return {part: end for part, end in (await view.ground.source.end()).items() if part.topic in topics}


async def _both_past(view: Standing, generations: Sequence[Generation], ends: Mapping[Partition, int]) -> None:
    loop = asyncio.get_running_loop()
    until = loop.time() + PATIENCE
    for generation in generations:
        group = view.ledger.group(generation.number)
        while not await passed(view.ground.source, await view.ground.store.cursors(group), ends, view.projection.types):
            lag = await lag_of(view, generation.number)
            if not lag.members or loop.time() > until:
                raise BehindError(
                    f"the generations differ, but one of them is behind the log: {lag}",
                    events=lag.events, seconds=lag.seconds,
                )  # fmt: skip
            await asyncio.sleep(PAUSE)
