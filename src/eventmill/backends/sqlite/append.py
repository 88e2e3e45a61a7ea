"""Appending: positions, sequences, partitions and lanes, decided under the write lock."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from eventmill.backends.sql.prepared import PreparedMessage
from eventmill.backends.sql.rows import job_row
from eventmill.core.clock import Clock
from eventmill.core.job import Job
from eventmill.core.partition import DEFAULT_PARTITIONS, partition_of


class Appender:
    """Writes messages and jobs inside the open transaction of one connection.

    What it remembers of earlier appends, the last position, holds as long as no other connection has committed: `PRAGMA data_version` tells, under the write lock, for sure.
    """

    def __init__(self, connection: sqlite3.Connection, statements: dict[str, str], clock: Clock) -> None:
        self._connection = connection
        self._sql = statements
        self._clock = clock
        self._version = -1
        self._head = 0
        self._partitions: dict[str, int] = {}

    def forget(self) -> None:
        """A rollback: what was remembered may never have been."""
        self._version = -1
        self._partitions.clear()

    def append(self, messages: Sequence[PreparedMessage]) -> range:
        """Store the messages, under the write lock; returns their positions."""
        if not messages:
            return range(0)
        self._refresh()
        now = int(self._clock.now() * 1000)
        known = self._partitions
        first = position = self._head + 1
        rows = []
        for message, attributes_ in messages:
            topic = message.topic
            partition = partition_of(message.key, message.id, known.get(topic) or self._declared(topic))
            rows.append(
                (position, topic, partition, message.type, message.key, message.id, now, attributes_, message.data)
            )
            position += 1
        self._connection.executemany(self._sql["append"], rows)
        self._head = position - 1
        return range(first, position)

    def send(self, jobs: Sequence[Job]) -> None:
        """Store jobs: due, or parked where their lane is occupied."""
        if all(job.lane is None for job in jobs):
            self._connection.executemany(self._sql["send"], [job_row(job, job.state) for job in jobs])
            return
        for job in jobs:
            parked = (
                job.state != "dead"
                and job.lane is not None
                and self._connection.execute(self._sql["lane_busy"], (job.queue, job.lane)).fetchone() is not None
            )
            self._connection.execute(self._sql["send"], job_row(job, "parked" if parked else job.state))

    def _refresh(self) -> None:
        version = self._connection.execute("PRAGMA data_version").fetchone()[0]
        if version != self._version:
            self._version = version
            self._head = self._connection.execute(self._sql["head"]).fetchone()[0]

    def _declared(self, topic: str) -> int:
        row = self._connection.execute(self._sql["partitions"], (topic,)).fetchone()
        if row is None:
            self._connection.execute(self._sql["declare"], (topic, DEFAULT_PARTITIONS))
            row = (DEFAULT_PARTITIONS,)
        self._partitions[topic] = row[0]
        return int(row[0])
