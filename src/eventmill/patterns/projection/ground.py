"""What a pattern stands on: the App's store, the log it reads, and what it takes to become a member of a group."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from eventmill.core.capabilities import Log, Store, Unit
from eventmill.core.clock import Clock
from eventmill.core.envelope import Envelopes
from eventmill.core.message import Partition
from eventmill.runtime.consumer import Consumer
from eventmill.runtime.heartbeat import Heartbeat
from eventmill.runtime.subscription import Subscription
from eventmill.runtime.transaction import Transaction
from eventmill.settings import Settings


@dataclass(frozen=True, slots=True)
class Ground:
    """One App's. published: the log that the App publishes into; read_from: which one its projections read."""

    app: str
    store: Store
    published: Log
    read_from: Callable[[], Log]
    envelopes: Envelopes
    clock: Clock
    settings: Settings
    subscribe: Callable[[Consumer, Heartbeat], Subscription]
    open: Callable[[], Awaitable[None]]

    @property
    def source(self) -> Log:
        """The log that is read: the broker's, or the service's own, where that has what is to be read."""
        return self.read_from()

    @property
    def relayed(self) -> bool:
        """Whether a broker is between what is published and what is read."""
        return self.source is not self.published

    @property
    def now(self) -> int:
        """Milliseconds since 1970 UTC."""
        return int(self.clock.now() * 1000)

    @asynccontextmanager
    async def unit(self) -> AsyncIterator[tuple[Unit, Transaction]]:
        """One transaction, in both of its forms; durable when the block has ended."""
        unit = self.store.unit()
        transaction = Transaction(unit, self.envelopes)
        try:
            yield unit, transaction
        except BaseException:
            await unit.discard()
            raise
        else:
            durable = await unit.finish()
        finally:
            transaction.close()
        await durable

    async def partitions(self, topics: frozenset[str]) -> list[Partition]:
        """All partitions of some topics, as far as they are there."""
        there = await self.source.topics()
        return [Partition(topic, number) for topic in sorted(topics) for number in range(there.get(topic, 0))]
