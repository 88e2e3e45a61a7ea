"""Those parts of a unit that the database may refuse: documents, settled jobs, inbox marks."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from eventmill.backends.sql.rows import errors
from eventmill.core.document import ABSENT
from eventmill.core.errors import ConflictError, DuplicateError
from eventmill.core.job import Job
from eventmill.core.message import Message

FEW = 8
"""Documents up to which one by one is as fast."""

Put = tuple[str, bytes | None, int | None]


def _write_many(connection: sqlite3.Connection, sql: dict[str, str], documents: Sequence[Put]) -> Sequence[Put]:
    """Write those of which the version is known, in the order of the table; returns the others.

    Where one is found in another version all are returned: one by one they show which.
    """
    keys = {key for key, _, _ in documents}
    if len(keys) < len(documents):
        return documents
    fresh = sorted((key, data) for key, data, expected in documents if expected == ABSENT and data is not None)
    known = sorted((key, expected, data) for key, data, expected in documents if expected and data is not None)
    connection.execute("SAVEPOINT documents")
    inserted = connection.executemany(sql["insert_document"], fresh).rowcount if fresh else 0
    updated = 0
    if known:
        updated = connection.executemany(
            sql["update_document"], [(data, key, expected) for key, expected, data in known]
        ).rowcount
    if (inserted, updated) != (len(fresh), len(known)):
        connection.execute("ROLLBACK TO documents")
        connection.execute("RELEASE documents")
        return documents
    connection.execute("RELEASE documents")
    return [put for put in documents if put[1] is None or put[2] is None]


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
        documents: Sequence[Put] = self.documents
        if len(documents) > FEW:
            documents = _write_many(connection, sql, documents)
        for key, data, expected in documents:
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
