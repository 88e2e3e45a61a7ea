"""What one commit adds to the log, and which of its appends may be part of it."""

from __future__ import annotations

import json
from collections.abc import Sequence

from eventmill.backends.sql.prepared import PreparedMessage
from eventmill.backends.sql.selection import tagged
from eventmill.backends.sqlite.append import Appender
from eventmill.core.admission import Admission, Stored
from eventmill.core.errors import TagConflictError
from eventmill.core.message import Message
from eventmill.core.stream import Absence, Append, Query, Stream

REMEMBERED = 50_000
"""Streams whose versions are remembered from one commit to the next, at most."""


class Additions:
    """The messages of a commit in their order, held in memory until it is made.

    An append is checked, under the write lock, against what is stored and what stands before it here. Nothing is written
    for it then, so one that is refused leaves no trace with the others.
    """

    __slots__ = ("_admission", "_appender", "_appends", "_connection", "_counted", "_sql", "messages", "repeatable")

    def __init__(self, appender: Appender) -> None:
        self._connection = appender.connection
        self._sql = appender.sql
        self._appender = appender
        self._admission: Admission | None = None
        self._counted = 0
        self._appends: list[tuple[Append, int]] = []
        self.messages: list[PreparedMessage] = []
        self.repeatable: set[str] = set()

    def admit(self, entries: Sequence[Message | Append], conditions: Sequence[Absence]) -> dict[Stream, int]:
        """What to `take` these with, once nothing else refuses their unit.

        Raises WrongExpectedVersionError, StreamClosedError and TagConflictError.
        """
        admission = self._admission
        if admission is None:
            self._appender.refresh()
            self._appender.bound(REMEMBERED)
            admission = self._admission = Admission(self._appender.version, self._appender.closed, self._stored)
        for condition in conditions:
            self._check(condition)
        if self._counted < len(self.messages):
            # What others have published in this commit counts as well.
            admission.add(admission.admit([message for message, _ in self.messages[self._counted :]]))
            self._counted = len(self.messages)
        return admission.admit(entries)

    def take(
        self, entries: Sequence[Message | Append], prepared: Sequence[PreparedMessage], moved: dict[Stream, int]
    ) -> None:
        """Add admitted entries. prepared: the messages of all of them, in order."""
        assert self._admission is not None
        self._admission.add(moved)
        place = 0
        for entry in entries:
            if isinstance(entry, Message):
                self.messages.append(prepared[place])
                place += 1
                continue
            end = place + len(entry.messages)
            if not entry.appended.repeated:
                self._appends.append((entry, len(self.messages)))
                self.messages += prepared[place:end]
                if entry.repeatable:
                    self.repeatable.update(message.id for message in entry.messages)
            place = end
        self._counted = len(self.messages)

    def stored(self, positions: range) -> None:
        """They are durable, at these positions: the appends are told."""
        for append, start in self._appends:
            append.appended.positions = tuple(positions[start : start + len(append.messages)])

    def _stored(self, append: Append) -> list[Stored]:
        ids = json.dumps([message.id for message in append.messages])
        found = [Stored(*row) for row in self._connection.execute(self._sql["repeated"], (*append.stream, ids))]
        wanted = {message.id for message in append.messages} & self.repeatable
        if wanted:
            first = self._appender.head + 1
            for known, start in self._appends:
                if known.stream == append.stream and known.repeatable:
                    version = known.appended.version - len(known.messages)
                    for number, message in enumerate(known.messages):
                        if message.id in wanted:
                            found.append(Stored(message.id, version + number + 1, first + start + number))
        return found

    def _check(self, condition: Absence) -> None:
        for number in range(len(self.messages) - 1, -1, -1):
            message = self.messages[number][0]
            if message.tags and any(query.matches(message) for query in condition.queries):
                found = self._appender.head + 1 + number
                raise TagConflictError("an event with these tags", after=condition.after, found=found)
        for query in condition.queries:
            latest = self._latest(query, condition.after)
            if latest is not None:
                raise TagConflictError("an event with these tags", after=condition.after, found=latest)

    def _latest(self, query: Query, after: int) -> int | None:
        parameters: list[str | int] = []

        def place(value: str | int) -> str:
            parameters.append(value)
            return "?"

        condition = tagged(query, place, "eventmill_tags")
        statement = self._sql["latest_tagged"].replace("{condition}", condition)
        row = self._connection.execute(statement, (*parameters, after)).fetchone()
        return None if row is None else int(row[0])
