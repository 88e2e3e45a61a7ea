"""What was read, sorted out: what is to be handled, and what is dealt with by being looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from eventmill.core.capabilities import Feed, Store
from eventmill.core.message import Partition, Recorded
from eventmill.runtime.consumer import Consumer
from eventmill.runtime.delivery import Delivery, Holding


class Intake:
    """The way from a feed into a member's hands."""

    def __init__(self, consumer: Consumer, feed: Feed, store: Store) -> None:
        self._consumer = consumer
        self._feed = feed
        self._store = store

    async def sort_out(
        self, messages: Sequence[Recorded], holdings: Mapping[Partition, Holding]
    ) -> tuple[Sequence[Delivery], Sequence[tuple[Delivery, str]]]:
        """Deliveries to hand out, and those that nobody can read, each with the reason.

        What is not wanted, was done ahead, or was handled before is marked as done, and is none of them.
        """
        deliveries: list[Delivery] = []
        unreadable: list[tuple[Delivery, str]] = []
        picky = self._consumer.where is not None
        for recorded in messages:
            holding = holdings.get(recorded.partition)
            if holding is None or not holding.tracker.start(recorded.position):
                continue
            delivery = Delivery.read(recorded, holding)
            if recorded.unreadable is not None:
                unreadable.append((delivery, recorded.unreadable))
                continue
            if picky and not self._consumer.wants(recorded.message):
                self.done(delivery)
                continue
            if holding.suspects:
                holding.suspects -= 1
                delivery.suspect = True
            deliveries.append(delivery)
        if self._consumer.inbox and deliveries:
            deliveries = await self._without_repeats(deliveries)
        return deliveries, unreadable

    async def _without_repeats(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        known = await self._store.received(self._consumer.group, [delivery.message.id for delivery in deliveries])
        kept = []
        for delivery in deliveries:
            if delivery.message.identity in known:
                self.done(delivery)
            else:
                kept.append(delivery)
        return kept

    def done(self, delivery: Delivery) -> None:
        """There is nothing to do: it is not wanted, or was handled before, in a commit that stands."""
        if delivery.holding is not None and delivery.position is not None:
            delivery.holding.tracker.done(delivery.position)
            self._feed.acknowledge(delivery.holding.cursor.partition, [delivery.position])
