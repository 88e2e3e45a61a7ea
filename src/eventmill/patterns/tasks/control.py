"""What operators say to queues and tasks while they run: kept as documents, and looked at by every worker."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

from eventmill.core.capabilities import Store
from eventmill.core.claims import Fence
from eventmill.core.errors import ConfigurationError, EventmillError
from eventmill.core.job import Job
from eventmill.core.reading import Pending
from eventmill.patterns.tasks.attempts import Attempts
from eventmill.patterns.tasks.call import Desk
from eventmill.patterns.tasks.finale import Finale
from eventmill.patterns.tasks.held import OF_QUEUE
from eventmill.patterns.tasks.limit import MOST, Limit, decode_use, limit_key
from eventmill.patterns.tasks.setting import Setting, decode_setting, setting_key
from eventmill.runtime.interrupted import through
from eventmill.runtime.worker import Worker

log = logging.getLogger("eventmill")

LOOK_EVERY = 0.5
"""Seconds between two looks at what was said: also how long a running task goes on after it was cancelled."""

MANY = 1_000

Cancelled = Literal["cancelled", "cancelling", "unknown", "dead"]


class Operator:
    """Pausing, scaling, cancelling, running now: from any process, with or without the App's own code."""

    def __init__(self, desk: Desk, store: Store, finale: Finale, lease: float) -> None:
        self._desk = desk
        self._store = store
        self._finale = finale
        self._lease = lease

    def cancel_key(self, identity: str) -> str:
        return f"{self._desk.prefix}control/cancel/{identity}"

    async def settings(self) -> Mapping[str, Setting]:
        """What was said of queues, by their names."""
        prefix = setting_key(self._desk.prefix, "")
        found = await self._store.documents(prefix, limit=MANY)
        return {each.key.removeprefix(prefix): decode_setting(each.data) for each in found}

    async def backlog(self, queues: Mapping[str, str]) -> Pending:
        """What is due in queues that are not paused. queues: what the store calls each of them, by their names."""
        said = await self.settings()
        number, oldest = 0, []
        for queue, place in queues.items():
            if queue not in said or not said[queue].paused:
                pending = await self._store.overdue(place)
                number += pending.messages
                oldest += [] if pending.oldest is None else [pending.oldest]
        return Pending(number, min(oldest, default=None))

    async def set(self, queue: str, *, paused: bool | None = None, concurrency: int | None = None) -> Setting:
        """Pause or resume a queue, or have each process run so many of its tasks at a time, within a second."""
        if concurrency is not None and concurrency < 1:
            raise ConfigurationError(f"queue {queue}: concurrency={concurrency}; give 1 or more, or pause the queue")
        key = setting_key(self._desk.prefix, queue)
        async with self._store.transaction() as tx:
            found = await tx.get(key)
            setting = Setting() if found is None else decode_setting(found.data)
            setting.paused = setting.paused if paused is None else paused
            setting.concurrency = concurrency or setting.concurrency
            tx.put(key, msgspec.json.encode(setting), expected=None)
        return setting

    async def limit(self, queue: str, place: str, limit: Limit | None) -> None:
        """Change what a queue's limit allows over all processes, from this commit on; None: as it is declared.

        What the limit does not name stays as declared. place: what the store calls the queue.
        """
        if limit is not None:
            limit.check(f"queue {queue}", None)
        key = setting_key(self._desk.prefix, queue)
        lane = limit_key(self._desk.prefix, f"{OF_QUEUE}{queue}")
        async with self._store.transaction() as tx:
            used = await tx.get(lane)  # first, as whoever grants a beginning does
            found = await tx.get(key)
            setting = Setting() if found is None else decode_setting(found.data)
            setting.limit = None if limit is None else limit.of(f"{OF_QUEUE}{queue}", None)
            tx.put(key, msgspec.json.encode(setting), expected=None)
            if used is None:
                return
            use = decode_use(used.data)
            use.promised = 0  # by the former rate
            tx.put(lane, msgspec.json.encode(use), expected=None)
            # As many as may find room now; each looks for itself whether it does.
            most = limit.concurrency if limit is not None and limit.concurrency is not None else MOST
            for _ in range(most - len(use.running)):
                tx.let_go(place, lane)

    async def cancel(self, identity: str, kept: Mapping[str, float | None]) -> Cancelled:
        """End a task that waits, or have the worker that runs it interrupt it. kept: what types keep results for how long.

        `cancelled`: it will not run. `cancelling`: it runs, and is told within a second; a `def` function's thread runs
        on to its end, but nothing comes of it. `dead`: nothing to cancel, skip it. `unknown`: it has ended, or never was.
        """
        member = f"{self._desk.new_id()}/operator"
        job = await self._store.take(identity, member, lease=self._lease)
        if job is not None:
            try:
                await through(lambda: self._end(job, member, kept.get(job.message.type)))
            finally:
                await self._store.release(job.queue, member, None)
            return "cancelled"
        found = await self._store.find(identity)
        if found is None:
            return "unknown"
        if found.state == "dead":
            return "dead"
        async with self._store.transaction() as tx:
            tx.put(self.cancel_key(identity), b"{}", expected=None)
        return "cancelling"

    async def _end(self, job: Job, member: str, kept: float | None) -> None:
        unit = self._store.unit(job, Fence(job.queue, member))
        try:
            name = job.message.type.removeprefix("task.")
            await self._finale.stage(unit, job, name, "cancelled", kept, None)
            unit.put(self.cancel_key(job.message.id), None, expected=None)
            unit.settle(job)
            await (await unit.finish())
        except BaseException:
            await unit.discard()
            raise

    async def run_now(self, identity: str) -> bool:
        """Let a task that waits for its time run at once; False where none of this id waits."""
        member = f"{self._desk.new_id()}/operator"
        job = await self._store.take(identity, member, lease=self._lease)
        if job is None:
            return False
        unit = self._store.unit(job, Fence(job.queue, member))
        try:
            unit.settle(job, retry_at=int(self._desk.clock.now() * 1000))
            await (await unit.finish())
        except BaseException:
            await unit.discard()
            raise
        finally:
            await self._store.release(job.queue, member, None)
        return True


@dataclass(frozen=True, slots=True)
class Controlled:
    """A queue's worker in this process, with what it is declared to do."""

    queue: str
    concurrency: int
    worker: Worker
    attempts: Attempts


class Control:
    """Looks at what operators said, and does it to the workers of this process."""

    def __init__(
        self,
        operator: Operator,
        desk: Desk,
        store: Store,
        workers: Sequence[Controlled],
        kept: Mapping[str, float | None],
    ) -> None:
        self._operator = operator
        self._desk = desk
        self._store = store
        self._workers = workers
        self._kept = kept

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            try:
                await self.look()
            except EventmillError as error:
                log.info("tasks: the operators' word waits: %s", error)
            await asyncio.sleep(LOOK_EVERY)

    async def look(self) -> None:
        """One look."""
        prefix = f"{self._desk.prefix}control/"
        # Apart: however many are to be cancelled, what was said of the queues is heard.
        found = await self._store.documents(f"{prefix}cancel/", limit=MANY)
        said_of = await self._store.documents(f"{prefix}queue/", limit=MANY)
        queues = {each.key.removeprefix(f"{prefix}queue/"): each.data for each in said_of}
        for each in self._workers:
            said = queues.get(each.queue)
            setting = Setting() if said is None else decode_setting(said)
            each.worker.set(paused=setting.paused, concurrency=setting.concurrency or each.concurrency)
            await each.attempts.tell(each.worker.fence)
        for document in found:
            await self._cancel(document.key.removeprefix(f"{prefix}cancel/"))

    async def _cancel(self, identity: str) -> None:
        for each in self._workers:
            running = each.worker.running(identity)
            if running is not None:
                number, runner = running[0].id, running[1]
                if number not in each.attempts.cancelled:
                    each.attempts.cancelled.add(number)
                    runner.cancel()
                return
        job = await self._store.find(identity)
        if job is not None and job.state == "running":
            return  # in another process, which will hear of it
        try:
            if job is not None and job.state == "due":
                await self._operator.cancel(identity, self._kept)
            else:
                async with self._store.transaction() as tx:
                    tx.put(self._operator.cancel_key(identity), None, expected=None)
        except EventmillError as error:
            log.info("tasks: cancelling %s waits: %s", identity, error)
