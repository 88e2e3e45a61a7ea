"""Appending: positions, sequences, partitions and lanes, decided under the write lock."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence

from eventmill.backends.sql.prepared import PreparedMessage
from eventmill.backends.sql.rows import job_row
from eventmill.core.clock import Clock
from eventmill.core.job import Job
from eventmill.core.partition import DEFAULT_PARTITIONS, partition_of
from eventmill.core.stream import Stream, closing


class Appender:
    """Writes messages and jobs inside the open transaction of one connection.

    What it remembers of earlier appends, the last position and how streams stand, holds as long as no other connection
    has committed: `PRAGMA data_version` tells, under the write lock, for sure.
    """

    def __init__(self, connection: sqlite3.Connection, statements: dict[str, str], clock: Clock) -> None:
        self.connection = connection
        self.sql = statements
        self._clock = clock
        self._version = -1
        self._head = 0
        self._partitions: dict[str, int] = {}
        self._versions: dict[tuple[str, str], int] = {}
        self._open: set[Stream] = set()

    def forget(self) -> None:
        """A rollback: what was remembered may never have been."""
        self._version = -1
        self._partitions.clear()
        self._versions.clear()
        self._open.clear()

    @property
    def head(self) -> int:
        """The last position given, as of the last `refresh`."""
        return self._head

    # Streams, as the write lock sees them

    def version(self, stream: Stream) -> int:
        """The version of a stream's last written event."""
        version = self._versions.get(stream)
        if version is None:
            version = self.connection.execute(self.sql["version"], stream).fetchone()[0]
            self._versions[stream] = version
        return version

    def closed(self, stream: Stream) -> str | None:
        """The word for how a stream is closed; None for an open one."""
        if stream in self._open:
            return None
        row = self.connection.execute(self.sql["document"], (closing(stream),)).fetchone()
        if row is None:
            self._open.add(stream)
            return None
        return bytes(row[1]).decode()

    def bound(self, most: int) -> None:
        """Remember no more than so many streams. Not in the middle of a transaction's checks."""
        if len(self._versions) > most or len(self._open) > most:
            self._versions.clear()
            self._open.clear()

    def doubt(self) -> None:
        """A stream may have been closed."""
        self._open.clear()

    # Writing

    def append(self, messages: Sequence[PreparedMessage], repeatable: Collection[str] = ()) -> range:
        """Store the messages, under the write lock; returns their positions. repeatable: ids that may be given again."""
        if not messages:
            return range(0)
        self.refresh()
        now = int(self._clock.now() * 1000)
        known = self._partitions
        first = position = self._head + 1
        rows = []
        tags: list[tuple[str, int]] = []
        versions = self._versions
        for message, attributes_ in messages:
            topic = message.topic
            partition = partition_of(message.key, message.id, known.get(topic) or self._declared(topic))
            version = versions.get((topic, message.key)) if message.key is not None else None
            if version is not None:
                version = versions[topic, message.key] = version + 1  # type: ignore[index]
            rows.append(
                (position, topic, partition, message.type, message.key, message.id, now, attributes_, message.data,
                 version, 1 if repeatable and message.id in repeatable else None)
            )  # fmt: skip
            if message.tags:
                tags += [(tag, position) for tag in message.tags]
            position += 1
        self.connection.executemany(self.sql["append"], rows)
        if tags:
            self.connection.executemany(self.sql["tag"], tags)
        self._head = position - 1
        return range(first, position)

    def send(self, jobs: Sequence[Job]) -> None:
        """Store jobs: due, or parked where their lane is occupied."""
        if all(job.lane is None for job in jobs):
            self.connection.executemany(self.sql["send"], [job_row(job, job.state) for job in jobs])
            return
        for job in jobs:
            parked = (
                job.state != "dead"
                and job.lane is not None
                and self.connection.execute(self.sql["lane_busy"], (job.queue, job.lane)).fetchone() is not None
            )
            self.connection.execute(self.sql["send"], job_row(job, "parked" if parked else job.state))

    def refresh(self) -> None:
        """See whether what is remembered still holds. Once for a transaction is enough."""
        version = self.connection.execute("PRAGMA data_version").fetchone()[0]
        if version != self._version:
            self._version = version
            self._head = self.connection.execute(self.sql["head"]).fetchone()[0]
            self._versions.clear()
            self._open.clear()

    def _declared(self, topic: str) -> int:
        row = self.connection.execute(self.sql["partitions"], (topic,)).fetchone()
        if row is None:
            self.connection.execute(self.sql["declare"], (topic, DEFAULT_PARTITIONS))
            row = (DEFAULT_PARTITIONS,)
        self._partitions[topic] = row[0]
        return int(row[0])
