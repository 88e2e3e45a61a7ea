"""How far a projection is behind, and what holds it up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from eventmill.core.claims import Group
from eventmill.core.job import Job
from eventmill.core.message import Partition
from eventmill.patterns.projection.generations import Generation, Ledger, State
from eventmill.patterns.projection.ground import Ground
from eventmill.patterns.relay import RELAY

NAMED = 5
"""Dead letters that are named."""

SCANNED = 1_000
"""Jobs looked at for the oldest of them."""


@dataclass(frozen=True, slots=True)
class Lag:
    """One generation of a projection, held against the log.

    events: how many it has yet to take in: beyond its cursors, and waiting as retries or behind a dead letter.
    seconds: for how long the oldest of those has waited. unsent: what the service has yet to publish to its broker.
    started: whether it ever ran. members: the processes' members that feed it now.
    blocked: what an operator must see to, in words.
    """

    projection: str
    generation: int
    live: bool
    version: str
    state: str
    partial: bool
    started: bool
    members: int
    events: int
    seconds: float
    retrying: int
    parked: int
    dead: int
    unsent: int
    blocked: Sequence[str]

    def __str__(self) -> str:
        if not self.events and not self.unsent:
            return f"{self.projection} (generation {self.generation}) is up to date"
        counted = "1 event" if self.events == 1 else f"{self.events:,} events"
        text = f"{self.projection} (generation {self.generation}) is {counted} and {self.seconds:.1f} s behind"
        if self.unsent:
            text += f"; {self.unsent:,} more are yet to be sent to the broker"
        if not self.members:
            text += "; nobody feeds it" if self.started else "; it was never started"
            text += ": run the App (eventmill run)"
        if self.blocked:
            text += f"; blocked by {'; '.join(self.blocked)}"
        return text


async def measure(ground: Ground, ledger: Ledger, state: State, generation: Generation) -> Lag:
    """One generation's lag, counted now."""
    name = ledger.group(generation.number)
    found = next((group for group in await ground.store.groups() if group.name == name), None)
    known = found or Group(name, None, {}, {})
    topics = frozenset(generation.topics)
    after = {part: known.cursors.get(part, 0) for part in {*await ground.partitions(topics), *known.cursors}}
    # A group that never ran is known all the same: it was enrolled with what it reads when it was made.
    pending = await ground.source.backlog(name, after, known.types)
    jobs = await ground.store.jobs(name, limit=SCANNED) if known.retrying + known.parked + known.dead else ()
    dead = await ground.store.jobs(name, state="dead", limit=NAMED) if known.dead else ()
    waiting = [*(job.recorded_at for job in jobs), *([] if pending.oldest is None else [pending.oldest])]
    return Lag(
        projection=ledger.whole.partition(".")[2],
        generation=generation.number,
        live=generation.number == state.live,
        version=generation.version,
        state=generation.state,
        partial=generation.partial,
        started=bool(known.members) or any(known.cursors.values()),
        members=len(known.members),
        events=pending.messages + known.retrying + known.parked + known.dead,
        seconds=max(0.0, (ground.now - min(waiting)) / 1000) if waiting else 0.0,
        retrying=known.retrying,
        parked=known.parked,
        dead=known.dead,
        unsent=await _unsent(ground) if ground.relayed else 0,
        blocked=[_described(job) for job in dead]
        + ([f"and {known.dead - len(dead)} more"] if known.dead > NAMED else []),
    )


async def _unsent(ground: Ground) -> int:
    there = await ground.published.topics()
    partitions = [Partition(topic, number) for topic, count in there.items() for number in range(count)]
    cursors = await ground.store.cursors(RELAY)
    return (await ground.published.pending({part: cursors.get(part, 0) for part in partitions})).messages


def _described(job: Job) -> str:
    error = job.errors[-1].error if job.errors else "no reason is kept"
    key = "" if job.message.key is None else f" of key {job.message.key!r}"
    return f"dead letter {job.id} ({job.message.type}{key}): {error[:200]}"
