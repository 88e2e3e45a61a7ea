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
from eventmill.backends.sql.prepared import PreparedMessage
from eventmill.core.claims import Cursor, Fence
from eventmill.core.errors import UnitInterruptedError
from eventmill.core.job import Job
from eventmill.core.tracker import Tracker


def interrupted() -> UnitInterruptedError:
    return UnitInterruptedError("another unit of the same commit failed, and this one was undone with it")


def refuse(durable: asyncio.Future[Any], error: Exception) -> None:
    """End what somebody may wait for with an error."""
    if not durable.done():
        durable.set_exception(error)
        durable.exception()  # whoever awaited it may have been cancelled


class Published:
    """Messages and jobs of one caller that wait for the next commit."""

    __slots__ = ("durable", "jobs", "messages", "tries")

    def __init__(
        self, messages: Sequence[PreparedMessage], jobs: Sequence[Job], durable: asyncio.Future[list[int]]
    ) -> None:
        self.messages = messages
        self.jobs = jobs
        self.durable = durable
        self.tries = 0


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
        self.staged: Staged[Hashable] = Staged()
        self.marks: dict[Tracker, tuple[Cursor, Fence, set[int]]] = {}
        self.fences: set[Fence] = set()
        self.published: list[Published] = []
        self.positions: list[int] = []
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
        for durable in self.finished.values():
            if not durable.done():
                durable.set_result(None)
        start = 0
        for entry in self.published:
            end = start + len(entry.messages)
            if not entry.durable.done():
                entry.durable.set_result(self.positions[start:end])
            start = end

    def undone(self, error: Exception | None) -> None:
        """Nothing of it is kept. error: for all of it; None: those who are not to blame begin again."""
        for unit, durable in self.finished.items():
            refuse(durable, self.blamed.get(unit) or error or interrupted())

    def give_up(self, error: Exception) -> None:
        """The messages that were published with it are not to be stored, or nobody can tell."""
        for entry in self.published:
            refuse(entry.durable, error)

    def found(self, stored: Mapping[str, int]) -> None:
        """Tell those whose messages turned out to be stored. stored: ids and positions."""
        for entry in self.published:
            ids = [message.id for message, _ in entry.messages]
            if not entry.durable.done() and ids and all(id_ in stored for id_ in ids):
                entry.durable.set_result([stored[id_] for id_ in ids])

    def distrust(self) -> None:
        """Nothing of these members may overtake what was just lost."""
        for fence in self.fences:
            fence.valid = False
