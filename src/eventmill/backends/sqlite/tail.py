"""Where each partition ends: what tells a reader, without looking, that there is nothing for it."""

from __future__ import annotations

import sqlite3

from eventmill.core.message import Partition


class Tail:
    """The last position of each partition, kept up with by reading each new row's place once per process.

    A file may have dozens of readers in a process, one for each group; most new messages concern a few.
    """

    def __init__(self, reader: sqlite3.Connection, statements: dict[str, str]) -> None:
        self._reader = reader
        self._sql = statements
        self._version = self._data_version()
        self._ends: dict[tuple[str, int], int] = {}
        self.end = self._begin = self._head()

    def _data_version(self) -> int:
        return int(self._reader.execute("PRAGMA data_version").fetchone()[0])

    def _head(self) -> int:
        return int(self._reader.execute(self._sql["head"]).fetchone()[0])

    def look(self) -> None:
        """Take in what has been committed since the last look; `end` is then the log's last position."""
        version = self._data_version()
        if version == self._version:
            return
        self._version = version
        end = self._head()
        if end > self.end:
            for topic, number, position in self._reader.execute(self._sql["tail"], (self.end, end)):
                self._ends[topic, number] = position
            self.end = end

    def moved(self, partition: Partition, after: int) -> bool:
        """Whether there may be a message beyond `after`; what lies before the first look is not known."""
        return after < self._ends.get(partition, self._begin)
