"""What event sourcing works on: a state that is folded from the events of one stream, and decisions on it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from eventmill.core.branches import annotated, spoken_of
from eventmill.core.codec import described
from eventmill.core.errors import ConfigurationError, DecodeError
from eventmill.core.registry import EventType, Registry
from eventmill.core.stream import StoredEvent, Stream

S = TypeVar("S")

OWN = "eventmill."
"""What the names of eventmill's own facts begin with; no fold sees them."""


class Decided(NamedTuple):
    """What a command has decided: the facts, and what it returned."""

    events: Sequence[object]
    value: Any


class Entity(ABC, Generic[S]):
    """One kind of entity: how its state begins, is folded, and decided on.

    kinds: the event types that its fold knows, by name. snapshot_every: after how many events a snapshot of the state
    is taken; 0 for on demand only, None for never.
    """

    name: str
    topic: str
    kinds: Mapping[str, EventType]
    snapshot_every: int | None
    fields: Sequence[str] | None
    """The fields of the state, where it has named ones."""

    def stream(self, id_: str) -> Stream:
        """Where the events of one entity are."""
        return Stream(self.topic, id_)

    @abstractmethod
    def new(self, id_: str) -> S:
        """The state before the first event."""

    @abstractmethod
    def version(self, state: S) -> int | None:
        """The version that the state itself knows it stands at, None for a state that knows of none."""

    @abstractmethod
    def fold(self, state: S, events: Iterable[StoredEvent]) -> S:
        """The state after these events. Raises DecodeError for one that cannot be read, or that nobody knows."""

    @abstractmethod
    def decide(self, state: S, arguments: Sequence[Any], named: Mapping[str, Any]) -> Decided:
        """Run a command on the state, which it may change: whoever needs it as it was has it folded again."""

    @abstractmethod
    def restoring(self, state: S, past: S) -> Decided:
        """What makes of a state an earlier one. Raises ConfigurationError where the entity does not say how."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Changes whenever a snapshot might not fit any more: with the state's schema, and the code of the fold."""

    @abstractmethod
    def restore(self, data: bytes) -> S:
        """The state of a snapshot. Raises msgspec.MsgspecError, and ValueError and its kin."""

    def known(self, name: str) -> EventType | None:
        """The type of an event if the fold is to see it. Raises DecodeError for a type that nobody has registered."""
        kind = self.kinds.get(name)
        if kind is None and not name.startswith(OWN) and self._registry.named(name) is None:
            raise DecodeError(
                f"{self.name}: its stream holds {name}, and no event type of this name is registered: "
                "register it, or the state would be folded without it"
            )
        return kind

    def check(self, event: object) -> None:
        """Refuse what a command yielded and the fold would not know."""
        kind = self._registry.of(event)
        if kind.name not in self.kinds:
            raise ConfigurationError(
                f"{self.name}: a command yielded {kind.name}, which its evolve has no branch for: write one"
            )

    _registry: Registry


def kinds_of(
    name: str,
    topic: str,
    registry: Registry,
    *,
    declared: Iterable[type],
    evolve: Callable[..., Any],
    folding: Iterable[Callable[..., Any]],
    deciding: Iterable[Callable[..., Any]],
) -> Mapping[str, EventType]:
    """The event types that an entity's fold knows, by their names.

    declared: what was said explicitly; to these come the types in the annotation of `evolve`, and those of the topic that
    the code of `deciding` names. Each must be named in the code of `folding`: that is its branch.
    Refused with ConfigurationError: an event without a branch, and one of another topic.
    """
    # `event: Event`, a base of others, says nothing of which it is.
    said = [each for each in annotated(evolve, 1) if each in registry.types or not _general(each, registry)]
    explicit = dict.fromkeys([*declared, *said])
    branches = {each for each in spoken_of(folding) if each in registry.types}
    for each in [*explicit, *branches]:
        kind = registry.type_for(each)
        if kind.topic != topic:
            raise ConfigurationError(
                f"{name}: {kind.name} ({described(each)}) is of topic {kind.topic!r}, and its events must be of "
                f"{topic!r}: give the event topic={topic!r}, or the aggregate topic={kind.topic!r}"
            )
    yielded = {each for each in spoken_of(deciding) if each in registry.types and registry.types[each].topic == topic}
    for each in dict.fromkeys([*explicit, *sorted(yielded, key=described)]):
        if each not in branches:
            raise ConfigurationError(
                f"{name}: {registry.type_for(each).name} ({described(each)}) has no branch in evolve: "
                f"add `case {each.__name__}(): ...`, with `pass` where it changes nothing"
            )
    return {registry.types[each].name: registry.types[each] for each in branches}


def no_snapshots(name: str, kinds: Mapping[str, EventType], snapshot_every: int | None) -> None:
    """Refuse snapshots of a state that personal data may be in: they would outlive the key that makes it readable."""
    personal = sorted(kind.name for kind in kinds.values() if kind.personal is not None)
    if snapshot_every is not None and personal:
        raise ConfigurationError(
            f"{name}: {', '.join(personal)} has personal fields, and a snapshot would keep what was read of them after "
            "their subject is forgotten: leave out snapshot_every="
        )


def _general(cls: type, registry: Registry) -> bool:
    return cls is Any or any(issubclass(each, cls) for each in registry.types)
