"""`app.choreography`: services that react to each other's events, seen as one saga with one history."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import msgspec

from eventmill.core.checks import check_seconds
from eventmill.core.document import ABSENT
from eventmill.core.errors import ConfigurationError
from eventmill.core.key import Key, key_text
from eventmill.core.message import Message
from eventmill.core.names import check_name
from eventmill.core.registry import EventType
from eventmill.patterns.consumers import consumer
from eventmill.patterns.saga import listening, records
from eventmill.patterns.saga.instance import Instance, State, decode, document_key, encode, ended_key
from eventmill.patterns.saga.listening import DIGEST, Plot
from eventmill.patterns.saga.operate import Action
from eventmill.patterns.saga.records import Definition, definition_key
from eventmill.patterns.saga.shape import Shape
from eventmill.patterns.saga.wake import WAKE, wake
from eventmill.patterns.surroundings import Surroundings
from eventmill.runtime.transaction import Transaction

Types = type | Sequence[type]


class Choreography:
    """Listens to the events of a saga that nobody directs. It commands nothing: it knows, and it notices what is stuck."""

    def __init__(
        self, name: str, where: Surroundings, *, key: Key, starts: Types, completes: Types, fails: Types, turns: Types,
        events: Types, deadline: float, early: float | None, retention: float,
    ) -> None:  # fmt: skip
        self.name = f"{where.name}.{check_name(name, 'choreography')}"
        self.retention = retention
        self._where = where
        self._key = key
        groups = [self._kinds(given) for given in (starts, completes, fails, turns, events)]
        self._known = {kind.name: kind for group in groups for kind in group}
        label = f"choreography {self.name!r}"
        if not groups[0] or not groups[1]:
            raise ConfigurationError(f"{label}: say which event starts= it, and which completes= it")
        for what, seconds in (("deadline", deadline), ("early", early), ("retention", retention)):
            if seconds is not None:
                check_seconds(seconds, label, what)
        names = [frozenset(kind.name for kind in group) for group in groups]
        if names[1] & (names[2] | names[3]):
            raise ConfigurationError(f"{label}: {', '.join(sorted(names[1] & (names[2] | names[3])))} cannot mean both")
        for kind in self._known.values():
            if not callable(key) and key not in kind.fields:
                raise ConfigurationError(f"{label}: {kind.name} has no field {key!r}, which is the saga's key")
        late = round(deadline * 1000)
        self.plot = Plot(names[0], names[1], names[3], names[2], late, late if early is None else round(early * 1000))
        self._declare()

    def _kinds(self, given: Types) -> list[EventType]:
        return [self._where.registry.type_for(each) for each in ([given] if isinstance(given, type) else given)]

    def _declare(self) -> None:
        async def handle(message: Message, tx: Transaction) -> None:
            await self._hear(message, tx)

        handle.__qualname__ = f"choreography {self.name}"
        self._where.declare(
            consumer(
                handle, [kind.cls for kind in self._known.values()], registry=self._where.registry, group=self.name,
                concurrency=32,
            )
        )  # fmt: skip

    async def _hear(self, message: Message, tx: Transaction) -> None:
        now = self._where.now()
        key = self._key_of(message)
        place = document_key(self.name, key)
        found = await tx.get(place)
        if found is None:
            if message.type == WAKE:
                return  # it was pruned
            instance = self._new(message, key, now)
        else:
            instance = decode(found.data)
        was_over = instance.ended
        if message.type == WAKE:
            listening.looked_at(self.plot, instance, now)
        else:
            listening.heard(self.plot, instance, message.type, message.id, message.data, now)
        if instance.ended and not was_over:
            tx.put(ended_key(instance), b"", expected=None)
        due = None if instance.ended or instance.state is State.NEEDS_ATTENTION else instance.deadline
        if due is not None and (instance.timer is None or not now < instance.timer <= due):
            instance.timer = due
            tx.unit.send(
                [wake(self._where.ids(), self.name, key, self.name, instance.topic, due=due, because=instance)]
            )
        tx.put(place, encode(instance), expected=ABSENT if found is None else found.version)

    def _new(self, message: Message, key: str, now: int) -> Instance:
        return Instance(
            saga=self.name, key=key, id=message.id, queue=self.name, topic=message.topic, version=1, digest=DIGEST,
            state=State.EARLY, started_at=now, deadline=now + self.plot.early,
            correlationid=message.correlationid or message.id, traceparent=message.traceparent,
        )  # fmt: skip

    def _key_of(self, message: Message) -> str:
        if message.type == WAKE:
            assert message.key is not None
            return message.key
        event = self._known[message.type].decode(message.data, message.version)
        if callable(self._key):
            value = self._key(event)
        else:
            value = event[self._key] if isinstance(event, dict) else getattr(event, self._key)
        return key_text(value, f"choreography {self.name!r}: key")

    # Living on

    async def check(self) -> None:
        """Make it known to the store, for whoever looks there."""
        place = definition_key(self.name, DIGEST)
        async with self._where.store.transaction() as tx:
            if await tx.get(place) is None:
                tx.put(place, msgspec.json.encode(Definition(self.name, 1, DIGEST, Shape())), expected=ABSENT)

    async def tidy(self) -> None:
        """Remove instances that ended longer than the retention ago."""
        await records.prune(self._where.store, self.name, self._where.now() - int(self.retention * 1000))

    # For programs

    async def show(self, key: str) -> Instance | None:
        """The instance of a key, with its history."""
        found = await records.load(self._where.store, self.name, key)
        return None if found is None else found[0]

    def instances(self, *, state: str | None = None) -> AsyncIterator[Instance]:
        """All instances that are kept, by their keys."""
        return records.instances(self._where.store, self.name, state=state)

    async def operate(self, action: Action, key: str, *, by: str, why: str = "", outcome: str = "done") -> Instance:
        """For one that is stuck: `retry` and `skip` let it wait on, `resolve` ends it as completed, or with the outcome
        `failed` as compensated."""
        return await records.operate(
            self._where.store, self.name, key, action, now=self._where.now(), id_=self._where.ids(),
            by=by, why=why, outcome=outcome,
        )  # fmt: skip
