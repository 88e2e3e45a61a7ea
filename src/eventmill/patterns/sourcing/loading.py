"""From a stream to the state it means."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from itertools import takewhile
from typing import Any

from eventmill.core.entity import Entity
from eventmill.core.errors import ConfigurationError, StreamIncompleteError
from eventmill.core.message import Message, Recorded
from eventmill.core.stream import StoredEvent, Stream, stored
from eventmill.patterns.sourcing.snapshots import mismatched, taken
from eventmill.patterns.sourcing.streams import PAGE, StreamCalls, numbered


class State:
    """An entity folded up to some version.

    base: the version its fold began at, a snapshot's or 0. last: the id of the last event that was folded.
    """

    __slots__ = ("base", "last", "state", "version")

    def __init__(self, state: Any, version: int, base: int, last: str | None) -> None:
        self.state = state
        self.version = version
        self.base = base
        self.last = last


class Loading(StreamCalls):
    """Folds entities out of the store."""

    async def _folded(self, entity: Entity[Any], id_: str, upto: int | None = None) -> State:
        """The state up to a version, or all there is, begun from a snapshot where one fits. Raises StreamIncompleteError."""
        stream = entity.stream(id_)
        if entity.snapshot_every is not None:
            found = await taken(self.store, entity, stream)
            if found is not None and (upto is None or found.version <= upto):
                # One event more than needed is read: it tells whether the snapshot is of this stream's history.
                events = await self._events(stream, found.version - 1, upto)
                if events and events[0][4] == found.event:
                    state = entity.fold(found.state, events[1:])
                    return State(state, events[-1][0], found.version, events[-1][4])
                mismatched(entity, stream)
        events = await self._events(stream, 0, upto)
        state = entity.fold(entity.new(id_), events)
        return State(state, len(events), 0, events[-1][4] if events else None)

    async def _events(self, stream: Stream, after: int, upto: int | None) -> Sequence[StoredEvent]:
        """What a fold needs of the events from one version on. Raises StreamIncompleteError."""
        page = events = await self.store.events(stream, after=after, upto=upto, limit=PAGE)
        while len(page) == PAGE:
            page = await self.store.events(stream, after=page[-1][0], upto=upto, limit=PAGE)
            events = [*events, *page]
        if events:
            if events[0][0] != after + 1 or events[-1][0] != after + len(events):
                raise _incomplete(stream, after, events[0][0])
        elif not after and (version := await self.store.version(stream)):
            # One that somebody has begun meanwhile is read now.
            events = await self.store.events(stream, after=0, upto=upto, limit=PAGE)
            if not events or events[0][0] != 1:
                raise _incomplete(stream, 0, version + 1)
        return await self._readable(events)

    async def _readable(self, events: Sequence[StoredEvent]) -> Sequence[StoredEvent]:
        """The events with their personal fields opened, or redacted."""
        personal = self.registry.personal
        if not personal or not any(event[1] in personal for event in events):
            return events
        return [
            (version, type_, schema, await self._vault.open(type_, schema, data), id_)
            for version, type_, schema, data, id_ in events
        ]

    async def _whole(self, stream: Stream) -> Sequence[Recorded]:
        """All events from the first on. Raises StreamIncompleteError."""
        records = await self._records(stream, 0, None)
        check_whole(stream, records, 0)
        if not records and (version := await self.store.version(stream)):
            raise _incomplete(stream, 0, version + 1)
        return records

    async def _current(self, entity: Entity[Any], id_: str) -> State:
        """The state as the caller's transaction would leave it, or as it is stored."""
        folded = await self._folded(entity, id_)
        staged = self._staged(entity.stream(id_))
        if staged:
            folded.state = entity.fold(folded.state, map(stored, numbered(staged, folded.version)))
            folded.version += len(staged)
            folded.last = None
        return folded

    def _staged(self, stream: Stream) -> Sequence[Message]:
        transaction = self._joined()
        return () if transaction is None else transaction.staged(stream)

    async def _prefix(self, entity: Entity[Any], id_: str, version: int) -> State:
        """The state at exactly this version. Raises ConfigurationError where the stream does not reach it."""
        if version < 0:
            raise ConfigurationError(f"version={version}: versions count from 1; 0 is before the first event")
        if version == 0:
            return State(entity.new(id_), 0, 0, None)
        folded = await self._folded(entity, id_, version)
        if folded.version < version:
            raise ConfigurationError(f"{entity.stream(id_)} has no version {version}: it stands at {folded.version}")
        return folded

    async def _at(self, entity: Entity[Any], id_: str, at: datetime) -> State:
        """The state that was committed at a moment. Raises ConfigurationError for one without a time zone."""
        if at.tzinfo is None:
            raise ConfigurationError(f"at={at}: give a moment with a time zone, such as datetime.now(UTC)")
        stream = entity.stream(id_)
        moment = at.timestamp() * 1000
        records = await self._legible(await self._whole(stream))
        before = list(takewhile(lambda record: record.recorded_at <= moment, records))
        return State(entity.fold(entity.new(id_), map(stored, before)), len(before), 0, None)


def check_whole(stream: Stream, records: Sequence[Recorded], after: int) -> None:
    """Refuse a stream that events are missing from: its fold would be another state than the one that was."""
    if not records:
        return
    first, last = records[0].message.sequence or 0, records[-1].message.sequence or 0
    if first != after + 1 or last != after + len(records):
        raise _incomplete(stream, after, first)


def _incomplete(stream: Stream, after: int, first: int) -> StreamIncompleteError:
    what = f"events {after + 1} to {first - 1}" if first > after + 1 else "some events"
    return StreamIncompleteError(
        f"{stream}: {what} are not in the log any more, so no state can be folded: "
        "leave topics that aggregates live from out of retention="
    )
