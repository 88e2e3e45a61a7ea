"""What a group has collected, as its author's function sees it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar, cast

from eventmill.core.errors import DecodeError
from eventmill.core.registry import Registry
from eventmill.patterns.aggregation.collect import Reason
from eventmill.patterns.aggregation.record import Fine, Group

T = TypeVar("T")


class Collected:
    """The events of one group, in the order of their times, whatever order they came in.

    key: the group's key. epoch: which group of the key. complete: whether all is there that was to be. reason: why it
    was closed: `complete`, `window`, `idle`, `deadline`, `limit` or `forced`; None while it is still open.
    """

    __slots__ = ("_events", "_fine", "_group", "_registry", "complete", "epoch", "key", "reason")

    def __init__(self, key: str, group: Group, registry: Registry, *, complete: bool, reason: Reason | None) -> None:
        self.key = key
        self.epoch = group.epoch
        self.complete = complete
        self.reason = reason
        self._group = group
        self._fine: Sequence[Fine] = group.events
        self._registry = registry
        self._events: list[Any] | None = None

    @property
    def events(self) -> Sequence[Any]:
        """All of them. Raises DecodeError where one cannot be read."""
        if self._events is None:
            self._events = [self._decode(fine) for fine in self._fine]
        return self._events

    def _decode(self, fine: Fine) -> Any:
        kind = self._registry.by_name.get(fine.type)
        if kind is None:
            raise DecodeError(f"{fine.type}: no event type of this name is registered here")
        return kind.decode(fine.data, fine.version)

    def of(self, kind: type[T]) -> Sequence[T]:
        """Those of one type."""
        name = self._registry.type_for(kind).name
        return [cast(T, self._decode(fine)) for fine in self._fine if fine.type == name]

    def last(self, kind: type[T]) -> T | None:
        """The latest one of a type, or None."""
        name = self._registry.type_for(kind).name
        for fine in reversed(self._fine):
            if fine.type == name:
                return cast(T, self._decode(fine))
        return None

    @property
    def start(self) -> datetime | None:
        """Where its window begins."""
        return None if self._group.start is None else datetime.fromtimestamp(self._group.start / 1000, UTC)

    @property
    def end(self) -> datetime | None:
        """Where its window ends; a session's is one gap after its last event."""
        return None if self._group.end is None else datetime.fromtimestamp(self._group.end / 1000, UTC)

    def __len__(self) -> int:
        return len(self._fine)
