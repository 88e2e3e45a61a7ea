"""Commands: load, decide, append what was decided, and do it again where somebody else was faster."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import takewhile
from typing import Any, Generic, NamedTuple, TypeVar, overload
from uuid import UUID, uuid5

from eventmill.core.aggregate import Aggregate
from eventmill.core.decider import Decider, Loaded, begun
from eventmill.core.entity import Decided, Entity
from eventmill.core.errors import ConfigurationError, ConflictError, EncodeError
from eventmill.core.message import Message, Recorded
from eventmill.core.outcome import Retry
from eventmill.core.retry import RetryPolicy, exponential
from eventmill.core.stream import Absence, Append, Appended, Query, Stream, stored
from eventmill.patterns.sourcing.executed import Executed
from eventmill.patterns.sourcing.fact import fact
from eventmill.patterns.sourcing.host import checked_id
from eventmill.patterns.sourcing.loading import Loading, State
from eventmill.patterns.sourcing.snapshots import snapshot_key, snapshot_of
from eventmill.patterns.sourcing.streams import finish

log = logging.getLogger("eventmill")

A = TypeVar("A", bound=Aggregate)
S = TypeVar("S")

CONFLICTS = exponential(0.005, cap=0.25, attempts=10, jitter=0.5)
"""How often a command is decided again where another process was faster, and after how many seconds."""

_COMMANDS = UUID("6a0d3f4e-5d0c-5a35-9a6d-6d1b0f0f2f6e")
"""The namespace that ids of a command's events are made in."""


class Decision(NamedTuple, Generic[S]):
    """A state folded from the events that some queries match, and how far the log was looked through for it.

    `tx.require(*decision.queries, after=decision.position)` lets a transaction commit only if it still holds.
    """

    state: S
    position: int
    queries: Sequence[Query]


class Commands(Loading):
    """The App's calls that decide."""

    @overload
    async def load(self, kind: type[A], id_: str, *, version: int | None = None, at: datetime | None = None) -> A: ...

    @overload
    async def load(
        self, kind: Decider[S], id_: str, *, version: int | None = None, at: datetime | None = None
    ) -> Loaded[S]: ...

    async def load(self, kind: Any, id_: str, *, version: int | None = None, at: datetime | None = None) -> Any:
        """An entity as it is, as it was at a version, or as it was at a moment: what had been committed by then.

        An Aggregate knows its `id` and `version`; a Decider's state comes as `Loaded(state, version)`. One that was never
        written to is at version 0. In a transaction, what that has appended so far is part of the present.

        at: with a time zone. The moment of an event is that of its commit, by the clock of the process that wrote it; where
        clocks went back, the state ends before the first event that was recorded later than `at`.

        Raises ConfigurationError for a version that does not exist and a moment without a time zone, DecodeError, and
        StreamIncompleteError.
        """
        entity = self._entity(kind)
        id_ = checked_id(id_, entity.name)
        if not self._opened:
            await self.open()
        if version is not None:
            if at is not None:
                raise ConfigurationError("load: give version= or at=, not both")
            return shown(entity, await self._prefix(entity, id_, version))
        if at is not None:
            return shown(entity, await self._at(entity, id_, at))
        return shown(entity, await self._current(entity, id_))

    async def execute(
        self,
        kind: type[Aggregate] | Decider[Any],
        id_: str,
        *command: Any,
        command_id: str | None = None,
        retry: RetryPolicy | None = None,
        **arguments: Any,
    ) -> Executed:
        """Run a command on an entity: `await app.execute(Order, "536365", Order.pay, 10)`.

        It is loaded, the command decides, and what it yields is appended if nobody was faster; otherwise all of it is done
        again, by `retry`. A command that raises appends nothing. For a Decider, the command is what its `decide` takes
        after the state. When this returns, the facts are durable.

        command_id: the caller's own name of this one command. The ids of its events follow from it: when the call is
        repeated, nothing is appended again, and the original positions are returned. It needs the whole stream to be read.
        retry: by default ten attempts within about a second.

        Inside a handler or a transaction the facts join that, and it is the whole transaction that a conflict ends: the
        runtime handles the message again.

        Raises what the command raises, WrongExpectedVersionError, StreamClosedError, StreamIncompleteError, DecodeError,
        EncodeError.
        """
        entity = self._entity(kind)
        id_ = checked_id(id_, entity.name)
        if self._joined() is not None:
            return await self._attempt(entity, id_, command, arguments, command_id)
        if not self._opened:
            await self.open()

        async def attempt() -> Executed:
            return await self._attempt(entity, id_, command, arguments, command_id)

        return await self._in_turn(entity.stream(id_), retry or CONFLICTS, attempt)

    async def decision(
        self, *queries: Query, initial: S | Callable[[], S], evolve: Callable[[S, Any], S]
    ) -> Decision[S]:
        """Fold the events that one of the queries matches, in the order of their positions, whatever streams they are in."""
        if not self._opened:
            await self.open()
        state: S = begun(initial)
        position = 0
        while True:
            page, looked = await self.store.read_all(after=position, limit=1_000, queries=queries)
            for record in await self._legible(page):
                state = evolve(state, fact(record, self.registry).event)
            if looked <= position:
                return Decision(state, position, queries)
            position = looked

    async def decide(
        self,
        queries: Sequence[Query],
        decide: Callable[..., Iterable[Any]],
        *command: Any,
        initial: Any,
        evolve: Callable[[Any, Any], Any],
        retry: RetryPolicy | None = None,
        **arguments: Any,
    ) -> Executed:
        """Decide on everything that some tags are about, across streams: a dynamic consistency boundary.

        The events that one of the queries matches are folded by `evolve`, beginning with a copy of `initial` (or what it makes);
        `decide(state, *command)` yields events, each of a type with a key, and they are appended to the streams of
        those keys, if no event that a query matches was appended meanwhile. Otherwise all of it is done again, by
        `retry`. Each query names at least one tag. Inside a handler or a transaction the events join that.

        Raises what `decide` raises, TagConflictError, StreamClosedError, DecodeError, EncodeError.
        """
        if not queries or not all(query.tags for query in queries):
            raise ConfigurationError(
                "each query of a decision names at least one tag: Query(tags=frozenset({'course:c1'}))"
            )

        async def attempt() -> Executed:
            found = await self.decision(*queries, initial=initial, evolve=evolve)
            decided = _run(decide(found.state, *command, **arguments))
            appends = [self._append_of(event) for event in decided.events]
            transaction = self._joined()
            if transaction is not None:
                for append in appends:
                    transaction.stage(append)
                transaction.require(*queries, after=found.position)
            elif appends:
                appends = [replace(append, messages=await self._sealed(append.messages)) for append in appends]
                unit = self.store.unit()
                for append in appends:
                    unit.append_to(append)
                unit.require(Absence(queries, found.position))
                await finish(unit)
            return Executed([append.appended for append in appends], decided.events, decided.value)

        if self._joined() is not None:
            return await attempt()
        return await self._in_turn(tuple(queries), retry or CONFLICTS, attempt)

    async def snapshot(self, kind: type[Aggregate] | Decider[Any], id_: str) -> int:
        """Store an entity's state now; returns its version. The entity must have `snapshot_every`, 0 will do."""
        entity = self._entity(kind)
        id_ = checked_id(id_, entity.name)
        if entity.snapshot_every is None:
            raise ConfigurationError(
                f"{entity.name} takes no snapshots: give it snapshot_every=0, so that loading looks for one"
            )
        if not self._opened:
            await self.open()
        folded = await self._folded(entity, id_)
        if folded.last is not None:
            async with self.transaction() as tx:
                tx.put(
                    snapshot_key(entity, entity.stream(id_)),
                    snapshot_of(entity, folded.state, folded.version, folded.last),
                )
        return folded.version

    # How it is done

    async def _in_turn(self, key: Any, policy: RetryPolicy, attempt: Callable[[], Any]) -> Executed:
        count = 0
        async with self._turns.turn(key):
            while True:
                count += 1
                try:
                    executed: Executed = await attempt()
                    return executed
                except ConflictError as error:
                    outcome = policy.decide(count, error, 0.0, self._rng.random())
                    if not isinstance(outcome, Retry):
                        raise
                await self.clock.sleep(outcome.after)

    async def _attempt(
        self,
        entity: Entity[Any],
        id_: str,
        command: Sequence[Any],
        arguments: Mapping[str, Any],
        command_id: str | None,
    ) -> Executed:
        if command_id is not None:
            return await self._once(entity, id_, command, arguments, command_id)
        folded = await self._current(entity, id_)
        snapshot = _due(entity, folded)
        decided = entity.decide(folded.state, command, arguments)
        stream = entity.stream(id_)
        put = None if snapshot is None else (snapshot_key(entity, stream), snapshot)
        return await self._append_decided(stream, self._made(stream, decided.events), decided, folded.version, put=put)

    async def _once(
        self,
        entity: Entity[Any],
        id_: str,
        command: Sequence[Any],
        arguments: Mapping[str, Any],
        command_id: str,
    ) -> Executed:
        stream = entity.stream(id_)
        records = await self._legible(await self._whole(stream))
        first = _event_id(stream, command_id, 0)
        place = next((place for place, record in enumerate(records) if record.message.id == first), None)
        if place is not None:
            return self._repeated(entity, id_, command, arguments, command_id, records, place)
        folded = await self._current(entity, id_)
        decided = entity.decide(folded.state, command, arguments)
        ids = [_event_id(stream, command_id, number) for number in range(len(decided.events))]
        messages = self._made(stream, decided.events, ids)
        return await self._append_decided(stream, messages, decided, folded.version, repeatable=True)

    def _repeated(
        self,
        entity: Entity[Any],
        id_: str,
        command: Sequence[Any],
        arguments: Mapping[str, Any],
        command_id: str,
        records: Sequence[Recorded],
        place: int,
    ) -> Executed:
        stream = entity.stream(id_)
        ids = (_event_id(stream, command_id, number) for number in range(len(records)))
        pairs = takewhile(lambda pair: pair[0].message.id == pair[1], zip(records[place:], ids, strict=False))
        known = [record for record, _ in pairs]
        appended = Appended()
        appended.repeated = True
        appended.positions = [record.position for record in known]
        appended.version = known[-1].message.sequence or 0
        value = None
        try:
            # What it returned was never stored: the state it was decided on gives it again.
            before = entity.fold(entity.new(id_), map(stored, records[:place]))
            value = entity.decide(before, command, arguments).value
        except Exception as error:
            log.warning("%s: command %s was stored, but does not decide so any more: %r", stream, command_id, error)
        return Executed([appended], [fact(record, self.registry).event for record in known], value)

    def _made(
        self,
        stream: Stream,
        events: Sequence[object],
        ids: Sequence[str] = (),
        extensions: Mapping[str, str] | None = None,
    ) -> Sequence[Message]:
        make = self._envelopes.in_stream
        return [make(event, stream, ids[number] if ids else None, extensions) for number, event in enumerate(events)]

    async def _append_decided(
        self,
        stream: Stream,
        messages: Sequence[Message],
        decided: Decided,
        version: int,
        *,
        repeatable: bool = False,
        put: tuple[str, bytes] | None = None,
    ) -> Executed:
        """Append what was decided at a version. put: a document to store beside it."""
        append = Append(stream, messages, version, repeatable=repeatable)
        transaction = self._joined()
        if not messages:
            append.appended.version = version
        elif transaction is not None:
            transaction.stage(append)
        else:
            append = replace(append, messages=await self._sealed(messages))
            unit = self.store.unit()
            unit.append_to(append)
            if put is not None:
                unit.put(*put, expected=None)
            await finish(unit)
        return Executed([append.appended], decided.events, decided.value)

    def _append_of(self, event: object) -> Append:
        message = self._envelopes(event, unsealed=True)
        if message.key is None:
            raise EncodeError(f"{message.type} has no key: an event that is decided on needs one, which is its stream")
        return Append(Stream(message.topic, message.key), [message])


def shown(entity: Entity[Any], folded: State) -> Any:
    """What `load` returns of a state."""
    return folded.state if entity.version(folded.state) is not None else Loaded(folded.state, folded.version)


def _due(entity: Entity[Any], folded: State) -> bytes | None:
    """The snapshot to store beside the command's events, when enough was folded since the last. Taken before the command
    touches the state, so it is the fold of what is stored, and nothing else."""
    every = entity.snapshot_every
    if not every or folded.last is None or folded.version - folded.base < every:
        return None
    return snapshot_of(entity, folded.state, folded.version, folded.last)


def _event_id(stream: Stream, command_id: str, number: int) -> str:
    return str(uuid5(_COMMANDS, f"{stream}\n{command_id}\n{number}"))


def _run(facts: Iterable[Any]) -> Decided:
    events: list[object] = []
    rest = iter(facts)
    while True:
        try:
            events.append(next(rest))
        except StopIteration as stop:
            return Decided(events, stop.value)
