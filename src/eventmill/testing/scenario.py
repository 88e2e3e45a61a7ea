"""Given these events, when this command, then those: tests of a decision, without a store and without a loop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from eventmill.core.aggregate import Aggregate, AggregateEntity
from eventmill.core.decider import Decider, DeciderEntity
from eventmill.core.entity import Decided, Entity
from eventmill.core.errors import ConfigurationError, EncodeError
from eventmill.core.registry import REGISTRY, EventType, Registry
from eventmill.core.stream import StoredEvent


class Scenario:
    """One entity with a past; made by `given`."""

    def __init__(self, entity: Entity[Any], events: Sequence[object], id_: str, registry: Registry) -> None:
        self._entity = entity
        self._registry = registry
        self._id = id_
        self._past = list(events)
        self._outcome: Decided | Exception | None = None
        self.state: Any = self._folded(self._past)
        """The state after all that has happened."""

    def when(self, *command: Any, **arguments: Any) -> Self:
        """Run a command: `when(Order.pay, 10)`, or for a Decider what its `decide` takes after the state.

        What it yields becomes part of the past of a further `when`. What it raises is kept for `then`.
        """
        if isinstance(self._outcome, Exception):
            raise AssertionError(f"the command before this one raised {self._outcome!r}") from self._outcome
        try:
            self._outcome = self._entity.decide(self._folded(self._past), command, arguments)
        except ConfigurationError:
            raise
        except Exception as error:
            self._outcome = error
            return self
        self._past += self._outcome.events
        self.state = self._folded(self._past)
        return self

    def then(self, *expected: Any) -> Self:
        """Assert what came of the command: exactly these events, nothing at all (`then()`), or an exception.

        An exception may be a class, or an instance, whose text must then be the same, too.
        """
        outcome = self._made()
        if len(expected) == 1 and _is_error(expected[0]):
            assert isinstance(outcome, Exception), f"expected {expected[0]!r}, but it yielded {list(outcome.events)!r}"
            wanted = expected[0]
            cls = wanted if isinstance(wanted, type) else type(wanted)
            if not isinstance(outcome, cls):
                raise AssertionError(f"expected {wanted!r}, but it raised {outcome!r}") from outcome
            assert isinstance(wanted, type) or str(wanted) == str(outcome), f"expected {wanted!r}, got {outcome!r}"
            return self
        if isinstance(outcome, Exception):
            raise AssertionError(f"expected {list(expected)!r}, but it raised {outcome!r}") from outcome
        assert list(outcome.events) == list(expected), f"expected {list(expected)!r}, got {list(outcome.events)!r}"
        return self

    def returning(self, value: Any) -> Self:
        """Assert what the command returned."""
        outcome = self._made()
        assert not isinstance(outcome, Exception), f"it raised {outcome!r}"
        assert outcome.value == value, f"expected the value {value!r}, got {outcome.value!r}"
        return self

    def leaving(self, **fields: Any) -> Self:
        """Assert some fields of the state that all this leads to."""
        found = {field: getattr(self.state, field) for field in fields}
        assert found == fields, f"expected the state {fields!r}, got {found!r}"
        return self

    def _made(self) -> Decided | Exception:
        if self._outcome is None:
            raise AssertionError("say which command before what is expected: given(…).when(…).then(…)")
        return self._outcome

    def _folded(self, events: Sequence[object]) -> Any:
        return folded(self._entity, self._id, events, self._registry)


def given(
    kind: type[Aggregate] | Decider[Any], *events: object, id: str = "1", registry: Registry = REGISTRY
) -> Scenario:
    """An entity to which these events have happened: `given(Order, OrderPlaced(total=30)).when(…).then(…)`.

    The events go through JSON and back as they would in a store, so one that could not have been stored is refused.
    """
    return Scenario(entity_of(kind, registry), events, id, registry)


def entity_of(kind: type[Aggregate] | Decider[Any], registry: Registry) -> Entity[Any]:
    """What event sourcing works on. Refused as an App would refuse it."""
    return DeciderEntity(kind, registry) if isinstance(kind, Decider) else AggregateEntity(kind, registry)


def folded(entity: Entity[Any], id_: str, events: Sequence[object], registry: Registry) -> Any:
    """The state after these events, each written as JSON and read again."""
    return entity.fold(entity.new(id_), stored_events(events, registry))


def stored_events(events: Sequence[object], registry: Registry) -> list[StoredEvent]:
    """Events as a store would hold them, from version 1 on. One that comes back as another is refused."""
    found: list[StoredEvent] = []
    for number, event in enumerate(events, 1):
        kind = registry.of(event)
        found.append((number, kind.name, kind.version, _round_trip(kind, event), f"event-{number}"))
    return found


def _round_trip(kind: EventType, event: object) -> bytes:
    try:
        data = kind.encode(event)
    except EncodeError as error:
        raise AssertionError(f"{event!r}: no store would take it: {error}") from error
    again = kind.decode(data, kind.version)
    assert again == event, f"{event!r} comes back from a store as {again!r}"
    return data


def _is_error(value: object) -> bool:
    return isinstance(value, Exception) or (isinstance(value, type) and issubclass(value, Exception))
