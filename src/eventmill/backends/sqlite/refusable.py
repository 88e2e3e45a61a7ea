"""Those parts of a unit that the database may refuse: documents, settled jobs, inbox marks."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence

from eventmill.backends.sql.rows import errors
from eventmill.core.document import ABSENT
from eventmill.core.errors import ConflictError, DuplicateError, LeaseLostError
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

    __slots__ = ("documents", "held", "inbox", "let_go", "settlements")

    def __init__(self) -> None:
        self.documents: list[tuple[str, bytes | None, int | None]] = []
        self.settlements: list[tuple[Job, int | None, bool]] = []
        self.held: list[tuple[Job, str]] = []
        self.let_go: list[tuple[str, str]] = []
        self.inbox: list[tuple[str, Message]] = []

    def ends(self, claim: object) -> Job | None:
        """The job that is all there is to it: done, and the one its unit stands on, which was verified."""
        if len(self.settlements) != 1 or self.documents or self.inbox or self.held or self.let_go:
            return None
        job, retry_at, dead = self.settlements[0]
        return job if job is claim and job.lane is None and retry_at is None and not dead else None

    def apply(
        self, connection: sqlite3.Connection, sql: dict[str, str], now: int, claim: object, member: str | None
    ) -> None:
        """Raises ConflictError, DuplicateError and LeaseLostError. The claim was verified; other jobs are here."""
        execute = connection.execute
        if len(self.settlements) > 1 and member is not None:
            self._verify(connection, sql, member)
        elif any(job is not claim for job, _, _ in self.settlements):
            for job, _, _ in self.settlements:
                if job is not claim and not execute(sql["claimed"], (job.id, job.token, member)).fetchone():
                    raise LeaseLostError(f"{job.queue}: job {job.id} was taken over")
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
        done: list[tuple[int]] = []
        for job, retry_at, dead in self.settlements:
            if retry_at is not None:
                execute(sql["retry_job"], (retry_at, errors(job), job.attempts, job.id))
                continue
            if job.lane is None and not dead:
                done.append((job.id,))
                continue
            row = execute(sql["lane"], (job.id,)).fetchone()
            lane = row[0] if row else None
            if dead:
                execute(sql["bury_job"], (errors(job), now, job.lane, job.id))
            else:
                execute(sql["finish_job"], (job.id,))
            if lane is not None:
                execute(sql["next_of_lane"], (job.queue, lane, now))
        if done:
            connection.executemany(sql["finish_job"], done)
        for job, lane in self.held:
            if job is not claim and not execute(sql["claimed"], (job.id, job.token, member)).fetchone():
                raise LeaseLostError(f"{job.queue}: job {job.id} was taken over")
            execute(sql["hold_job"], (lane, job.attempts, job.id))
        for place in self.let_go:
            execute(sql["let_go"], place)
        for group, message in self.inbox:
            if execute(sql["inbox"], (group, message.id, message.source, now)).rowcount == 0:
                raise DuplicateError(f"{group}: {message.id} from {message.source} was handled before")

    def _verify(self, connection: sqlite3.Connection, sql: dict[str, str], member: str) -> None:
        """Many jobs of one member are asked for in one statement."""
        wanted = {job.id: job for job, _, _ in self.settlements}
        held = dict(connection.execute(sql["claimed_of"], (member, json.dumps(list(wanted)))).fetchall())
        for id_, job in wanted.items():
            if held.get(id_) != job.token:
                raise LeaseLostError(f"{job.queue}: job {id_} was taken over")
        if len(wanted) < len(self.settlements):
            raise LeaseLostError("a job was settled twice in one unit")
