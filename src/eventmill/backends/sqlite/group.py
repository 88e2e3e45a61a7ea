"""Who takes part in one commit."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Mapping, Sequence
from time import monotonic

from eventmill.backends.sql.prepared import PreparedMessage
from eventmill.backends.sqlite.additions import Additions
from eventmill.backends.sqlite.append import Appender
from eventmill.backends.sqlite.journal import Journal
from eventmill.core.claims import Cursor, Fence
from eventmill.core.errors import ConfigurationError, EventmillError, LeaseLostError
from eventmill.core.job import Job
from eventmill.core.message import Message
from eventmill.core.stream import Absence, Append
from eventmill.core.tracker import Tracker

LONG = 0.1
"""Seconds that the write lock was held, after which a commit renews this process's leases itself."""

Beating = Mapping[int, tuple[str, int]]
"""Members as a JSON list and their lease in milliseconds, of each backend that renews leases on the file."""


class Staged:
    """Messages and jobs of one caller that wait for the next commit.

    entries: the same messages, where there are appends among them that may be refused, or conditions.
    """

    __slots__ = ("conditions", "durable", "entries", "jobs", "messages", "refusal", "start")

    def __init__(
        self,
        messages: Sequence[PreparedMessage],
        jobs: Sequence[Job],
        durable: asyncio.Future[list[int]],
        entries: Sequence[Message | Append] | None = None,
        conditions: Sequence[Absence] = (),
    ) -> None:
        self.messages = messages
        self.jobs = jobs
        self.durable = durable
        self.entries = entries
        self.conditions = conditions
        self.refusal: EventmillError | None = None
        self.start = 0

    def write(self, additions: Additions) -> None:
        """Add the messages to those of the commit, unless what stands there refuses them."""
        self.start = len(additions.messages)
        if self.entries is None:
            additions.messages += self.messages
            return
        try:
            moved = additions.admit(self.entries, self.conditions)
        except EventmillError as error:
            self.refusal = error
        else:
            additions.take(self.entries, self.messages, moved)

    def tell(self, positions: range) -> None:
        """The commit is durable. positions: of all its messages."""
        if self.durable.done():
            return
        if self.refusal is not None:
            self.durable.set_exception(self.refusal)
        else:
            self.durable.set_result(list(positions[self.start : self.start + len(self.messages)]))


class Shared(asyncio.Future[None]):
    """What all units of a commit await. One that is cancelled waits for the others' sake, too: a task that awaits a future
    would cancel it, and with it whoever else awaits it."""

    def cancel(self, msg: object = None) -> bool:
        return False


class Group:
    """The units of one commit."""

    __slots__ = (
        "additions",
        "done",
        "durable",
        "fences",
        "held",
        "jobs",
        "journal",
        "marks",
        "opened",
        "units",
        "verified",
    )

    def __init__(self, durable: Shared, opened: float, journal: Journal, appender: Appender) -> None:
        self.durable = durable
        durable.add_done_callback(_retrieve)
        self.journal = journal
        self.opened = opened
        self.units = 0
        self.additions = Additions(appender)
        self.jobs: list[Job] = []
        self.done: list[tuple[int]] = []  # claimed jobs that end, by their ids
        self.marks: dict[Tracker, tuple[str, str, int]] = {}
        self.fences: set[Fence] = set()
        self.verified: dict[int, Cursor] = {}  # by identity, which is all that needs to be compared
        self.held: dict[Fence, dict[tuple[str, int], int]] = {}

    def renew(self, connection: sqlite3.Connection, sql: dict[str, str], now: int, beating: Beating) -> None:
        """Where the lock was held for so long that no heartbeat could be written meanwhile, this commit is one.

        A handler may have blocked the event loop while others' transaction was open: nobody could take over
        then, and nobody shall win the race for it now.
        """
        if monotonic() - self.opened > LONG:
            for members, lease in list(beating.values()):
                connection.execute(sql["beat"], (now + lease, lease, members))

    def verify(
        self, connection: sqlite3.Connection, sql: dict[str, str], claim: Cursor | Job | None, fence: Fence | None
    ) -> None:
        """Raise LeaseLostError unless what the unit stands on is still held.

        Whoever holds the write lock sees the truth, and it stays true until the commit.
        """
        if id(claim) in self.verified and fence is not None and fence.valid:
            return
        if fence is not None and not fence.valid:
            raise LeaseLostError(f"{fence.group}: a commit that {fence.member} took part in failed; it starts again")
        if fence is not None:
            self.fences.add(fence)
        if isinstance(claim, Job):
            member = fence.member if fence else None
            if not connection.execute(sql["claimed"], (claim.id, claim.token, member)).fetchone():
                raise LeaseLostError(f"{claim.queue}: job {claim.id} was taken over")
        elif claim is not None:
            if fence is None:
                raise ConfigurationError("a claim on a partition needs the fence of its member")
            held = self.held.get(fence)
            if held is None:
                rows = connection.execute(sql["held"], (fence.group, fence.member)).fetchall()
                held = self.held[fence] = {(topic, number): token for topic, number, token in rows}
            if held.get(claim.partition) != claim.token:
                raise LeaseLostError(f"{fence.group}: {claim.partition} was taken over from {fence.member}")
            self.verified[id(claim)] = claim


def _retrieve(future: asyncio.Future[None]) -> None:
    """A group without listeners must not be reported as a forgotten error: its units were told."""
    if not future.cancelled():
        future.exception()
