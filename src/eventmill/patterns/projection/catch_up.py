"""Filling a generation beside the live one, and knowing when it has caught up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from eventmill.core.claims import Group
from eventmill.core.errors import BlockedError
from eventmill.core.reading import Pending
from eventmill.patterns.projection.generations import Generation, State
from eventmill.patterns.projection.lag import Lag, measure
from eventmill.patterns.projection.projector import consumer_of
from eventmill.patterns.projection.standing import Standing
from eventmill.runtime.heartbeat import Heartbeat
from eventmill.runtime.subscription import Subscription

BATCH = 5_000
"""Events in one commit of a rebuild, at least: nobody waits for the latest one."""

NEAR, RECENT = 50, 1.0
"""A generation counts as caught up with so few events before it, or none older than so many seconds: there are always
some while others publish."""

TELL = 0.1
"""Seconds between two words on how far it is."""

LOOK = 0.5
"""Seconds between two counts of what is left, where the events handled do not say that it is the end."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a rebuild has come. done and total: events; rate: events a second, over the last few seconds."""

    generation: int
    done: int
    total: int
    rate: float

    @property
    def left(self) -> float | None:
        """Seconds until the end at this rate; None where it does not move."""
        return None if self.rate <= 0 else max(0, self.total - self.done) / self.rate


Report = Callable[[Progress], None]


@asynccontextmanager
async def feeding(view: Standing, number: int) -> AsyncIterator[Subscription]:
    """A member of a generation's group, in large batches, for as long as the block lasts."""
    ground = view.ground
    consumer = consumer_of(view.projection, view.ledger, ground.store, number, own=not ground.relayed)
    consumer = replace(consumer, batch=max(view.projection.batch, BATCH))
    heartbeat = Heartbeat(ground.store, ground.settings.lease)
    subscription = ground.subscribe(consumer, heartbeat)
    task = asyncio.create_task(subscription.run(), name=consumer.group)
    watched = asyncio.create_task(_watched(task))
    try:
        yield subscription
        watched.cancel()
        subscription.stop()
        await task
    finally:
        task.cancel()
        watched.cancel()
        await asyncio.gather(task, watched, return_exceptions=True)
        heartbeat.close()


async def _watched(task: asyncio.Task[None]) -> None:
    """Nothing to do: what ends the subscription is told where its result is asked for."""
    await asyncio.wait({task})


async def caught_up(
    view: Standing, number: int, subscription: Subscription, report: Report | None, *, force: bool = False
) -> None:
    """Return when hardly anything is left before a generation. Raises BlockedError where a dead letter is in the way."""
    loop = asyncio.get_running_loop()
    total = (await _left(view, number)).messages
    base = subscription.handled
    recent = [(loop.time(), 0)]
    counted = loop.time()
    while True:
        done = subscription.handled - base
        recent = [*recent[-40:], (loop.time(), done)]
        seconds = recent[-1][0] - recent[0][0]
        if report is not None:
            rate = (done - recent[0][1]) / seconds if seconds > 0 else 0.0
            report(Progress(number, min(done, total), total, rate))
        if done >= total - NEAR or (loop.time() - counted >= LOOK and recent[-1][1] == recent[-2][1]):
            left = await _left(view, number)
            counted = loop.time()
            total = done + left.messages
            recently = left.oldest is None or view.ground.now - left.oldest <= RECENT * 1000
            if (left.messages <= NEAR or recently) and await _settled(view, number, force=force):
                if report is not None:
                    report(Progress(number, total, total, 0.0))
                return
        await asyncio.sleep(TELL)


async def _left(view: Standing, number: int) -> Pending:
    """What is beyond the cursors."""
    ground = view.ground
    group = view.ledger.group(number)
    topics = view.projection.topics(await ground.source.topics())
    cursors = await ground.store.cursors(group)
    after = {part: cursors.get(part, 0) for part in {*cursors, *await ground.partitions(topics)}}
    return await ground.source.backlog(group, after, view.projection.types)


async def _settled(view: Standing, number: int, *, force: bool) -> bool:
    """Whether nothing waits for another attempt."""
    known = await _group(view, number)
    if known is not None and known.dead and not force:
        lag = await lag_of(view, number)
        raise BlockedError(
            f"generation {number} cannot be finished: {'; '.join(lag.blocked)}. Mend its cause and replay it (eventmill "
            "dead replay), or skip it; then go on with the rebuild. Readers still see the old generation",
            events=lag.events, seconds=lag.seconds,
        )  # fmt: skip
    return known is None or not known.retrying


async def _group(view: Standing, number: int) -> Group | None:
    name = view.ledger.group(number)
    return next((group for group in await view.ground.store.groups() if group.name == name), None)


async def lag_of(view: Standing, number: int) -> Lag:
    """One generation's lag."""
    state: State = await view.state()
    generation: Generation = state.generations[number]
    return await measure(view.ground, view.ledger, state, generation)
