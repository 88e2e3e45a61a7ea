"""A property every aggregate must have: whatever its commands do, its state is the fold of its facts, and only that."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import hypothesis
import msgspec
from hypothesis import strategies as st

from eventmill.core.aggregate import Aggregate
from eventmill.core.codec import write_json
from eventmill.core.decider import Decider
from eventmill.core.entity import Decided, Entity
from eventmill.core.errors import ConfigurationError
from eventmill.core.registry import REGISTRY, Registry
from eventmill.testing.scenario import entity_of, folded, stored_events

Call = st.SearchStrategy[tuple[Any, ...]]

_write = msgspec.json.Encoder(order="deterministic").encode


def call(*command: Any) -> Call:
    """A command with strategies (or plain values) as its arguments: `call(Order.pay, st.integers(1, 100))`."""
    parts = [part if isinstance(part, st.SearchStrategy) else st.just(part) for part in command]
    return st.tuples(*parts)


def history_test(
    kind: type[Aggregate] | Decider[Any],
    calls: Sequence[Call],
    *,
    refuses: type[Exception] | tuple[type[Exception], ...] = (),
    max_calls: int = 20,
    registry: Registry = REGISTRY,
    settings: hypothesis.settings | None = None,
) -> Callable[[], None]:
    """A test function for pytest: `test_order_history = history_test(Order, [call(Order.pay, st.integers())], refuses=Refused)`.

    It runs random sequences of the commands, and asserts that

    * a command raises nothing but what it `refuses` with, and yields only events that a store can keep: they come back from
      JSON as they were;
    * after each command, the state it worked on is the fold of all facts so far, from the first one on;
    * a command that refused has left no trace; deciding twice on the same past decides the same;
    * a snapshot at any version, written as JSON and read again, with the later facts folded onto it, gives the same state.

    settings: those of hypothesis; without any, the profile in force, but never a failure because the machine is slow.
    """
    if not calls:
        raise ConfigurationError("calls is empty: give at least one call(…)")
    entity = entity_of(kind, registry)

    if settings is None:
        settings = hypothesis.settings(deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])

    @settings
    @hypothesis.given(st.lists(st.one_of(*calls), max_size=max_calls))
    def test(sequence: list[tuple[Any, ...]]) -> None:
        check_history(entity, sequence, refuses=refuses, registry=registry)

    test.__doc__ = f"{entity.name}: its state is the fold of its facts, whatever its commands do."
    return test


def check_history(
    entity: Entity[Any],
    sequence: Sequence[tuple[Any, ...]],
    *,
    refuses: type[Exception] | tuple[type[Exception], ...] = (),
    registry: Registry = REGISTRY,
) -> None:
    """The property, for one sequence of commands. Raises AssertionError, saying which command broke it."""
    facts: list[object] = []
    for command in sequence:
        before = folded(entity, "1", facts, registry)
        try:
            decided = entity.decide(before, command, {})
        except refuses:
            continue
        again = entity.decide(folded(entity, "1", facts, registry), command, {})
        assert list(again.events) == list(decided.events), f"{_named(command)} decides differently on the same past"
        facts += decided.events
        _check_fold(entity, command, before, decided, facts, registry)
    _check_snapshots(entity, facts, registry)


def _check_fold(
    entity: Entity[Any],
    command: tuple[Any, ...],
    worked_on: Any,
    decided: Decided,
    facts: Sequence[object],
    registry: Registry,
) -> None:
    fresh = folded(entity, "1", facts, registry)
    if entity.version(fresh) is None:
        return  # a Decider's functions have no state of their own to compare
    assert _write(worked_on) == _write(fresh), (
        f"{_named(command)} yielded {list(decided.events)!r}; its own state became {worked_on!r}, "
        f"but the fold of all facts is {fresh!r}: a command must change the state by its facts only, and evolve must "
        "depend on nothing else"
    )


def _check_snapshots(entity: Entity[Any], facts: Sequence[object], registry: Registry) -> None:
    stored = stored_events(facts, registry)
    whole = _write(entity.fold(entity.new("1"), stored))
    for version in range(len(stored) + 1):
        state = entity.fold(entity.new("1"), stored[:version])
        kept = write_json(state)
        restored = entity.restore(kept)
        assert _write(restored) == _write(state), f"the state at version {version} comes back from JSON as {restored!r}"
        later = entity.fold(restored, stored[version:])
        assert _write(later) == whole, f"begun from a snapshot at version {version}, the state becomes {later!r}"


def _named(command: tuple[Any, ...]) -> str:
    first, *rest = command
    return f"{getattr(first, '__name__', first)}({', '.join(map(repr, rest))})"
