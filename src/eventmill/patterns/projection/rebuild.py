"""Building a projection anew beside the live one, letting readers see it, going back, and removing what is not shown."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from msgspec.structs import replace

from eventmill.core.crash import point
from eventmill.core.errors import BackendUnavailableError, BehindError, ConfigurationError, ConflictError
from eventmill.core.message import Partition
from eventmill.patterns.projection.beginning import create, planned, show, sweep
from eventmill.patterns.projection.catch_up import Report, caught_up, feeding, lag_of
from eventmill.patterns.projection.generations import BUILDING, FED, Generation, State
from eventmill.patterns.projection.reach import passed
from eventmill.patterns.projection.standing import Standing

log = logging.getLogger("eventmill")

PATIENCE = 60.0
"""Seconds to try to swap or drop while readers' locks, or events that one generation has and the other has not, are in
the way."""

GRACE = 2.0
"""Seconds for workers to begin to feed a generation, before it is taken that none will."""

HURRY = 0.2
"""Seconds to wait for a reader's lock at a time: those who come meanwhile wait behind us."""

PAUSE, LONGEST_PAUSE = 0.05, 1.0
"""Seconds between attempts: they grow where a reader's lock is in the way, whom others wait behind meanwhile."""


async def rebuild(
    view: Standing, *, show_it: bool = True, partial: bool = False, force: bool = False, report: Report | None = None
) -> int:
    """Build the next generation and, unless told not to `show_it`, swap to it; returns its number.

    One that was begun before by the same definition, and was killed or stopped, is gone on with. Readers and writers go
    on meanwhile. Side effects of the methods do not leave, as the live generation has had them.

    partial: of what is left, where the oldest messages were trimmed; else MissingHistoryError is raised.
    force: leave out what became a dead letter; else BlockedError is raised, and a further call goes on.
    """
    await sweep(view.ledger, view.ground, await view.state())
    generation = await _begun(view, partial=partial)
    if generation.state == FED:
        if show_it:
            await swap(view, to=generation.number)
        return generation.number
    async with feeding(view, generation.number) as subscription:
        await caught_up(view, generation.number, subscription, report, force=force)
        point("rebuild.caught_up")
        await _hand_to_workers(view, generation.number)
        point("rebuild.fed")
        if show_it:
            await swap(view, to=generation.number)
    return generation.number


async def _begun(view: Standing, *, partial: bool) -> Generation:
    """The generation that this definition is building, made where there is none."""
    for _ in range(20):
        state = await view.state()
        newest = state.newest
        if newest is not None:
            if newest.fingerprint == view.projection.fingerprint and newest.number != state.previous:
                return newest
            # Of a definition that was changed again, or one that was swapped away from.
            await drop(view, newest.number, force=True)
            continue
        try:
            return await _begin(view, state.next, partial=partial)
        except ConflictError:
            await asyncio.sleep(PAUSE)  # another process has begun one, or swapped
    raise ConfigurationError(f"projection {view.name!r}: others keep changing its generations; try again")


async def _begin(view: Standing, number: int, *, partial: bool) -> Generation:
    projection, ground, ledger = view.projection, view.ground, view.ledger
    generation = await planned(projection, ledger, ground, number, BUILDING, partial=partial)
    point("rebuild.enrolled")
    async with ground.unit() as (unit, tx):
        state, version = await ledger.read(unit)
        if state is None or state.next != number or state.newest is not None:
            raise ConflictError(
                f"projection {projection.name!r}", expected=number, actual=None if state is None else state.next
            )
        await create(projection, generation, tx)
        emitters = state.emitters
        if state.shown.fingerprint != projection.fingerprint:
            # Those who run the old definition may be gone for good: from here on the new one's side effects count.
            emitters = state.handed_over(number, await unit.cursors(ledger.group(state.live)))
        known = {**state.generations, number: generation}
        ledger.write(unit, replace(state, next=number + 1, generations=known, emitters=emitters), version)
        point("rebuild.created")
    return generation


async def _hand_to_workers(view: Standing, number: int) -> None:
    """From now on all workers of this definition feed it."""
    async with view.ground.unit() as (unit, _):
        state, version = await view.ledger.read(unit)
        if state is None or number not in state.generations:
            raise ConfigurationError(f"projection {view.name!r}: generation {number} was dropped while it was built")
        fed = replace(state.generations[number], state=FED)
        view.ledger.write(unit, replace(state, generations={**state.generations, number: fed}), version)


# Swapping


async def swap(view: Standing, *, to: int | None = None, back: bool = False, force: bool = False) -> int:
    """Let readers see another generation, from one transaction to the next; returns its number.

    to: which; by default the newest that is built, or with `back` the one that was shown before. Only when it has
    everything that readers have seen already: raises BehindError where it does not come so far. force: even then.
    """
    state = await view.state()
    number = _chosen(view, state, to, back=back)
    if number == state.live:
        return number
    loop = asyncio.get_running_loop()
    began = loop.time()
    pause = PAUSE
    while True:
        waiting = loop.time() - began
        try:
            if await _swapped(view, number, force=force):
                point("swap.done")
                await _drop_older(view)
                return number
            reason = "it has not yet all that readers have seen"
        except BackendUnavailableError as error:
            reason = str(error)
            pause = min(2 * pause, LONGEST_PAUSE)
        if waiting > PATIENCE or (waiting > GRACE and not await _is_fed(view, number)):
            lag = await lag_of(view, number)
            raise BehindError(
                f"generation {number} was not shown: {reason}: {lag}", events=lag.events, seconds=lag.seconds
            )
        await asyncio.sleep(pause)


def _chosen(view: Standing, state: State, to: int | None, *, back: bool) -> int:
    number = to if to is not None else state.previous if back else (state.newest.number if state.newest else None)
    if number is None:
        what = "before it to go back to" if back else f"but the live one: eventmill projections rebuild APP {view.name}"
        raise ConfigurationError(f"projection {view.name!r} has no generation {what}")
    if number not in state.generations:
        there = ", ".join(map(str, sorted(state.generations)))
        raise ConfigurationError(f"projection {view.name!r} has no generation {number}; there are: {there}")
    if state.generations[number].state == BUILDING:
        raise ConfigurationError(
            f"projection {view.name!r}: generation {number} is not finished; go on with it: eventmill projections rebuild APP {view.name}"
        )
    return number


async def _is_fed(view: Standing, number: int) -> bool:
    """Whether waiting helps: somebody takes events into it."""
    return (await lag_of(view, number)).members > 0


class _NotYet(Exception):
    """The generation lacks what readers have seen: nothing of the transaction is kept."""


async def _swapped(view: Standing, number: int, *, force: bool) -> bool:
    """Swap in one transaction, where the generation has what the live one has; False where it has not."""
    ledger, ground, types = view.ledger, view.ground, view.projection.types
    state = await view.state()
    shown, other = [await ground.store.cursors(ledger.group(each)) for each in (state.live, number)]
    if not force and not await passed(ground.source, other, shown, types):
        return False  # seen without taking a lock from anybody
    try:
        async with ground.unit() as (unit, tx):
            await unit.hurry(HURRY)
            now, version = await ledger.read(unit)
            if now is None or number not in now.generations:
                raise ConfigurationError(f"projection {view.name!r}: generation {number} was dropped")
            if number == now.live:
                return True
            # First what readers may keep us waiting for: nobody's events wait meanwhile.
            await show(now.generations[number], tx, before=now.shown)
            # From here to the commit neither moves.
            shown = await unit.cursors(ledger.group(now.live))
            other = await unit.cursors(ledger.group(number))
            if not force and not await passed(ground.source, other, shown, types):
                raise _NotYet
            emitters = now.emitters
            if now.emitters[-1].generation != number:
                emitters = now.handed_over(number, _furthest(shown, other))
            changed = replace(now, live=number, previous=now.live, emitters=emitters)
            ledger.write(unit, changed, version)
            point("swap.staged")
    except _NotYet:
        return False
    return True


def _furthest(one: Mapping[Partition, int], other: Mapping[Partition, int]) -> dict[Partition, int]:
    return {part: max(one.get(part, 0), other.get(part, 0)) for part in {*one, *other}}


async def _drop_older(view: Standing) -> None:
    """One generation is kept for the way back; those before it are not, once their side effects have left."""
    state = await view.state()
    for number in sorted(state.generations):
        if number < state.live and number not in (state.live, state.previous):
            try:
                await drop(view, number)
            except BehindError as error:
                log.info("projection %r: generation %d is kept until a further swap: %s", view.name, number, error)


# Dropping


async def drop(view: Standing, number: int | None = None, *, force: bool = False) -> int:
    """Remove a generation that readers do not see, its tables and its group; returns its number.

    number: by default the only one that is not live. Refused with BehindError while side effects are still to come
    from it; force: even then.
    """
    await sweep(view.ledger, view.ground, await view.state())
    state = await view.state()
    number = _droppable(view, state, number)
    loop = asyncio.get_running_loop()
    until = loop.time() + PATIENCE
    while True:
        try:
            await _dropped(view, number, force=force)
            break
        except BackendUnavailableError:
            if loop.time() > until:
                raise
            await asyncio.sleep(PAUSE)
    point("drop.done")
    await sweep(view.ledger, view.ground, await view.state())
    return number


def _droppable(view: Standing, state: State, number: int | None) -> int:
    others = sorted(set(state.generations) - {state.live})
    if number is None and len(others) == 1:
        return others[0]
    if number is None:
        there = f"say which: --generation {' or '.join(map(str, others))}" if others else "there is only the live one"
        raise ConfigurationError(f"projection {view.name!r}: {there}")
    if number == state.live:
        raise ConfigurationError(f"projection {view.name!r}: generation {number} is what readers see; swap first")
    if number not in others:
        raise ConfigurationError(f"projection {view.name!r} has no generation {number}; there are: {others}")
    return number


async def _dropped(view: Standing, number: int, *, force: bool) -> None:
    ledger, ground = view.ledger, view.ground
    async with ground.unit() as (unit, tx):
        await unit.hurry(HURRY)
        state, version = await ledger.read(unit)
        if state is None or number not in state.generations:
            return
        if number == state.live:
            raise ConfigurationError(f"projection {view.name!r}: generation {number} is what readers see; swap first")
        mine = await unit.cursors(ledger.group(number))
        emitters = state.emitters
        if emitters[-1].generation == number:
            emitters = state.handed_over(state.live, mine)
        elif not force:
            await _refuse_if_awaited(view, state, number, mine)
        generation = state.generations[number]
        for table in reversed(generation.tables):
            await tx.execute(f'DROP TABLE "{generation.placed.name(table)}"')
        known = {each: kept for each, kept in state.generations.items() if each != number}
        previous = None if state.previous == number else state.previous
        ledger.write(unit, replace(state, generations=known, previous=previous, emitters=emitters), version)
        point("drop.staged")


async def _refuse_if_awaited(view: Standing, state: State, number: int, cursors: Mapping[Partition, int]) -> None:
    """Up to where the next emitter begins, this one's side effects count."""
    for emitter, following in zip(state.emitters, state.emitters[1:], strict=False):
        if emitter.generation == number and state.generations[number].fingerprint == view.projection.fingerprint:
            # Not those of its cursors alone: a generation that nobody ever fed has none.
            parts = await view.ground.partitions(frozenset(state.generations[number].topics))
            targets = {part: following.after.get(str(part), 0) for part in parts}
            lag = await lag_of(view, number)
            if lag.retrying or not await passed(view.ground.source, cursors, targets, view.projection.types):
                raise BehindError(
                    f"generation {number} has events before it whose side effects are its own; try again when the workers "
                    f"have fed it, or drop it without them (--force): {lag}",
                    events=lag.events, seconds=lag.seconds,
                )  # fmt: skip
