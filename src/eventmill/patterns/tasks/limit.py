"""How many of some calls may run at a time, and how many may begin in a while, over all processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

import msgspec

from eventmill.core.capabilities import Store, Transaction
from eventmill.core.checks import FOREVER, check_number
from eventmill.core.claims import Fence
from eventmill.core.codec import write_json
from eventmill.core.errors import ConfigurationError
from eventmill.core.job import Job
from eventmill.patterns.tasks.call import Desk
from eventmill.patterns.tasks.held import OF_QUEUE, Held, limits_of
from eventmill.patterns.tasks.results import expire
from eventmill.patterns.tasks.setting import decode_setting, setting_key
from eventmill.runtime.interrupted import through

MOST = 1_000
"""Beginnings that are remembered of one limit."""

LONGEST = 400
"""Characters of a key as it is; a longer one is hashed."""


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit that holds over all processes.

    concurrency: so many run at a time. rate: (number, seconds): in no stretch of so many seconds do more of them begin.
    by: names of arguments: calls with the same values of them share the limit; without, all calls of the task or queue do.
    """

    concurrency: int | None = None
    rate: tuple[int, float] | None = None
    by: str | Sequence[str] = ()

    def check(self, what: str, arguments: Sequence[str] | None) -> None:
        """Refuse what is no limit, or cannot be kept. arguments: those there are; None where there are none to name."""
        if self.concurrency is None and self.rate is None:
            raise ConfigurationError(f"{what}: a limit needs concurrency=, rate=(number, seconds), or both")
        if self.concurrency is not None:
            check_number(self.concurrency, what, "concurrency", most=MOST)
        if self.rate is not None and not _is_rate(self.rate):
            raise ConfigurationError(
                f"{what}: rate={self.rate!r}; give (number, seconds) with a number from 1 to {MOST:,} and at least 0.001 "
                "seconds; say 600 a minute as (10, 1)"
            )
        for name in self.names:
            if arguments is None:
                raise ConfigurationError(
                    f"{what}: by={name!r} names an argument, which a queue has not: limit the task"
                )
            if name not in arguments:
                there = ", ".join(arguments) or "none"
                raise ConfigurationError(f"{what}: limited by {name!r}, which is no argument; there are: {there}")

    @property
    def names(self) -> Sequence[str]:
        """The arguments it goes by."""
        return (self.by,) if isinstance(self.by, str) else self.by

    def of(self, name: str, given: object) -> Held:
        """The limit as a call carries it. given: an object with its arguments as attributes."""
        key = name
        if self.names:
            values = write_json([getattr(given, argument) for argument in self.names]).decode()
            key = f"{name}/{values if len(values) <= LONGEST else sha256(values.encode()).hexdigest()}"
        number, seconds = self.rate or (None, 0.0)
        return Held(key, self.concurrency, number, int(seconds * 1000))


def _is_rate(given: object) -> bool:
    match given:
        case (int() as number, int() | float() as seconds):
            return 1 <= number <= MOST and 0.001 <= seconds < FOREVER
    return False


def check_limit(given: object, what: str, arguments: Sequence[str] | None) -> None:
    """Refuse what is no limit at all, or none that can be kept; see `Limit.check`."""
    if not isinstance(given, Limit):
        raise ConfigurationError(f"{what}: limit={given!r}; give Limit(concurrency=…) or Limit(rate=(number, seconds))")
    given.check(what, arguments)


class Use(msgspec.Struct, omit_defaults=True):
    """How far a limit is used: who runs, under which tokens; when the last ones began; the last promised beginning, and when nothing of
    this matters any more, in milliseconds."""

    running: dict[str, int] = {}
    begun: list[int] = []
    promised: int = 0
    expires: int = 0


class Refused(msgspec.Struct):
    """Not now: at a moment in milliseconds, or when somebody lets go of the lane."""

    at: int | None = None
    lane: str | None = None


decode_use = msgspec.json.Decoder(Use).decode


def limit_key(prefix: str, key: str) -> str:
    """Where it stands how far a limit is used, and the lane of those that wait for it."""
    return f"{prefix}limit/{key}"


class Limits:
    """Grants beginnings, under the lock of a document for each limit; so no two processes can grant the same."""

    def __init__(self, desk: Desk, store: Store) -> None:
        self._desk = desk
        self._store = store

    def _key(self, held: Held) -> str:
        return limit_key(self._desk.prefix, held.key)

    async def begin(self, job: Job, fence: Fence, limits: Sequence[Held]) -> Refused | None:
        """Have a claimed job begin, or set it back without an attempt: until its time comes, or until another one ends."""
        return await through(lambda: self._begin(job, fence, limits))

    async def _begin(self, job: Job, fence: Fence, limits: Sequence[Held]) -> Refused | None:
        unit = self._store.unit(job, fence)
        try:
            refused = await self._grant(unit, job, limits)
            if refused is not None:
                back = msgspec.structs.replace(job, attempts=job.attempts - 1)
                if refused.lane is not None:
                    unit.hold(back, refused.lane)
                else:
                    unit.settle(back, retry_at=refused.at)
            await (await unit.finish())
        except BaseException:
            await unit.discard()
            raise
        return refused

    async def _grant(self, unit: Transaction, job: Job, limits: Sequence[Held]) -> Refused | None:
        now = int(self._desk.clock.now() * 1000)
        name = job.message.id
        uses: list[tuple[Held, Use]] = []
        for held in sorted(limits, key=lambda held: held.key):
            found = await unit.get(self._key(held))
            use = Use() if found is None else decode_use(found.data)
            if held.key.startswith(OF_QUEUE):
                # After its use, which keeps others out: so nobody is held by what is being changed just now.
                said = await unit.get(setting_key(self._desk.prefix, held.key.removeprefix(OF_QUEUE)))
                held = held if said is None else decode_setting(said.data).applied(held)
            uses.append((held, use))
            if held.concurrency is not None and name not in use.running and len(use.running) >= held.concurrency:
                await self._drop_vanished(use)
                if len(use.running) >= held.concurrency:
                    return Refused(lane=self._key(held))
        for held, use in uses:
            if held.number is not None and len(use.begun) >= held.number and now - use.begun[-held.number] < held.per:
                # Each is told a moment of its own, so that they do not all come back at the same one.
                step = held.per // held.number
                use.promised = max(use.begun[-held.number] + held.per, use.promised + step)
                unit.put(self._key(held), msgspec.json.encode(use), expected=None)
                return Refused(at=use.promised)
        for held, use in uses:
            if held.concurrency is not None:
                use.running[name] = job.token
            if held.number is not None:
                use.begun = [*use.begun, now][-held.number :]
                first = not use.expires
                use.expires = now + held.per + 1_000
                if first:
                    expire(unit, self._desk, job.queue, self._key(held), use.expires)
            unit.put(self._key(held), msgspec.json.encode(use), expected=None)
        return None

    async def _drop_vanished(self, use: Use) -> None:
        """Whose claim is over uses nothing any more, though nobody said so."""
        for name, token in list(use.running.items()):
            job = await self._store.find(name)
            if job is None or job.state != "running" or job.token != token:
                del use.running[name]

    async def free(self, unit: Transaction, job: Job) -> None:
        """Stage that a job does not run any more, and that the next which waits for it may."""
        for held in sorted(limits_of(job), key=lambda held: held.key):
            if held.concurrency is None:
                continue
            key = self._key(held)
            found = await unit.get(key)
            if found is not None:
                use = decode_use(found.data)
                use.running.pop(job.message.id, None)
                unused = not (use.running or use.begun)
                unit.put(key, None if unused else msgspec.json.encode(use), expected=found.version)
            unit.let_go(job.queue, key)
