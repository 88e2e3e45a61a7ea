"""The partitions that a member of a group holds, and how it comes by them."""

from __future__ import annotations

from dataclasses import replace

from eventmill.core.capabilities import Feed, Store, Subscriber
from eventmill.core.claims import Cursor, Fence
from eventmill.core.errors import LeaseLostError
from eventmill.core.message import Partition
from eventmill.runtime.consumer import Consumer
from eventmill.runtime.delivery import Holding
from eventmill.runtime.settlement import Settlement

SUSPICIOUS = 2
"""Holders in a row that vanished without moving a partition's cursor: then a message of it may be what kills them."""

SUSPECTS = 64
"""Messages of such a partition that go through jobs, whose attempts are counted, and which run alone after a crash."""


class Membership:
    """One member's share, from joining to leaving; a new one is made after each loss."""

    def __init__(
        self,
        consumer: Consumer,
        *,
        source: Subscriber,
        feed: Feed,
        store: Store,
        settlement: Settlement,
        fence: Fence,
        lease: float,
    ) -> None:
        self.holdings: dict[Partition, Holding] = {}
        self.fence = fence
        self._consumer = consumer
        self._source = source
        self._feed = feed
        self._store = store
        self._settlement = settlement
        self._lease = lease
        self._generation = -1
        self.draining = False
        """Whether something is to be given back as soon as it is finished."""

    async def changed(self) -> bool:
        """Whether members came or went since the last balance."""
        return await self._store.generation(self.fence.group) != self._generation

    async def balance(self) -> None:
        """One step towards a fair spread: take what is free, mark for draining what is too much, note losses."""
        fence = self.fence
        topics = await self._source.topics()
        wanted = self._consumer.topics(topics)
        partitions = [Partition(topic, number) for topic in sorted(wanted) for number in range(topics.get(topic, 0))]
        await self._source.admit(fence.group, self._consumer.types, partitions)
        await self._store.enroll(fence.group, self._consumer.types, partitions)
        balance = await self._store.balance(fence.group, fence.member, partitions, self._lease)
        lost = [part for part, holding in self.holdings.items() if balance.held.get(part) != holding.cursor.token]
        for partition in lost:
            self.holdings.pop(partition).lost = True
        if lost:
            await self._feed.release(lost)
        for cursor in balance.acquired:
            suspicious = cursor.abandoned >= SUSPICIOUS and self._consumer.suspects
            self.holdings[cursor.partition] = Holding(self._begun(cursor), SUSPECTS if suspicious else 0)
        unknown = [partition for partition in balance.held if partition not in self.holdings]
        if unknown:
            # Held by this name, yet not known here: give it back rather than leave it unread.
            await self._store.release(fence.group, fence.member, unknown)
        for partition, holding in self.holdings.items():
            holding.draining = partition in balance.surplus
        self._look_for_draining()
        await self._keep_idle_cursors()
        self._generation = await self._store.generation(fence.group)

    async def give_back(self) -> None:
        """Release what is too much, as soon as nothing of it is being handled."""
        done = [
            partition
            for partition, holding in self.holdings.items()
            if holding.draining and holding.tracker.in_flight == 0
        ]
        if done:
            for partition in done:
                del self.holdings[partition]
            self._look_for_draining()
            await self._feed.release(done)
            await self._store.release(self.fence.group, self.fence.member, done)

    def _look_for_draining(self) -> None:
        # Asked with every message that is done, changed with a balance only.
        self.draining = any(holding.draining for holding in self.holdings.values())

    async def leave(self) -> None:
        """Give everything back, in good order: first to the source, so that whoever comes next finds it there."""
        await self._feed.close()
        await self._store.release(self.fence.group, self.fence.member, None)

    def unread(self) -> dict[Partition, int]:
        """Where to read on, partition by partition."""
        return {partition: holding.fetched for partition, holding in self.holdings.items() if not holding.draining}

    def _begun(self, cursor: Cursor) -> Cursor:
        """Where to go on: a queue's positions mean nothing to the next reader, but must not come twice."""
        if self._feed.durable_positions:
            return cursor
        return replace(cursor, position=max(cursor.position, *cursor.ahead), ahead=()) if cursor.ahead else cursor

    async def _keep_idle_cursors(self) -> None:
        """Note how far the log was looked through where nothing was to be handled: else trimming waits for it."""
        reported = {}
        for partition, holding in self.holdings.items():
            before = holding.tracker.position
            if holding.tracker.in_flight == 0 and holding.tracker.cursor()[0] > before:
                try:
                    await self._settlement.note(holding, self.fence)
                except LeaseLostError:
                    continue  # the next balance tells what else was lost
            reported[partition] = holding.tracker.position
        if self._consumer.inbox and reported:
            await self._feed.report(reported)
