"""Feeding a projection's generations: those there are, whenever they change, without a restart."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace

from eventmill.core.capabilities import Capability, Store
from eventmill.core.errors import BackendError
from eventmill.patterns.projection.definition import Projection
from eventmill.patterns.projection.generations import FED, Generation, Ledger, decoded
from eventmill.patterns.projection.ground import Ground
from eventmill.patterns.projection.projecting import ProjectionHandler
from eventmill.patterns.projection.tables import Tables
from eventmill.runtime.consumer import Consumer
from eventmill.runtime.heartbeat import Heartbeat
from eventmill.runtime.subscription import Subscription

log = logging.getLogger("eventmill")

LOOK = 0.25
"""Seconds between looks at which generations there are."""


def consumer_of(
    projection: Projection, ledger: Ledger, store: Store | None, number: int, *, own: bool = False
) -> Consumer:
    """The group that fills one generation. store: where it is looked up whether the generation is still there."""
    tables = Tables(projection.tables, number)

    async def gone() -> bool:
        assert store is not None
        state, _ = decoded(await store.document(ledger.key))
        return state is None or number not in state.generations

    return Consumer(
        group=ledger.group(number),
        types=projection.types,
        topics=projection.topics,
        handler=ProjectionHandler(projection, tables, ledger, None if store is None else gone),
        retry=projection.retry,
        # One batch at a time takes all there is, so that nothing is done ahead of the cursor: the partitions
        # spread over processes, and a second batch of this one would only wait for the first one's rows.
        concurrency=1,
        batch=projection.batch,
        needs=Capability.LOG,
        own=own,
    )


class Projector:
    """This process's part in feeding one projection: a member of the group of each generation that its code can feed.

    Those of another definition are left to the processes that still run it.
    """

    def __init__(self, projection: Projection, ledger: Ledger, ground: Ground, heartbeat: Heartbeat) -> None:
        self._projection = projection
        self._ledger = ledger
        self._ground = ground
        self._heartbeat = heartbeat
        self._fed: dict[int, tuple[Subscription, asyncio.Task[None]]] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._handled = 0
        self._stopped = asyncio.Event()
        self.consumer = replace(consumer_of(projection, ledger, None, 0), group=ledger.whole)

    @property
    def handled(self) -> int:
        """Events folded into the generation that readers see, or that came before it."""
        return self._handled + sum(subscription.handled for subscription, _ in self._fed.values())

    def stop(self) -> None:
        """Fetch nothing more; `run` returns when what is in hand is finished."""
        self._stopped.set()
        for subscription, _ in self._fed.values():
            subscription.stop()

    async def run(self) -> None:
        """Feed until stopped. Raises what ends a subscription early."""
        try:
            while not self._stopped.is_set():
                try:
                    await self._follow()
                except BackendError as error:
                    log.warning("%s: which generations there are cannot be seen: %s", self._ledger.whole, error)
                await self._pause()
            for _, task in self._fed.values():
                await task
        finally:
            tasks = [*(task for _, task in self._fed.values()), *self._ending]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow(self) -> None:
        state, _ = decoded(await self._ground.store.document(self._ledger.key))
        there = {} if state is None else state.generations
        wanted = {number for number, generation in there.items() if self._feeds(generation)}
        for number in self._fed.keys() - wanted:
            self._leave(number, dropped=number not in there)
        for number in sorted(wanted - self._fed.keys()):
            ground = self._ground
            consumer = consumer_of(self._projection, self._ledger, ground.store, number, own=not ground.relayed)
            subscription = self._ground.subscribe(consumer, self._heartbeat)
            task = asyncio.create_task(subscription.run(), name=subscription.consumer.group)
            self._fed[number] = (subscription, task)

    def _feeds(self, generation: Generation) -> bool:
        return generation.state == FED and generation.fingerprint == self._projection.fingerprint

    def _leave(self, number: int, *, dropped: bool) -> None:
        subscription, task = self._fed.pop(number)
        self._handled += subscription.handled
        subscription.stop()
        ending = asyncio.create_task(self._end(task, number, dropped=dropped))
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)

    async def _end(self, task: asyncio.Task[None], number: int, *, dropped: bool) -> None:
        await task
        if dropped:
            # It may have joined once more after the drop; nothing of the group is to stay.
            await self._ground.store.forget(self._ledger.group(number))

    async def _pause(self) -> None:
        """Until the next look, a stop, or the end of a subscription, which is an error."""
        tasks = [task for _, task in self._fed.values()]
        stopped = asyncio.create_task(self._stopped.wait())
        alarm = asyncio.ensure_future(self._ground.clock.sleep(LOOK))
        try:
            await asyncio.wait([stopped, alarm, *tasks], return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
            alarm.cancel()
        for task in [*tasks, *self._ending]:
            if task.done() and not self._stopped.is_set():
                task.result()
