"""Appending: positions, sequences, partitions and lanes, decided under the write lock."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence

from eventmill.backends.sql.prepared import PreparedMessage
from eventmill.backends.sql.rows import job_row
from eventmill.core.clock import Clock
from eventmill.core.job import Job
from eventmill.core.partition import DEFAULT_PARTITIONS, partition_of

REMEMBERED_KEYS = 50_000


class Appender:
    """Writes messages and jobs inside the open transaction of one connection.

    What it remembers of earlier appends (the last position, each key's sequence) holds as long as
    no other connection has committed: `PRAGMA data_version` tells, under the write lock, for sure.
    """

    def __init__(self, connection: sqlite3.Connection, statements: dict[str, str], clock: Clock) -> None:
        self._connection = connection
        self._sql = statements
        self._clock = clock
        self._version = -1
        self._head = 0
        self._ever_trimmed = True
        self._sequences: dict[tuple[str, str], int] = {}
        self._partitions: dict[str, int] = {}

    def forget(self) -> None:
        """A rollback: what was remembered may never have been."""
        self._version = -1
        self._partitions.clear()

    def append(self, messages: Sequence[PreparedMessage]) -> list[int]:
        """Store the messages, under the write lock; returns their positions."""
        if not messages:
            return []
        self._refresh()
        self._learn_sequences(messages)
        now = int(self._clock.now() * 1000)
        sequences = self._sequences
        position = self._head
        rows = []
        for message, attributes_ in messages:
            position += 1
            key = message.key
            topic = message.topic
            if key is None:
                sequence = None
            else:
                sequence = sequences[topic, key] = sequences[topic, key] + 1
            partitions = self._partitions.get(topic) or self._declared(topic)
            rows.append(
                (
                    position,
                    topic,
                    partition_of(key, message.id, partitions),
                    message.type,
                    key,
                    sequence,
                    message.id,
                    now,
                    attributes_,
                    message.data,
                )
            )
        self._connection.executemany(self._sql["append"], rows)
        first, self._head = self._head + 1, position
        return list(range(first, position + 1))

    def send(self, jobs: Sequence[Job]) -> None:
        """Store jobs: due, or parked where their lane is occupied."""
        for job in jobs:
            parked = (
                job.state != "dead"
                and job.lane is not None
                and self._connection.execute(self._sql["lane_busy"], (job.queue, job.lane)).fetchone() is not None
            )
            self._connection.execute(self._sql["send"], job_row(job, "parked" if parked else job.state))

    def _refresh(self) -> None:
        version = self._connection.execute("PRAGMA data_version").fetchone()[0]
        if version != self._version or len(self._sequences) > REMEMBERED_KEYS:
            self._version = version
            self._sequences.clear()
            self._head = self._connection.execute(self._sql["head"]).fetchone()[0]
            self._ever_trimmed = bool(self._connection.execute(self._sql["ever_trimmed"]).fetchone()[0])

    def _learn_sequences(self, messages: Sequence[PreparedMessage]) -> None:
        unknown: dict[str, set[str]] = {}
        for message, _ in messages:
            if message.key is not None and (message.topic, message.key) not in self._sequences:
                unknown.setdefault(message.topic, set()).add(message.key)
        for topic, keys in unknown.items():
            listed = json.dumps(list(keys))
            known = dict.fromkeys(keys, 0)
            if self._ever_trimmed:
                known.update(self._connection.execute(self._sql["trimmed_sequences"], (topic, listed)).fetchall())
            known.update(self._connection.execute(self._sql["sequences"], (topic, listed)).fetchall())
            for key, sequence in known.items():
                self._sequences[topic, key] = sequence

    def _declared(self, topic: str) -> int:
        row = self._connection.execute(self._sql["partitions"], (topic,)).fetchone()
        if row is None:
            self._connection.execute(self._sql["declare"], (topic, DEFAULT_PARTITIONS))
            row = (DEFAULT_PARTITIONS,)
        self._partitions[topic] = row[0]
        return int(row[0])
