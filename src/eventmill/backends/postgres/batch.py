"""Who takes part in one commit of the shared connection."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Hashable, Mapping, Sequence
from time import monotonic
from typing import Any

import psycopg
from psycopg import pq

from eventmill.backends.postgres import faults
from eventmill.backends.postgres.pipeline import Pipeline, Settle, SkippedError
from eventmill.backends.postgres.staged import Staged
from eventmill.backends.postgres.values import Value
from eventmill.backends.sql.prepared import PreparedMessage
from eventmill.core.claims import Cursor, Fence
from eventmill.core.errors import UnitInterruptedError
from eventmill.core.job import Job
from eventmill.core.message import Message
from eventmill.core.stream import Absence, Append
from eventmill.core.tracker import Tracker


def interrupted() -> UnitInterruptedError:
    return UnitInterruptedError("another unit of the same commit failed, and this one was undone with it")


def refuse(durable: asyncio.Future[Any], error: Exception) -> None:
    """End what somebody may wait for with an error."""
    if not durable.done():
        durable.set_exception(error)
        durable.exception()  # whoever awaited it may have been cancelled


class Published:
    """Messages and jobs of one caller that wait for the next commit.

    entries: the same messages, where there are appends among them that may be refused, or conditions.
    """

    __slots__ = ("conditions", "durable", "entries", "jobs", "messages", "start", "tries")

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
        self.start = 0
        self.tries = 0

    def join(self, staged: Staged[Hashable]) -> bool:
        """Stage it with others; False where it must wait for their commit."""
        appends = staged.appends
        if self.entries is not None and appends and appends.clashes(self.entries, self.conditions):
            return False
        self.start = len(appends.messages)
        if self.entries is None:
            appends.messages += self.messages
        else:
            appends.add(self, self.entries, self.messages, self.conditions)
        staged.jobs += self.jobs
        return True

    def found(self, stored: Stored) -> None:
        """Tell the caller whose messages turned out to be stored, be it in a commit whose answer was lost."""
        places = [stored.get((message.topic, message.key, message.id)) for message, _ in self.messages]
        known = [place for place in places if place is not None]
        if self.durable.done() or not known or len(known) < len(places):
            return
        start = 0
        for entry in self.entries or ():
            end = start + (len(entry.messages) if isinstance(entry, Append) else 1)
            if isinstance(entry, Append) and end > start:
                entry.appended.positions = tuple(position for position, _ in known[start:end])
                entry.appended.version = known[end - 1][1] or 0
            start = end
        self.durable.set_result([position for position, _ in known])


Stored = Mapping[tuple[str, str | None, str], tuple[int, int | None]]
"""By topic, key and id of messages: their positions, and their numbers."""


class Batch:
    """The units of one transaction, from its first statement to its commit.

    Units that only write run side by side. One that reads may write what it read, and what it read must not change
    meanwhile: it has the turn until it has finished, and the others wait.
    """

    __slots__ = (
        "active",
        "before",
        "begun",
        "blamed",
        "closings",
        "documents",
        "failure",
        "fences",
        "finished",
        "joined",
        "marks",
        "opened",
        "patient",
        "pid",
        "positions",
        "published",
        "sealed",
        "staged",
        "turn",
        "waiting",
        "xid",
    )

    def __init__(self) -> None:
        self.opened = monotonic()
        self.patient = False
        self.begun = False
        self.sealed = False
        self.joined = 0
        self.active: set[Hashable] = set()
        self.finished: dict[Hashable, asyncio.Future[None]] = {}
        self.failure: Exception | None = None
        self.blamed: dict[Hashable, Exception] = {}
        self.closings: list[tuple[Settle, Sequence[Value]]] = []
        """Documents that close streams: put last, so that they are no obstacle to what is appended with them."""
        self.staged: Staged[Hashable] = Staged()
        self.marks: dict[Tracker, tuple[Cursor, Fence, set[int]]] = {}
        self.fences: set[Fence] = set()
        self.published: list[Published] = []
        self.positions: Sequence[int] = ()
        self.before = 0
        self.pid = 0
        self.xid: str | None = None
        self.turn: Hashable | None = None
        self.waiting: deque[asyncio.Future[None]] = deque()
        self.documents: dict[str, Hashable] = {}

    def mark(self, cursor: Cursor, fence: Fence, tracker: Tracker, position: int) -> None:
        known = self.marks.get(tracker)
        if known is None:
            self.marks[tracker] = (cursor, fence, {position})
        else:
            known[2].add(position)

    async def take_turn(self, unit: Hashable, *, keep: bool) -> None:
        """Wait until nobody else has the turn; keep it where the unit is going to read."""
        while self.turn is not None and self.turn is not unit and self.failure is None:
            waiter = asyncio.get_running_loop().create_future()
            self.waiting.append(waiter)
            await waiter
        if keep:
            self.turn = unit

    def pass_turn(self, unit: Hashable) -> None:
        """The unit has finished, or everything is over: whoever waits may look again."""
        if self.turn is unit:
            self.turn = None
        if self.turn is None or self.failure is not None:
            waiting, self.waiting = self.waiting, deque()
            for waiter in waiting:
                if not waiter.done():
                    waiter.set_result(None)

    # Ending

    def refused(self, name: str, error: Exception, where: str) -> bool:
        """One of eventmill's own statements at the end has failed. Returns whether that is nobody's fault."""
        if self.failure is not None or isinstance(error, SkippedError):
            return False
        state = getattr(error, "sqlstate", None)
        if state in faults.REFUSED and isinstance(error, psycopg.Error):
            self.blamed.update(self.staged.blame(name, json.loads(error.diag.message_detail or "[]")))
        elif state not in faults.AGAIN:
            self.failure = faults.translated(error, where)
            return False
        self.failure = interrupted()
        return not self.blamed

    def noting_xid(self, pipeline: Pipeline) -> Settle:
        """Takes down the transaction's number, which tells what became of it even where the commit's answer is lost."""

        def settle(result: pq.abc.PGresult | None, error: Exception | None) -> None:
            if result is not None:
                self.xid = pipeline.rows(result)[0][0]

        return settle

    def succeeded(self) -> None:
        """It is durable: everybody is told."""
        for tracker, (_, _, positions) in self.marks.items():
            for position in positions:
                tracker.done(position)
            tracker.cursor()
        self.staged.appends.committed()
        for durable in self.finished.values():
            if not durable.done():
                durable.set_result(None)
        for entry in self.published:
            if not entry.durable.done():
                entry.durable.set_result(list(self.positions[entry.start : entry.start + len(entry.messages)]))

    def undone(self, error: Exception | None) -> None:
        """Nothing of it is kept. error: for all of it; None: those who are not to blame begin again."""
        for unit, durable in self.finished.items():
            refuse(durable, self.blamed.get(unit) or error or interrupted())

    def give_up(self, error: Exception) -> None:
        """The messages that were published with it are not to be stored, or nobody can tell."""
        for entry in self.published:
            refuse(entry.durable, error)

    def found(self, stored: Stored) -> None:
        """Tell those whose messages turned out to be stored."""
        for entry in self.published:
            entry.found(stored)

    def distrust(self) -> None:
        """Nothing of these members may overtake what was just lost."""
        for fence in self.fences:
            fence.valid = False
