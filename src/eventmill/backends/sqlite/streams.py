"""The log by stream, by tag, and as a whole."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence

from eventmill.backends.sql.reading import SCAN, bounded
from eventmill.backends.sql.rows import numbered
from eventmill.backends.sql.selection import filters, matching, tagged
from eventmill.backends.sqlite.connection import translated
from eventmill.backends.sqlite.database import Database
from eventmill.backends.sqlite.open_file import STATEMENTS
from eventmill.core.message import Recorded
from eventmill.core.reading import Types
from eventmill.core.stream import Query, StoredEvent, Stream

LAST = (1 << 63) - 1
"""No version or position is beyond it."""


class SqliteStreams(Database):
    """Streams. Reads of pages that are nearly always cached: they run on the event loop, as the log's do."""

    @translated
    async def read_stream(
        self, stream: Stream, *, after: int = 0, upto: int | None = None, limit: int, backward: bool = False
    ) -> Sequence[Recorded]:
        statement = STATEMENTS["stream_backward" if backward else "stream"]
        topic, key = stream
        rows = self.reader.execute(statement, (topic, key, after, LAST if upto is None else upto, limit))
        return numbered(rows.fetchall())

    @translated
    async def events(
        self, stream: Stream, *, after: int = 0, upto: int | None = None, limit: int
    ) -> Sequence[StoredEvent]:
        topic, key = stream
        bounds = (topic, key, after, LAST if upto is None else upto, limit)
        return self.reader.execute(STATEMENTS["events"], bounds).fetchall()

    @translated
    async def version(self, stream: Stream) -> int:
        return int(self.reader.execute(STATEMENTS["version"], stream).fetchone()[0])

    @translated
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
        reader = self.reader
        # The head first: what is committed after that is for the next time.
        end = int(reader.execute(STATEMENTS["head"]).fetchone()[0])
        if limit < 1 or end <= after:
            return (), after
        parameters: list[str | int] = []

        def place(value: str | int) -> str:
            parameters.append(value)
            return "?"

        condition = filters(place, types, topics)
        if queries is not None:
            if queries and all(query.tags for query in queries):
                return self._tagged(queries, types, topics, after, end, limit, max_bytes)
            condition += f" AND {matching(queries, place, 'eventmill_tags')}"
        if condition != "1 = 1":
            # So that a read stays short however rare its types are.
            end = min(end, after + SCAN)
        rows = reader.execute(
            STATEMENTS["read_all"].replace("{condition}", condition), (*parameters, after, end, limit)
        )
        return bounded(rows, after, end, limit=limit, max_bytes=max_bytes)

    def _tagged(
        self,
        queries: Sequence[Query],
        types: Types | None,
        topics: Collection[str] | None,
        after: int,
        end: int,
        limit: int,
        max_bytes: int,
    ) -> tuple[Sequence[Recorded], int]:
        """By the tags' own order: the first few of each query, then the first few of those."""
        parameters: list[str | int] = []

        def place(value: str | int) -> str:
            parameters.append(value)
            return "?"

        first = []
        for query in queries:
            condition = tagged(query, place, "eventmill_tags")
            condition += f" AND {filters(place, types, topics)}"
            condition += f" AND t.position > {place(after)} AND t.position <= {place(end)}"
            statement = STATEMENTS["tagged"].replace("{condition}", condition)
            first.append(statement.replace("{limit}", place(limit)))
        condition = f"l.position IN ({' UNION '.join(first)})"
        rows: sqlite3.Cursor = self.reader.execute(
            STATEMENTS["read_all"].replace("{condition}", condition), (*parameters, after, end, limit)
        )
        return bounded(rows, after, end, limit=limit, max_bytes=max_bytes)

    @translated
    async def streams(self, topic: str, *, after: str = "", limit: int) -> Sequence[tuple[Stream, int]]:
        rows = self.reader.execute(STATEMENTS["streams"], (topic, after, limit))
        return [(Stream(topic, key), version) for key, version in rows]
