"""Calls that are yet to come: one, one after another, or several at a time with one after all of them."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from datetime import datetime
from typing import Protocol

import msgspec

from eventmill.core.capabilities import Transaction as StoreTransaction
from eventmill.core.checks import check_seconds
from eventmill.core.clock import Clock
from eventmill.core.document import ABSENT
from eventmill.core.errors import ConfigurationError
from eventmill.core.job import MAX_PRIORITY, Job
from eventmill.patterns.tasks.unique import Unique, reserve
from eventmill.runtime.transaction import Transaction

FIRE, GROUP, THEN, UNIQUE = "taskfire", "taskgroup", "taskthen", "taskunique"
"""What a call carries beside its arguments, as extensions of its message."""


class CallSpec(msgspec.Struct, tag_field="kind", tag="call", omit_defaults=True, frozen=True):
    """One call, as it is stored until its turn comes. type: of its message. queue: as the store names it."""

    type: str
    queue: str
    data: msgspec.Raw
    priority: int = 0
    topic: str | None = None
    unique: str | None = None
    limits: str | None = None
    then: CallSpec | GroupSpec | None = None


class GroupSpec(msgspec.Struct, tag_field="kind", tag="group", omit_defaults=True, frozen=True):
    """Calls that run side by side, and what follows when all of them have ended."""

    members: tuple[CallSpec | GroupSpec, ...]
    then: CallSpec | GroupSpec | None = None
    always: bool = False


Spec = CallSpec | GroupSpec

decode_spec = msgspec.json.Decoder(CallSpec | GroupSpec).decode


class Progress(msgspec.Struct, omit_defaults=True):
    """A group under way: how many of it have not ended, which have failed, and what follows.

    outer: the group that this one is a member of, and the member's id there.
    """

    left: int
    failed: list[str] = []
    lost: bool = False
    then: CallSpec | GroupSpec | None = None
    always: bool = False
    outer: tuple[str, str] | None = None


class Desk(Protocol):
    """Where calls are handed in: the tasks of one App."""

    clock: Clock
    prefix: str
    """What the keys of all documents of these tasks begin with."""

    def job(self, spec: CallSpec, due: int | None, group: str | None, *, fire: int | None = None) -> Job: ...

    def new_id(self) -> str: ...


class Call:
    """One call of a task, its arguments written already: what `task.job(…)` returns."""

    __slots__ = ("desk", "spec", "unique")

    def __init__(self, desk: Desk, spec: CallSpec, unique: Unique | None) -> None:
        self.desk = desk
        self.spec = spec
        self.unique = unique

    def __repr__(self) -> str:
        return f"<call of {self.spec.type}: {bytes(self.spec.data).decode()}>"

    def having(self, *, priority: int) -> Call:
        """The same call with another priority than its task's."""
        check_priority(priority, self.spec.type)
        return Call(self.desk, msgspec.structs.replace(self.spec, priority=priority), self.unique)

    def then(self, following: Call | Group) -> Call:
        """This call, and when it is done, that one: it starts in the commit that ends this one."""
        return Call(
            self.desk,
            msgspec.structs.replace(self.spec, then=append(self.spec.then, following, self.desk)),
            self.unique,
        )

    def stage(self, transaction: Transaction, *, after: float | None = None, at: datetime | None = None) -> str:
        """Let the transaction send it, and return its id."""
        due = moment(self.desk.clock, after, at)
        job = self.desk.job(self.spec, due, None)
        if self.unique is None:
            hand_in(transaction.unit, self.spec, job, due)
        else:

            async def place(unit: StoreTransaction) -> None:
                await self._place(unit, job, due)

            transaction.defer(place)
        return job.message.id

    async def place(self, unit: StoreTransaction, *, after: float | None = None, at: datetime | None = None) -> str:
        """Stage it in a unit; returns its id, or that of the one that is there already."""
        due = moment(self.desk.clock, after, at)
        return await self._place(unit, self.desk.job(self.spec, due, None), due)

    async def fire(self, unit: StoreTransaction, moment: int) -> str:
        """Stage it as what a schedule meant for a moment, in milliseconds since 1970 UTC."""
        return await self._place(unit, self.desk.job(self.spec, moment, None, fire=moment), moment)

    async def _place(self, unit: StoreTransaction, job: Job, due: int | None) -> str:
        if self.unique is not None and self.spec.unique is not None:
            existing = await reserve(unit, self.desk.prefix, self.spec.unique, job.message.id, self.unique)
            if existing is not None:
                return existing
        hand_in(unit, self.spec, job, due)
        return job.message.id


class Group:
    """Calls that run side by side. Made by `group`; the end of the last of them starts what follows, once."""

    __slots__ = ("desk", "spec")

    def __init__(self, desk: Desk, spec: GroupSpec) -> None:
        self.desk = desk
        self.spec = spec

    def then(self, following: Call | Group, *, always: bool = False) -> Group:
        """What starts in the commit that ends the last of them.

        It starts when all are done. Where one is dead, it waits until that is replayed and done; with `always` it starts
        as soon as all have ended, dead or cancelled ones too.
        """
        always = always or self.spec.always
        return Group(
            self.desk,
            msgspec.structs.replace(self.spec, then=append(self.spec.then, following, self.desk), always=always),
        )

    def stage(self, transaction: Transaction, *, after: float | None = None, at: datetime | None = None) -> str:
        """Let the transaction send them, and return the group's id."""
        return start_group(transaction.unit, self.desk, self.spec, moment(self.desk.clock, after, at), None)

    async def place(self, unit: StoreTransaction, *, after: float | None = None, at: datetime | None = None) -> str:
        """The same in a unit."""
        return start_group(unit, self.desk, self.spec, moment(self.desk.clock, after, at), None)


def group(*calls: Call | Group) -> Group:
    """Calls of one App's tasks to run side by side; give it to `send`, with a `then` or without.

    A member may be a group, or have a `then` of its own: it has ended when the last of it has.
    """
    if not calls:
        raise ConfigurationError("group() needs at least one call: with none there is no end to wait for")
    for call in calls:
        if check_call(call).desk is not calls[0].desk:
            raise ConfigurationError("group() takes calls of the tasks of one App")
        if isinstance(call, Call) and call.unique is not None:
            raise ConfigurationError(f"{call!r} is unique and cannot be of a group: it may stand for one that is not")
        for spec in _calls(call.spec):
            if spec.topic is not None:
                raise ConfigurationError(
                    f"{spec.type} is run through a topic, where no group hears of its end: leave topic= out"
                )
    return Group(calls[0].desk, GroupSpec(tuple(call.spec for call in calls)))


def _calls(spec: Spec | None) -> Iterator[CallSpec]:
    """A call, or those of a group, and what follows."""
    if spec is None:
        return
    if isinstance(spec, CallSpec):
        yield spec
    else:
        for member in spec.members:
            yield from _calls(member)
    yield from _calls(spec.then)


def check_call(given: object) -> Call | Group:
    """Refuse what is no call to send, saying how one is made."""
    if isinstance(given, Call | Group):
        return given
    if inspect.iscoroutine(given):
        given.close()
        raise ConfigurationError(
            f"{given.__qualname__}(…) has been called, not sent: write {given.__qualname__}.job(…)"
        )
    name = getattr(given, "__name__", None) if hasattr(given, "job") else None
    if name is not None:
        raise ConfigurationError(f"{name} is a task, not a call of it: write {name}.job(…)")
    raise ConfigurationError(f"{given!r} is no call of a task: give task.job(…), or group(…)")


def append(first: Spec | None, following: Call | Group, desk: Desk) -> Spec:
    """A chain with one more link at its end."""
    if check_call(following).desk is not desk:
        raise ConfigurationError("then() takes a call of a task of the same App")
    if isinstance(following, Call) and following.unique is not None:
        raise ConfigurationError(f"{following!r} is unique and cannot follow another: send it from there instead")
    if first is None:
        return following.spec
    return msgspec.structs.replace(first, then=append(first.then, following, desk))


def start(unit: StoreTransaction, desk: Desk, spec: Spec, within: str | None) -> None:
    """Stage what follows. within: the group whose member ends when this has ended."""
    if isinstance(spec, CallSpec):
        hand_in(unit, spec, desk.job(spec, None, within), None)
    else:
        start_group(unit, desk, spec, None, within)


def hand_in(unit: StoreTransaction, spec: CallSpec, job: Job, due: int | None) -> None:
    """Stage a call: as a job, or, where its task has a topic and it may begin at once, as a message of that."""
    if spec.topic is not None and due is None:
        unit.append([job.message])
    else:
        unit.send([job])


def start_group(unit: StoreTransaction, desk: Desk, spec: GroupSpec, due: int | None, within: str | None) -> str:
    """Stage a group's calls, and the document that counts their ends."""
    identity = desk.new_id()
    outer = None if within is None else (within, identity)
    progress = Progress(len(spec.members), then=spec.then, always=spec.always, outer=outer)
    unit.put(group_key(desk, identity), msgspec.json.encode(progress), expected=ABSENT)
    unit.send([desk.job(member, due, identity) for member in spec.members if isinstance(member, CallSpec)])
    for member in spec.members:
        if isinstance(member, GroupSpec):
            start_group(unit, desk, member, due, identity)
    return identity


def group_key(desk: Desk, identity: str) -> str:
    return f"{desk.prefix}group/{identity}"


def moment(clock: Clock, after: float | None, at: datetime | None) -> int | None:
    """The moment that `after` or `at` mean, in milliseconds; None for now."""
    if after is None and at is None:
        return None
    if after is not None and at is not None:
        raise ConfigurationError("after= and at= are two ways to say when: give one of them")
    if at is not None:
        if not isinstance(at, datetime):
            raise ConfigurationError(f"at={at!r}: give a datetime with tzinfo, or after=seconds")
        if at.tzinfo is None:
            raise ConfigurationError(f"at={at.isoformat()}: which time zone? Give a datetime with tzinfo")
        return int(at.timestamp() * 1000)
    return int((clock.now() + check_seconds(after, "send", "after", zero=True)) * 1000)


def check_priority(priority: int, what: str) -> int:
    """Refuse what is no priority."""
    if isinstance(priority, bool) or not isinstance(priority, int) or abs(priority) > MAX_PRIORITY:
        raise ConfigurationError(
            f"{what}: priority={priority!r}; give a whole number from -{MAX_PRIORITY} to {MAX_PRIORITY}, high ones go first"
        )
    return priority
