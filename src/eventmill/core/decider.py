"""Deciders: the same as an aggregate, as two functions and a beginning."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from eventmill.core.codec import write_json
from eventmill.core.entity import Decided, Entity, kinds_of, no_snapshots
from eventmill.core.errors import ConfigurationError
from eventmill.core.fingerprint import fingerprint
from eventmill.core.names import check_name
from eventmill.core.registry import Registry
from eventmill.core.stream import StoredEvent

S = TypeVar("S")


@dataclass(frozen=True, eq=False)
class Decider(Generic[S]):
    """An entity as functions, where a class is unwanted.

    name: the entity's name. initial: the state before the first event, which is copied for each entity, or a function (a
    class) that makes it.
    decide: from state and command to an iterable of events; where it is a generator, what it returns is the command's
    value.
    evolve: from state and event to the next state. topic, events, snapshot_every, snapshot_version: as with `Aggregate`.
    restore: from the state and an earlier one to the events that lead back to it, for `app.revert`.

    Refused with ConfigurationError: an event without a branch in `evolve`, or of another topic.
    """

    name: str
    initial: S | Callable[[], S]
    decide: Callable[..., Iterable[Any]]
    evolve: Callable[[S, Any], S]
    topic: str | None = None
    events: Sequence[type] = ()
    snapshot_every: int | None = None
    snapshot_version: int = 1
    restore: Callable[[S, S], Iterable[Any]] | None = None

    def __post_init__(self) -> None:
        check_name(self.name, "name")
        for function in (self.decide, self.evolve):
            if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
                raise ConfigurationError(
                    f"{self.name}: decide and evolve are plain functions; do the waiting before them"
                )


def begun(initial: S | Callable[[], S]) -> S:
    """A state to begin a fold with: made by `initial`, or a copy of it, as the fold may change it in place."""
    return initial() if callable(initial) else copy.deepcopy(initial)


class Loaded(NamedTuple, Generic[S]):
    """A decider's state, and the version of the stream it was folded from."""

    state: S
    version: int


class DeciderEntity(Entity[S]):
    """A Decider, as event sourcing works on it."""

    def __init__(self, decider: Decider[S], registry: Registry) -> None:
        self.name = decider.name
        self.topic = decider.topic or decider.name
        self.snapshot_every = decider.snapshot_every
        self.decider = decider
        self._registry = registry
        self._state: type = type(self.new(""))
        self.fields = getattr(self._state, "__struct_fields__", None) or getattr(
            self._state, "__dataclass_fields__", None
        )
        self.kinds = kinds_of(
            self.name,
            self.topic,
            registry,
            declared=decider.events,
            evolve=decider.evolve,
            folding=[decider.evolve],
            deciding=[decider.decide],
        )
        no_snapshots(self.name, self.kinds, self.snapshot_every)
        self._fingerprint: str | None = None
        if self.snapshot_every is not None:
            try:
                write_json(self.new(""))
            except (TypeError, ValueError) as error:
                raise ConfigurationError(
                    f"{self.name}: snapshot_every= needs a state that JSON can hold: {error}"
                ) from error

    def __repr__(self) -> str:
        return f"Decider({self.name!r})"

    def new(self, id_: str) -> S:
        return begun(self.decider.initial)

    def version(self, state: S) -> int | None:
        return None

    def fold(self, state: S, events: Iterable[StoredEvent]) -> S:
        kinds = self.kinds
        evolve = self.decider.evolve
        for version, type_, schema, data, _ in events:
            kind = kinds.get(type_) or self.known(type_)
            if kind is not None:
                try:
                    state = evolve(state, kind.decode(data, schema))
                except Exception as error:
                    error.add_note(f"while {self.name} was folded, at version {version}")
                    raise
        return state

    def decide(self, state: S, arguments: Sequence[Any], named: Mapping[str, Any]) -> Decided:
        return self._run(self.decider.decide(state, *arguments, **named))

    def restoring(self, state: S, past: S) -> Decided:
        if self.decider.restore is None:
            raise ConfigurationError(
                f"{self.name} cannot be reverted: give its Decider restore=, a function of the state and the earlier one "
                "that yields the facts which lead from the one to the other"
            )
        return self._run(self.decider.restore(state, past))

    def _run(self, facts: Iterable[Any]) -> Decided:
        events: list[object] = []
        rest = iter(facts)
        while True:
            try:
                event = next(rest)
            except StopIteration as stop:
                return Decided(events, stop.value)
            self.check(event)
            events.append(event)

    def fingerprint(self) -> str:
        if self._fingerprint is None:
            self._fingerprint = fingerprint(self._state, [self.decider.evolve], self.decider.snapshot_version)
        return self._fingerprint

    def restore(self, data: bytes) -> S:
        state: S = msgspec.json.decode(data, type=self._state)
        return state
