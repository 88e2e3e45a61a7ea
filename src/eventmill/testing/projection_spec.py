"""Saying what a projection makes of events: `ProjectionSpec(app, "totals").given(…).then(totals=[…])`."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Self

from eventmill.app import App
from eventmill.backends.memory import MemoryBackend
from eventmill.core.message import Message, Partition, Recorded
from eventmill.core.rows import Row, Rows
from eventmill.patterns.projection.as_of import Fold

Expected = Sequence[Row | Mapping[str, object]]


class ProjectionSpec:
    """Events, and the rows that the projection of this name in an App makes of them, on a memory store of its own.

    Neither the App's store nor its broker is opened. The events are folded twice, one by one and all at once: a
    projection must not depend on how many of them come in one commit.
    """

    def __init__(self, app: App, name: str) -> None:
        self._projection = app.projections[name]
        self._envelopes = app.projections.ground.envelopes
        self._clock = app.clock
        self._messages: list[Message] = []

    def given(self, *events: object) -> Self:
        """These have happened, in this order, after those of earlier calls. A `Message` is taken as it is."""
        types = self._projection.types
        for event in events:
            message = self._envelopes(event)
            if types is not None and not types.accepts(message.type):
                raise AssertionError(f"projection {self._projection.name!r} has no method for {message.type}")
            self._messages.append(message)
        return self

    def then(self, **tables: Expected) -> Self:
        """The tables named hold these rows and no others, in any order; a row is a tuple, or a dict of its columns.

        Raises AssertionError that tells what is missing and what is too much. In a coroutine, use `check`.
        """
        asyncio.run(self.check(**tables))
        return self

    async def check(self, **tables: Expected) -> None:
        """The same, to be awaited."""
        unknown = sorted(set(tables) - set(self._projection.tables))
        if unknown:
            raise AssertionError(f"projection {self._projection.name!r} has no table {unknown[0]!r}")
        singly, together = await self._folded(1), await self._folded(max(1, len(self._messages)))
        for table in self._projection.tables:
            if Counter(singly[table]) != Counter(together[table]):
                raise AssertionError(
                    f"{table} depends on how many events come at once: one by one it is {sorted(singly[table], key=repr)}, "
                    f"in one commit {sorted(together[table], key=repr)}"
                )
        for table, expected in tables.items():
            _compare(table, expected, singly[table])

    def fails(self, error: type[Exception]) -> Self:
        """Folding them raises this; where it was published, the event would be retried, and its key would wait."""
        try:
            asyncio.run(self._folded(1))
        except error:
            return self
        raise AssertionError(f"projection {self._projection.name!r} takes these events without {error.__name__}")

    async def _folded(self, batch: int) -> dict[str, Rows]:
        async with MemoryBackend(self._clock) as store:
            fold = Fold(self._projection, store, self._envelopes)
            await fold.create()
            now = int(self._clock.now() * 1000)
            events = [
                Recorded(position, Partition(message.topic, 0), now, message)
                for position, message in enumerate(self._messages, 1)
            ]
            for start in range(0, len(events), batch):
                await fold.take_in(events[start : start + batch])
            return {table: await store.query(f'SELECT * FROM "{table}"') for table in self._projection.tables}  # noqa: S608


def _compare(table: str, expected: Expected, found: Rows) -> None:
    wanted = [_as_row(table, row, found.columns) for row in expected]
    missing, extra = Counter(wanted) - Counter(found), Counter(found) - Counter(wanted)
    if missing or extra:
        raise AssertionError(
            f"{table} ({', '.join(found.columns)}): missing {_listed(missing)}; too much {_listed(extra)}"
        )


def _as_row(table: str, row: Row | Mapping[str, object], columns: Sequence[str]) -> Row:
    if not isinstance(row, Mapping):
        return tuple(row)
    if set(row) != set(columns):
        raise AssertionError(f"{table} has the columns {', '.join(columns)}; the row given has {', '.join(row)}")
    return tuple(row[column] for column in columns)


def _listed(rows: Counter[Any]) -> str:
    return ", ".join(repr(row) for row in sorted(rows.elements(), key=repr)) or "nothing"
