"""The log by stream, by tag, and as a whole."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from eventmill.backends.postgres.database import Database
from eventmill.backends.postgres.values import Value, number, text
from eventmill.backends.sql.reading import SCAN, bounded
from eventmill.backends.sql.rows import numbered
from eventmill.backends.sql.selection import filters, matching, tagged
from eventmill.core.message import Recorded
from eventmill.core.reading import Types
from eventmill.core.stream import Query, StoredEvent, Stream

LAST = (1 << 63) - 1
"""No version or position is beyond it."""


class Places:
    """Placeholders from `$first` on, and what stands for them."""

    def __init__(self, first: int) -> None:
        self._first = first
        self.values: list[Value] = []

    def __call__(self, value: str | int) -> str:
        self.values.append(text(value) if isinstance(value, str) else number(value))
        return f"${self._first + len(self.values) - 1}" + ("" if isinstance(value, str) else "::bigint")


class PostgresStreams(Database):
    """Streams."""

    async def read_stream(
        self, stream: Stream, *, after: int = 0, upto: int | None = None, limit: int, backward: bool = False
    ) -> Sequence[Recorded]:
        bounds = [number(after), number(LAST if upto is None else upto), number(max(0, limit))]
        name = "stream_backward" if backward else "stream"
        return numbered(await self.server.reader.fetch(name, [text(stream.topic), text(stream.key), *bounds]))

    async def events(
        self, stream: Stream, *, after: int = 0, upto: int | None = None, limit: int
    ) -> Sequence[StoredEvent]:
        bounds = [number(after), number(LAST if upto is None else upto), number(max(0, limit))]
        return await self.server.reader.fetch("events", [text(stream.topic), text(stream.key), *bounds])

    async def version(self, stream: Stream) -> int:
        rows = await self._fetch("version", text(stream.topic), text(stream.key))
        return int(rows[0][0]) if rows else 0

    async def read_all(
        self,
        *,
        after: int = 0,
        limit: int,
        max_bytes: int = 16 << 20,
        types: Types | None = None,
        topics: Collection[str] | None = None,
        queries: Sequence[Query] | None = None,
    ) -> tuple[Sequence[Recorded], int]:
        server = self.server
        await server.tail.look()
        # No further than where nothing lower can still appear.
        end = server.tail.end
        if limit < 1 or end <= after:
            return (), after
        place = Places(4)
        if queries and all(query.tags for query in queries):
            name, condition = "read_tagged", self._tagged(queries, types, topics, place)
        else:
            name, condition = "read_all", filters(place, types, topics)
            if queries is not None:
                condition += f" AND {matching(queries, place, self._tags)}"
            if place.values or queries is not None or topics is not None or types is not None:
                # So that a read stays short however rare its types are.
                end = min(end, after + SCAN)
        rows = await server.reader.fetch(
            name, [number(after), number(end), number(limit), *place.values], condition=condition.encode()
        )
        return bounded(rows, after, end, limit=limit, max_bytes=max_bytes)

    @property
    def _tags(self) -> str:
        return f"{self.address.quoted}.eventmill_tags"

    def _tagged(
        self, queries: Sequence[Query], types: Types | None, topics: Collection[str] | None, place: Places
    ) -> str:
        parts = []
        for query in queries:
            condition = f"{tagged(query, place, self._tags)} AND {filters(place, types, topics)}"
            parts.append(
                f"(SELECT t.position FROM {self._tags} AS t "  # noqa: S608 - the address' own name, and placeholders
                f"JOIN {self.address.quoted}.eventmill_log AS l ON l.position = t.position "
                f"WHERE {condition} AND t.position > $1 AND t.position <= $2 ORDER BY t.position LIMIT $3)"
            )
        return " UNION ".join(parts)

    async def streams(self, topic: str, *, after: str = "", limit: int) -> Sequence[tuple[Stream, int]]:
        rows = await self._fetch("streams", text(topic), text(after), number(max(0, limit)))
        return [(Stream(topic, key), version) for key, version in rows]
