"""The log: appended to by the writer, read forward from a position."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Awaitable, Collection, Mapping, Sequence
from functools import lru_cache

from eventmill.backends.sql.reading import page, rearmost
from eventmill.backends.sqlite.connection import translated
from eventmill.backends.sqlite.database import Database
from eventmill.backends.sqlite.open_file import STATEMENTS
from eventmill.core.errors import ConfigurationError, MessageError
from eventmill.core.feed import LogSubscriber
from eventmill.core.message import Message, Partition
from eventmill.core.reading import Page, Pending, Trimmed, Types

TRIM_BATCH = 1_000


class SqliteLog(Database, LogSubscriber):
    """Publisher and Log."""

    def publish(self, messages: Sequence[Message]) -> Awaitable[Sequence[int]]:
        try:
            return self.writer.stage(messages)
        except MessageError as error:
            # A message is refused where the caller awaits, as with any backend.
            refused: asyncio.Future[Sequence[int]] = asyncio.get_running_loop().create_future()
            refused.set_exception(error)
            return refused

    async def declare(self, topics: Mapping[str, int]) -> None:
        known = await self.topics()
        for topic, partitions in topics.items():
            if partitions < 1:
                raise ConfigurationError(f"topic {topic!r}: {partitions} partitions; at least 1 is needed")
            if known.get(topic, partitions) != partitions:
                raise ConfigurationError(
                    f"topic {topic!r} has {known[topic]} partitions, {partitions} were declared: "
                    "the count cannot change, because the order of its keys hangs on it"
                )
        missing = [(topic, partitions) for topic, partitions in topics.items() if topic not in known]
        if missing:
            await self._write(lambda connection: connection.executemany(STATEMENTS["declare"], missing))
            await self.declare(topics)  # another process may have been first, with other counts

    @translated
    async def topics(self) -> Mapping[str, int]:
        return dict(self.reader.execute(STATEMENTS["topics"]).fetchall())

    async def end(self) -> Mapping[Partition, int]:
        rows = await self._scan(lambda connection: connection.execute(STATEMENTS["ends"]).fetchall())
        return {Partition(topic, number): position for topic, number, position in rows}

    @translated
    async def read(
        self,
        after: Mapping[Partition, int],
        *,
        limit: int,
        max_bytes: int = 16 << 20,
        types: Types | None = None,
    ) -> Page:
        if not after or limit < 1:
            return Page((), {})
        tail = self.file.tail
        tail.look()
        moved = {partition: position for partition, position in after.items() if tail.moved(partition, position)}
        if not moved:
            return Page((), {partition: tail.end for partition, position in after.items() if position < tail.end})
        span = rearmost(moved, tail.end)
        condition, parameters = _condition(span.partitions, types)
        statement = STATEMENTS["read"].replace("{condition}", condition)
        cursor = self.reader.execute(statement, (span.after, span.end, *parameters, limit))
        found = page(span, cursor, limit=limit, max_bytes=max_bytes)
        cursor.close()
        return found

    async def pending(self, after: Mapping[Partition, int], types: Types | None = None) -> Pending:
        places: dict[int, list[Partition]] = {}
        for partition, position in after.items():
            places.setdefault(position, []).append(partition)

        def count(connection: sqlite3.Connection) -> Pending:
            messages, oldest = 0, None
            for position, partitions in places.items():
                condition, parameters = _condition(tuple(sorted(partitions)), types)
                statement = STATEMENTS["pending"].replace("{condition}", condition)
                number, first = connection.execute(statement, (position, *parameters)).fetchone()
                messages += number
                oldest = first if oldest is None or (first is not None and first < oldest) else oldest
            return Pending(messages, oldest)

        return await self._scan(count)

    async def report(self, group: str, after: Mapping[Partition, int]) -> None:
        if not after:
            await self._write(lambda connection: connection.execute(STATEMENTS["forget_watermarks"], (group,)))
            return
        rows = [(group, partition.topic, partition.number, position) for partition, position in after.items()]
        await self._write(lambda connection: connection.executemany(STATEMENTS["report"], rows))

    @translated
    async def trim(
        self,
        topic: str,
        *,
        older_than: float | None = None,
        max_bytes: int | None = None,
        force: bool = False,
    ) -> Trimmed:
        if older_than is None and max_bytes is None:
            raise ConfigurationError("trim: say older_than (seconds), max_bytes, or both")
        before = self.now() - int(older_than * 1000) if older_than is not None else None

        def target(connection: sqlite3.Connection) -> tuple[int, str | None, int | None]:
            found = [0]
            if before is not None:
                bound = (1 << 62,)
                found.append(connection.execute(STATEMENTS["trim_by_age"], (topic, before, *bound)).fetchone()[0] or 0)
            if max_bytes is not None:
                found.append(connection.execute(STATEMENTS["trim_by_bytes"], (topic, max_bytes)).fetchone()[0] or 0)
            slowest = connection.execute(STATEMENTS["slowest"], (topic,)).fetchone()
            end = max(found)
            if slowest and slowest[1] < end and not force:
                return slowest[1], slowest[0], slowest[1]
            return end, None, None

        end, held_by, held_at = await self._scan(target)
        removed = 0
        while batch := self.reader.execute(STATEMENTS["trim_batch"], (topic, end, TRIM_BATCH)).fetchall():
            first, last = batch[0][0], batch[-1][0]
            await self._write(lambda connection, span=(topic, first, last): _remove(connection, span))  # type: ignore[misc]
            removed += len(batch)
        return Trimmed(removed, held_by, held_at)

    @translated
    async def trimmed(self, topics: Collection[str]) -> Mapping[str, int]:
        return dict(self.reader.execute(STATEMENTS["horizons"], (json.dumps(sorted(topics)),)).fetchall())


def _remove(connection: sqlite3.Connection, span: tuple[str, int, int]) -> None:
    connection.execute(STATEMENTS["note_sequences"], span)
    connection.execute(STATEMENTS["note_trimmed"], (span[2],))
    connection.execute(STATEMENTS["forget_trimmed"], (span[2],))
    connection.execute(STATEMENTS["note_horizon"], (span[0], span[2]))
    connection.execute(STATEMENTS["trim_tags"], span)
    connection.execute(STATEMENTS["trim"], span)


@lru_cache(256)
def _condition(partitions: tuple[Partition, ...], types: Types | None) -> tuple[str, list[object]]:
    """The WHERE clause for some partitions and types. Only numbers and placeholders are written into it."""
    topics: dict[str, list[int]] = {}
    for partition in partitions:
        topics.setdefault(partition.topic, []).append(partition.number)
    parameters: list[object] = []
    choices = []
    for topic, numbers in topics.items():
        choices.append(f"(topic = ? AND partition IN ({','.join(map(str, numbers))}))")
        parameters.append(topic)
    condition = f"({' OR '.join(choices)})"
    if types is not None:
        wanted = ["type IN (SELECT value FROM json_each(?))"] if types.names else []
        if types.names:
            parameters.append(json.dumps(sorted(types.names)))
        for prefix in sorted(types.prefixes):
            wanted.append("substr(type, 1, ?) = ?")
            parameters += [len(prefix), prefix]
        condition += f" AND ({' OR '.join(wanted) or '0'})"
    return condition, parameters
