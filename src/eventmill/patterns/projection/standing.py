"""What a projection has made, as the service that reads it sees it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from eventmill.core.errors import BehindError, BlockedError, ConfigurationError
from eventmill.core.job import Job
from eventmill.core.message import Partition
from eventmill.patterns.projection.definition import Projection
from eventmill.patterns.projection.generations import Generation, Ledger, State, decoded
from eventmill.patterns.projection.ground import Ground
from eventmill.patterns.projection.lag import Lag, measure
from eventmill.patterns.projection.reach import Watch, passed
from eventmill.patterns.relay import RELAY

AGAIN = 0.25
"""Seconds after which whoever waits looks again at which generation is live, and at what is retried."""

JOBS = 1_000


class Standing:
    """How one projection of an App stands: which generations it has, how far they are, and waiting for that."""

    def __init__(self, projection: Projection, ledger: Ledger, ground: Ground) -> None:
        self.projection = projection
        self.ledger = ledger
        self.ground = ground
        self._watches: dict[str, Watch] = {}

    @property
    def name(self) -> str:
        """The projection's."""
        return self.projection.name

    async def state(self) -> State:
        """Its generations, as last committed."""
        await self.ground.open()
        state, _ = decoded(await self.ground.store.document(self.ledger.key))
        if state is None:
            raise ConfigurationError(f"projection {self.name!r} is not in the store: was its App opened on it?")
        return state

    async def lag(self) -> Lag:
        """How far behind the live generation is, in events and seconds, and what blocks it."""
        state = await self.state()
        return await measure(self.ground, self.ledger, state, state.shown)

    async def lags(self) -> Sequence[Lag]:
        """The same of every generation, the oldest first."""
        state = await self.state()
        return [await measure(self.ground, self.ledger, state, each) for _, each in sorted(state.generations.items())]

    async def at_least(self, positions: int | Sequence[int], *, timeout: float = 5.0) -> None:
        """Return when readers see everything up to these positions, which `publish` has returned.

        That is: each event of the projection's types that stands no later than the greatest of them in the log of
        this service was taken in, or is a retry or dead letter of another event than those named. With a broker in
        between, first all of it is seen to be sent there, and then that the projection has come to where the
        broker's log ended at that moment.

        Raises BehindError, with the lag, when `timeout` seconds are over; BlockedError at once where one of the
        events is a dead letter, or parked behind one: it would never come.
        """
        named = [positions] if isinstance(positions, int) else list(positions)
        if not named:
            raise ConfigurationError(
                "at_least: no positions: they are known when what was published is committed; inside a transaction or a "
                "handler, wait after its end"
            )
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout
        await self.ground.open()
        wait = _Wait(self, max(named), set(named))
        while True:
            state = await self.state()
            group = wait.group or self.ledger.group(state.live)
            cursors = await self.ground.store.cursors(group)
            if await wait.over(state.shown):
                return
            left = until - loop.time()
            if left <= 0:
                lag = await measure(self.ground, self.ledger, state, state.shown)
                raise BehindError(
                    f"position {max(named)} was not in the view after {timeout:g} s: {lag}",
                    events=lag.events, seconds=lag.seconds,
                )  # fmt: skip
            await self._watch(group).moved(cursors, min(left, AGAIN))

    async def close(self) -> None:
        """Look no more; the store is about to close."""
        for watch in self._watches.values():
            await watch.close()
        self._watches.clear()

    def _watch(self, group: str) -> Watch:
        watch = self._watches.get(group)
        if watch is None:
            watch = self._watches[group] = Watch(self.ground, group)
        return watch


class _Wait:
    """One call's question, asked again whenever something may have changed.

    group: whose cursors to watch where it is not the projection's own yet.
    """

    def __init__(self, view: Standing, position: int, named: set[int]) -> None:
        self._view = view
        self._position = position
        self._named = named
        self._ids: set[tuple[str, str]] | None = None
        self._targets: Mapping[Partition, int] | None = None
        self.group: str | None = RELAY if view.ground.relayed else None

    async def over(self, generation: Generation) -> bool:
        ground, projection = self._view.ground, self._view.projection
        if self._targets is None:
            self._targets = await self._found_targets(frozenset(generation.topics))
            if self._targets is None:
                return False
            self.group = None
        cursors = await ground.store.cursors(self._view.ledger.group(generation.number))
        if not await passed(ground.source, cursors, self._targets, projection.types):
            return False
        return not await self._held_up(generation)

    async def _found_targets(self, topics: frozenset[str]) -> Mapping[Partition, int] | None:
        """Up to where it has to be read; None where that cannot be said before the relay has come further."""
        ground = self._view.ground
        if not ground.relayed:
            return dict.fromkeys(await ground.partitions(topics), self._position)
        there = await ground.published.topics()
        own = [Partition(topic, number) for topic in topics for number in range(there.get(topic, 0))]
        cursors = await ground.store.cursors(RELAY)
        if not await passed(ground.published, cursors, dict.fromkeys(own, self._position), None):
            return None
        return {part: end for part, end in (await ground.source.end()).items() if part.topic in topics}

    async def _held_up(self, generation: Generation) -> bool:
        """Whether one of the events waits for another attempt. Raises BlockedError where it waits for an operator."""
        view = self._view
        store = view.ground.store
        group = view.ledger.group(generation.number)
        jobs = await store.jobs(group, limit=JOBS)
        if not jobs:
            return False
        mine = [job for job in jobs if await self._is_named(job)]
        for job in mine:
            dead = [each for each in jobs if each.state == "dead" and (each is job or each.lane == job.lane)]
            if dead and (job.state == "dead" or job.lane is not None):
                state = await view.state()
                lag = await measure(view.ground, view.ledger, state, generation)
                behind = "is a dead letter" if job.state == "dead" else f"is parked behind dead letter {dead[0].id}"
                raise BlockedError(
                    f"{job.message.type} {job.message.id} {behind} of this view, until somebody replays or skips it "
                    f"(eventmill dead): {lag}",
                    events=lag.events, seconds=lag.seconds,
                )  # fmt: skip
        return bool(mine)

    async def _is_named(self, job: Job) -> bool:
        if not self._view.ground.relayed:
            return job.position in self._named
        if self._ids is None:
            self._ids = await self._named_ids()
        return (job.message.source, job.message.id) in self._ids

    async def _named_ids(self) -> set[tuple[str, str]]:
        """The events' own identities, as a broker has other positions."""
        log = self._view.ground.published
        there = await log.topics()
        partitions = [Partition(topic, number) for topic, count in there.items() for number in range(count)]
        ids = set()
        for position in self._named:
            page = await log.read(dict.fromkeys(partitions, position - 1), limit=1)
            ids |= {(found.message.source, found.message.id) for found in page.messages if found.position == position}
        return ids
