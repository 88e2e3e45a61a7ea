"""Those parts of a unit that the database may refuse: documents, settled jobs, inbox marks."""

from __future__ import annotations

import sqlite3

from eventmill.backends.sql.rows import errors
from eventmill.core.document import ABSENT
from eventmill.core.errors import ConflictError, DuplicateError
from eventmill.core.job import Job
from eventmill.core.message import Message


class Refusable:
    """Staged until the unit ends, then applied in its savepoint."""

    __slots__ = ("documents", "inbox", "settlements")

    def __init__(self) -> None:
        self.documents: list[tuple[str, bytes | None, int | None]] = []
        self.settlements: list[tuple[Job, int | None, bool]] = []
        self.inbox: list[tuple[str, Message]] = []

    def apply(self, connection: sqlite3.Connection, sql: dict[str, str], now: int) -> None:
        """Raises ConflictError and DuplicateError."""
        execute = connection.execute
        for key, data, expected in self.documents:
            row = execute(sql["document"], (key,)).fetchone()
            actual = row[0] if row else ABSENT
            if expected is not None and expected != actual:
                raise ConflictError(f"document {key!r}", expected=expected, actual=actual or None)
            if data is None:
                execute(sql["delete_document"], (key,))
            else:
                execute(sql["put"], (key, actual + 1, data))
        for job, retry_at, dead in self.settlements:
            if retry_at is not None:
                execute(sql["retry_job"], (retry_at, errors(job), job.id))
                continue
            row = execute(sql["lane"], (job.id,)).fetchone()
            lane = row[0] if row else None
            if dead:
                execute(sql["bury_job"], (errors(job), now, job.lane, job.id))
            else:
                execute(sql["finish_job"], (job.id,))
            if lane is not None:
                execute(sql["next_of_lane"], (job.queue, lane, now))
        for group, message in self.inbox:
            if execute(sql["inbox"], (group, message.id, message.source, now)).rowcount == 0:
                raise DuplicateError(f"{group}: {message.id} from {message.source} was handled before")
