"""Schedules: tasks that are sent again and again, each time by exactly one of any number of processes."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import msgspec

from eventmill.core.capabilities import Store, Transaction
from eventmill.core.crash import point
from eventmill.core.errors import BackendError, ConfigurationError, ConflictError
from eventmill.patterns.tasks.call import Call, CallSpec, Desk
from eventmill.patterns.tasks.timing import Timing
from eventmill.patterns.tasks.unique import Unique

log = logging.getLogger("eventmill")

LOOK_EVERY = 0.5
"""Seconds between two looks at the stored plans, which may have been edited."""

MANY = 1_000


class Plan(msgspec.Struct, omit_defaults=True):
    """A schedule as it is stored: what it sends, when it fires next, and what operators made of it.

    next, last: milliseconds since 1970 UTC. declared: the timing in the code that was seen last. edited: the timing is an
    operator's, and the code's does not replace it. fires: how often it has fired.
    """

    name: str
    call: CallSpec
    timing: Timing
    declared: Timing
    next: int
    until: str = "done"
    paused: bool = False
    edited: bool = False
    last: int | None = None
    fires: int = 0


_decode = msgspec.json.Decoder(Plan).decode
_encode = msgspec.json.Encoder().encode


class Schedules:
    """`app.tasks.schedules`: what is planned, and what operators do about it.

    The plan is a document. Whoever finds it due writes the next moment and sends the task in one commit, which the
    document's version lets succeed once; so any number of processes may look after it.
    """

    def __init__(self, desk: Desk, store: Store) -> None:
        self._desk = desk
        self._store = store
        self._declared: dict[str, tuple[Call, Timing]] = {}

    def declare(self, name: str, call: Call, timing: Timing) -> None:
        """Have a call sent by a schedule of this name."""
        timing.check(name)
        if name in self._declared:
            raise ConfigurationError(f"schedule {name!r} is there already: give this one another name=")
        self._declared[name] = call, timing

    @property
    def any(self) -> bool:
        """Whether some are declared here."""
        return bool(self._declared)

    def _key(self, name: str) -> str:
        return f"{self._desk.prefix}schedule/{name}"

    @property
    def _now(self) -> int:
        return int(self._desk.clock.now() * 1000)

    # Looking and operating

    async def list(self) -> Sequence[Plan]:
        """All that are stored, by their names."""
        found: list[Plan] = []
        after = ""
        while page := await self._store.documents(self._key(""), after=after, limit=MANY):
            found += [_decode(each.data) for each in page]
            if len(page) < MANY:
                break
            after = page[-1].key
        return found

    async def pause(self, name: str) -> None:
        """Let it not fire until it is resumed; the moments that pass meanwhile are not made up for."""
        async with self._store.transaction() as tx:
            plan, version = await self._load(tx, name)
            plan.paused = True
            tx.put(self._key(name), _encode(plan), expected=version)

    async def resume(self, name: str) -> None:
        """Let it fire again, from its next moment on."""
        async with self._store.transaction() as tx:
            plan, version = await self._load(tx, name)
            if plan.paused:
                plan.paused = False
                plan.next = plan.timing.following(self._now)
                tx.put(self._key(name), _encode(plan), expected=version)

    async def edit(self, name: str, timing: Timing | None) -> None:
        """Have it fire at other times than its code says, until it is edited again; None is the code's word again."""
        if timing is not None:
            timing.check(name)
        async with self._store.transaction() as tx:
            plan, version = await self._load(tx, name)
            plan.edited = timing is not None
            plan.timing = timing or plan.declared
            plan.next = plan.timing.following(self._now)
            tx.put(self._key(name), _encode(plan), expected=version)

    async def run_now(self, name: str) -> str:
        """Send its task at once, beside the plan; returns the task's id."""
        async with self._store.transaction() as tx:
            plan, _ = await self._load(tx, name)
            return await self._send(tx, plan, self._now)

    async def _load(self, tx: Transaction, name: str) -> tuple[Plan, int]:
        found = await tx.get(self._key(name))
        if found is None:
            there = ", ".join(plan.name for plan in await self.list()) or "none"
            raise ConfigurationError(f"there is no schedule {name!r}; there are: {there}")
        return _decode(found.data), found.version

    # Firing

    async def run(self) -> None:
        """Register what is declared here, and fire it whenever it is due, until cancelled."""
        registered = False
        while True:
            pause = LOOK_EVERY
            try:
                if not registered:
                    for name in self._declared:
                        await self._register(name)
                    registered = True
                pause = await self.look()
            except ConflictError:
                pause = 0.0  # another process has just fired, or an operator said something
            except BackendError as error:
                log.info("schedules wait: %s", error)
            await self._desk.clock.sleep(pause)

    async def look(self) -> float:
        """Fire what is due; returns the seconds until the next look."""
        now = self._now
        soonest = now + int(LOOK_EVERY * 1000)
        for plan in await self.list():
            if plan.paused or plan.name not in self._declared:
                continue
            following = plan.next
            if following <= now:
                try:
                    following = await self._fire(plan.name)
                except (ConflictError, BackendError):
                    raise
                except Exception:
                    # It must not keep the others from firing.
                    log.exception("schedule %s cannot fire, and is tried again", plan.name)
                    continue
            soonest = min(soonest, following)
        return max(0.0, (soonest - self._now) / 1000)

    async def _register(self, name: str) -> None:
        call, timing = self._declared[name]
        until = "done" if call.unique is None else call.unique.until
        async with self._store.transaction() as tx:
            found = await tx.get(self._key(name))
            if found is None:
                plan = Plan(name, call.spec, timing, timing, timing.following(self._now), until)
                tx.put(self._key(name), _encode(plan), expected=0)
                return
            plan = _decode(found.data)
            before = _encode(plan)
            plan.call, plan.until = call.spec, until
            if plan.declared != timing:
                plan.declared = timing
                if not plan.edited:
                    plan.timing = timing
                    plan.next = timing.following(self._now)
            if _encode(plan) != before:
                tx.put(self._key(name), _encode(plan), expected=found.version)

    async def _fire(self, name: str) -> int:
        """Send what is due of one schedule, and plan its next moment, in one commit; returns that moment."""
        async with self._store.transaction() as tx:
            plan, version = await self._load(tx, name)
            if plan.paused:
                return self._now + int(LOOK_EVERY * 1000)
            fires, following = plan.timing.fires(plan.next, self._now)
            if following == plan.next:
                return following  # somebody else was faster
            for moment in fires:
                await self._send(tx, plan, moment)
                plan.last = moment
            plan.fires += len(fires)
            plan.next = following
            tx.put(self._key(name), _encode(plan), expected=version)
            point("schedule.fired")
        return following

    async def _send(self, tx: Transaction, plan: Plan, moment: int) -> str:
        unique = None if plan.call.unique is None else Unique(until="begun" if plan.until == "begun" else "done")
        return await Call(self._desk, plan.call, unique).fire(tx, moment)
