"""One member of a consumer group: leases, fetching, and the order of things."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from itertools import count

from eventmill.core.capabilities import Feed, Store, Subscriber
from eventmill.core.claims import Fence
from eventmill.core.clock import Clock
from eventmill.core.errors import BackendError, LeaseLostError
from eventmill.core.job import Job
from eventmill.core.message import Recorded
from eventmill.runtime.consumer import Consumer
from eventmill.runtime.delivery import Delivery, acknowledge
from eventmill.runtime.dispatcher import Dispatcher
from eventmill.runtime.heartbeat import Heartbeat
from eventmill.runtime.in_flight import InFlight, Limits
from eventmill.runtime.intake import Intake
from eventmill.runtime.membership import Membership
from eventmill.runtime.resequencing import Resequencing
from eventmill.runtime.settlement import Settlement

log = logging.getLogger("eventmill")

PAGE = 256
GENERATION_EVERY = 0.25
BALANCE_EVERY = 5.0
"""Seconds between balances where nobody came or went: new topics are found, idle cursors noted."""

DUE_EVERY = 0.1
RESTART_FIRST, RESTART_CAP = 0.1, 5.0


class Subscription:
    """Takes its share of the partitions, fetches, dispatches, and keeps the cursors.

    It ends only when told to. Whatever fails under it (a full disk, a locked file, a lost lease)
    makes it start again from the stored cursors, under a new name and fence.
    """

    # Made anew for each membership.
    _fence: Fence
    _feed: Feed
    _membership: Membership
    _intake: Intake
    _resequencing: Resequencing | None
    _in_flight: InFlight

    def __init__(
        self,
        consumer: Consumer,
        *,
        source: Subscriber,
        store: Store,
        settlement: Settlement,
        heartbeat: Heartbeat,
        clock: Clock,
        limits: Limits,
        member: str,
    ) -> None:
        self.consumer = consumer
        self.handled = 0
        self._source = source
        self._store = store
        self._settlement = settlement
        self._heartbeat = heartbeat
        self._clock = clock
        self._limits = limits
        self._member = member
        self._epochs = count(1)
        self._wake = asyncio.Event()
        self._stopping = False
        self._full = False
        self._dispatcher: Dispatcher | None = None
        self._blocked: dict[str, asyncio.Future[object]] = {}
        self._exclusive: Job | None = None
        self._claim_next = False

    def stop(self) -> None:
        """Fetch nothing more; `run` returns when what is in hand is finished."""
        self._stopping = True
        self._wake.set()

    async def run(self) -> None:
        """Serve until stopped."""
        pause = RESTART_FIRST
        while not self._stopping:
            started = self._clock.now()
            try:
                await self._serve()
            except LeaseLostError as error:
                log.warning("%s starts again: %s", self.consumer.group, error)
                await self._pause(RESTART_FIRST)
            except BackendError as error:
                pause = RESTART_FIRST if self._clock.now() - started > 60 else min(pause * 2, RESTART_CAP)
                log.warning("%s starts again in %.1f s: %s", self.consumer.group, pause, error)
                await self._pause(pause)

    async def _pause(self, seconds: float) -> None:
        self._wake.clear()
        if not self._stopping:
            waits = [asyncio.ensure_future(wait) for wait in (self._clock.sleep(seconds), self._wake.wait())]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()

    async def _serve(self) -> None:
        """One membership, from joining to leaving."""
        member = f"{self._member}.{next(self._epochs)}"
        self._fence = Fence(self.consumer.group, member)
        self._feed = self._source.subscribe(self.consumer.group, self.consumer.types)
        self._membership = Membership(
            self.consumer,
            source=self._source,
            feed=self._feed,
            store=self._store,
            settlement=self._settlement,
            fence=self._fence,
            lease=self._limits.lease,
        )
        self._intake = Intake(self.consumer, self._feed, self._store)
        policy = self.consumer.resequence
        self._resequencing = (
            None if policy is None else Resequencing(policy, self.consumer.group, self._store, self._clock)
        )
        self._blocked = {}
        committed = self._committed_in(self._fence, self._feed)
        self._in_flight = InFlight(self._limits, dropped=self._dropped, committed=committed)
        self._exclusive = None
        self._dispatcher = Dispatcher(self._handle, concurrency=self.consumer.concurrency, batch=self.consumer.batch)
        self._heartbeat.add(member)
        watch = asyncio.create_task(self._watch())
        watch.add_done_callback(lambda _: self._wake.set())
        clean = False
        try:
            await self._loop(member, watch)
            clean = True
        finally:
            watch.cancel()
            if not clean:
                self._fence.valid = False
            await self._dispatcher.close()
            self._heartbeat.remove(member)
            try:
                await self._membership.leave()
            except BackendError as error:
                log.warning("%s: leases are left to run out: %s", self.consumer.group, error)

    async def _watch(self) -> None:
        seen = -1
        while True:
            seen = await self._feed.changed(seen, GENERATION_EVERY)
            self._wake.set()

    async def _loop(self, member: str, watch: asyncio.Task[None]) -> None:
        assert self._dispatcher is not None
        loop = asyncio.get_running_loop()
        balance_at = generation_at = due_at = 0.0
        while True:
            self._wake.clear()
            self._dispatcher.check()
            if watch.done():
                watch.result()  # without it nothing would wake us any more
            if not self._fence.valid:
                await asyncio.sleep(0)  # a worker that broke it says why, once it has ended
                self._dispatcher.check()
                raise LeaseLostError(f"{member} was refused by the store")
            if self._stopping:
                self._in_flight.drop(self._dispatcher.abandon())
                held = 0 if self._resequencing is None else self._resequencing.held
                if self._in_flight.count == held and self._dispatcher.empty:
                    return
                await self._wake.wait()
                continue
            now = loop.time()
            if now >= generation_at:
                generation_at = now + GENERATION_EVERY
                if now >= balance_at or await self._membership.changed():
                    await self._membership.balance()
                    balance_at = now + BALANCE_EVERY
            await self._membership.give_back()
            busy = False
            if self._exclusive is None:
                busy = await self._fetch()
                if now >= due_at or self._claim_next:
                    due_at = now + DUE_EVERY
                    self._claim_next = False
                    busy = await self._claim(member) or busy
            else:
                self._run_exclusive()
            if not busy:
                await self._wake.wait()

    # Fetching

    async def _fetch(self) -> bool:
        room, room_bytes = self._in_flight.room, self._in_flight.room_bytes
        if room <= 0 or room_bytes <= 0:
            self._full = True
            return False
        if self._resequencing is not None and self._resequencing.due():
            await self._hand_out([])
        page = await self._feed.read(
            self._membership.unread(), limit=min(room, max(PAGE, self.consumer.batch or 0)), max_bytes=room_bytes
        )
        if not page.after:
            return False
        await self._take(page.messages)
        for partition, position in page.after.items():
            holding = self._membership.holdings.get(partition)
            if holding is not None:
                holding.fetched = position
                holding.tracker.scanned(position)
        return True

    async def _take(self, messages: Sequence[Recorded]) -> None:
        """Hand out what is to be handled of what was read, and dead-letter what nobody can read."""
        deliveries, unreadable = await self._intake.sort_out(messages, self._membership.holdings)
        for delivery, reason in unreadable:
            self._in_flight.add([delivery])
            await self._settlement.park(delivery, self._fence, self._in_flight.settled, reason)
        self._in_flight.add(deliveries)
        await self._hand_out(deliveries)

    async def _hand_out(self, deliveries: Sequence[Delivery]) -> None:
        """Dispatch deliveries; what must wait for an earlier one of its key is sent behind it."""
        assert self._dispatcher is not None
        if self._resequencing is not None:
            ordered = await self._resequencing.sort(deliveries)
            for delivery in ordered.repeats:
                self._intake.done(delivery)
            self._in_flight.drop(ordered.repeats)
            for delivery, reason in ordered.parked:
                await self._settlement.park(delivery, self._fence, self._in_flight.settled, reason)
            deliveries = ordered.deliver
        waiting = await self._waiting({delivery.lane for delivery in deliveries})
        straight = []
        for delivery in deliveries:
            delivery.behind = delivery.lane in waiting
            if delivery.suspect:
                await self._set_aside(delivery)  # before anything of the same key that follows
            else:
                straight.append(delivery)
        self._dispatcher.offer(straight)

    async def _waiting(self, lanes: Collection[str | None]) -> Collection[str]:
        """Those of the lanes that have a job, by the store's word; what this member has just sent is in `_blocked`."""
        assert self._dispatcher is not None
        for lane, durable in list(self._blocked.items()):
            if durable.done() and not self._dispatcher.holds(lane):
                del self._blocked[lane]
        return await self._store.occupied(self.consumer.group, [lane for lane in lanes if lane is not None])

    # Jobs

    async def _claim(self, member: str) -> bool:
        """Take due retries, unless enough is in hand already."""
        room = self._in_flight.room
        if room <= 0:
            return False
        # Few at a time: each claim counts as an attempt, even of a job that had not begun when the process died.
        limit = min(room, 2 * self.consumer.concurrency)
        jobs = await self._store.claim(self.consumer.group, member, limit=limit, lease=self._limits.lease)
        if not jobs:
            return False
        if jobs[0].crashed:
            # It may kill this process, too: then nothing else must have been in its hands.
            self._exclusive = jobs[0]
            self._run_exclusive()
            return True
        self._offer_jobs(jobs)
        return True

    def _run_exclusive(self) -> None:
        assert self._dispatcher is not None
        if self._exclusive is not None and self._in_flight.count == 0 and self._dispatcher.empty:
            self._offer_jobs([self._exclusive])

    def _offer_jobs(self, jobs: Sequence[Job]) -> None:
        assert self._dispatcher is not None
        deliveries = [Delivery.claimed(job) for job in jobs]
        self._in_flight.add(deliveries)
        self._dispatcher.offer(deliveries)

    # Handling

    def _handle(self, deliveries: Sequence[Delivery]) -> Awaitable[None]:
        """Called by the dispatcher's workers, in order within a key."""
        if len(deliveries) == 1 and self._goes_straight(deliveries[0]):
            return self._handle_together(deliveries)
        return self._handle_some(deliveries)

    def _goes_straight(self, delivery: Delivery) -> bool:
        if not self._fence.valid or delivery.lost:
            return False
        return delivery.job is not None or not (delivery.behind or delivery.lane in self._blocked)

    async def _handle_some(self, deliveries: Sequence[Delivery]) -> None:
        """Sort out what is lost and what must wait; a job is always alone, as its outcome is its own."""
        together: list[Delivery] = []
        for delivery in deliveries:
            if self._goes_straight(delivery):
                if delivery.job is None:
                    together.append(delivery)
                else:
                    await self._handle_together([delivery])
            elif not self._fence.valid or delivery.lost:
                self._in_flight.drop([delivery])
            else:
                await self._set_aside(delivery)
        if together:
            await self._handle_together(together)

    async def _handle_together(self, deliveries: Sequence[Delivery]) -> None:
        try:
            failed = await self._settlement.handle(deliveries, self._fence, self._in_flight.settled)
        except LeaseLostError as error:
            self._lose(deliveries, error)
            return
        except BackendError:
            self._fence.valid = False
            self._in_flight.drop(deliveries)
            raise
        for delivery, durable in failed:
            if delivery.lane is not None and delivery.job is None:
                self._blocked[delivery.lane] = durable

    async def _set_aside(self, delivery: Delivery) -> None:
        """Make a job of a message: it waits behind its key, or is tried apart from others."""
        try:
            durable = await self._settlement.set_aside(delivery, self._fence, self._in_flight.settled)
        except LeaseLostError as error:
            self._lose([delivery], error)
            return
        if delivery.lane is not None:
            self._blocked[delivery.lane] = durable

    def _lose(self, deliveries: Sequence[Delivery], error: LeaseLostError) -> None:
        """Something was taken over. What is dropped here must not be overtaken by a later message of its key, and
        the unit may have stood on partitions that are still held: so all is given up, and read again."""
        log.info("%s: %s", self.consumer.group, error)
        self._fence.valid = False
        self._in_flight.drop(deliveries)
        self._wake.set()

    # Being done

    def _committed_in(self, fence: Fence, feed: Feed) -> Callable[[Sequence[Delivery], BaseException | None], None]:
        def committed(deliveries: Sequence[Delivery], error: BaseException | None) -> None:
            if error is not None:
                log.warning("%s: a commit failed: %s", self.consumer.group, error)
                fence.valid = False
            else:
                self.handled += len(deliveries)
                if not feed.durable_positions:
                    acknowledge(feed, deliveries)
                # A job that ended lets the next of its lane go: a busy key would not catch up by the clock alone.
                self._claim_next = self._claim_next or any(delivery.job is not None for delivery in deliveries)

        return committed

    def _dropped(self, deliveries: Sequence[Delivery]) -> None:
        if self._exclusive is not None and any(delivery.job is self._exclusive for delivery in deliveries):
            self._exclusive = None
        if self._in_flight.room and (self._full or self._exclusive is not None or self._membership.draining):
            self._full = False
            self._wake.set()
        elif self._stopping or self._claim_next:
            self._wake.set()
