"""The log: appended to by the writers, read forward from a position."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Collection, Mapping, Sequence
from functools import lru_cache

from eventmill.backends.postgres.append import prepare
from eventmill.backends.postgres.database import Database
from eventmill.backends.postgres.values import Value, int4s, int8s, number, text, texts
from eventmill.backends.sql.prepared import PreparedMessage
from eventmill.backends.sql.reading import page, rearmost
from eventmill.core.errors import ConfigurationError, MessageError
from eventmill.core.feed import LogSubscriber
from eventmill.core.message import Message, Partition
from eventmill.core.reading import Page, Pending, Trimmed, Types

TRIM_BATCH = 1_000


class PostgresLog(Database, LogSubscriber):
    """Publisher and Log."""

    def publish(self, messages: Sequence[Message]) -> Awaitable[Sequence[int]]:
        server = self.server
        try:
            prepared = prepare(messages)
        except MessageError as error:
            # A message is refused where the caller awaits, as with any backend.
            refused: asyncio.Future[Sequence[int]] = asyncio.get_running_loop().create_future()
            refused.set_exception(error)
            return refused
        if server.topics.known(prepared):
            return server.publishes.stage(prepared)
        return self._learn_and_publish(prepared)

    async def _learn_and_publish(self, prepared: Sequence[PreparedMessage]) -> Sequence[int]:
        await self.server.topics.learn(prepared)
        return await self.server.publishes.stage(prepared)

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
        missing = {topic: partitions for topic, partitions in topics.items() if topic not in known}
        if missing:
            await self.server.topics.declare(missing)
            await self.declare(topics)  # another process may have been first, with other counts

    async def topics(self) -> Mapping[str, int]:
        return dict(await self.server.topics.look())

    async def end(self) -> Mapping[Partition, int]:
        return {Partition(topic, part): position for topic, part, position in await self._scan("ends", ())}

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
        server = self.server
        tail = server.tail
        moved = {partition: position for partition, position in after.items() if tail.moved(partition, position)}
        if not moved:
            await tail.look()
            moved = {partition: position for partition, position in after.items() if tail.moved(partition, position)}
        if not moved:
            return Page((), {partition: tail.end for partition, position in after.items() if position < tail.end})
        span = rearmost(moved, tail.end)
        condition, values = _condition(span.partitions, types, 4)
        rows = await server.reader.fetch(
            "read", [number(span.after), number(span.end), number(limit), *values], condition=condition.encode()
        )
        return page(span, rows, limit=limit, max_bytes=max_bytes)

    async def pending(self, after: Mapping[Partition, int], types: Types | None = None) -> Pending:
        places: dict[int, list[Partition]] = {}
        for partition, position in after.items():
            places.setdefault(position, []).append(partition)
        messages, oldest = 0, None
        for position, partitions in places.items():
            condition, values = _condition(tuple(sorted(partitions)), types, 2)
            ((found, first),) = await self._scan("pending", [number(position), *values], condition)
            messages += found
            oldest = first if oldest is None or (first is not None and first < oldest) else oldest
        return Pending(messages, oldest)

    async def report(self, group: str, after: Mapping[Partition, int]) -> None:
        if not after:
            await self._fetch("forget_watermarks", text(group))
            return
        await self._fetch(
            "report",
            text(group),
            texts([partition.topic for partition in after]),
            int4s([partition.number for partition in after]),
            int8s(list(after.values())),
        )

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
        end = 0
        if older_than is not None:
            before = self.now() - int(older_than * 1000)
            end = max(end, (await self._scan("trim_by_age", [text(topic), number(before)]))[0][0])
        if max_bytes is not None:
            end = max(end, (await self._scan("trim_by_bytes", [text(topic), number(max_bytes)]))[0][0])
        slowest = await self._fetch("slowest", text(topic))
        held_by = held_at = None
        if slowest and slowest[0][1] < end and not force:
            held_by, held_at = slowest[0]
            end = held_at
        await self._scan("note_horizon", [text(topic), number(end)])
        removed = at = 0
        while True:
            ((count, last),) = await self._scan("trim", [text(topic), number(at), number(end), number(TRIM_BATCH)])
            removed += count
            at = max(at, last)
            if count < TRIM_BATCH:
                return Trimmed(removed, held_by, held_at)

    async def trimmed(self, topics: Collection[str]) -> Mapping[str, int]:
        return dict(await self._fetch("horizons", texts(sorted(topics))))


@lru_cache(256)
def _condition(partitions: tuple[Partition, ...], types: Types | None, first: int) -> tuple[str, list[Value]]:
    """The WHERE clause for some partitions and types, its parameters numbered from `first`.

    Only numbers and placeholders are written into it.
    """
    topics: dict[str, list[int]] = {}
    for partition in partitions:
        topics.setdefault(partition.topic, []).append(partition.number)
    values: list[Value] = []

    def place(value: Value) -> str:
        values.append(value)
        return f"${first + len(values) - 1}"

    choices = [
        f"(topic = {place(text(topic))} AND partition = ANY ({place(int4s(numbers))}))"
        for topic, numbers in topics.items()
    ]
    condition = f"({' OR '.join(choices)})"
    if types is not None:
        wanted = [f"type = ANY ({place(texts(sorted(types.names)))})"] if types.names else []
        wanted += [f"starts_with(type, {place(text(prefix))})" for prefix in sorted(types.prefixes)]
        condition += f" AND ({' OR '.join(wanted) or 'false'})"
    return condition, values
