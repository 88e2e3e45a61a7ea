"""The log by stream: what of each topic and key was appended and not trimmed yet."""

from __future__ import annotations

import msgspec

from eventmill.core.admission import Stored
from eventmill.core.message import Recorded
from eventmill.core.stream import Append, Stream


class MemoryStreams:
    """Events by stream and version."""

    def __init__(self) -> None:
        self._events: dict[Stream, dict[int, Recorded]] = {}
        self._versions: dict[Stream, int] = {}
        self._repeatable: dict[Stream, set[str]] = {}

    def version(self, stream: Stream) -> int:
        """The version of the last event ever appended; 0 for none."""
        return self._versions.get(stream, 0)

    def add(self, stream: Stream, version: int, record: Recorded) -> None:
        self._versions[stream] = version
        self._events.setdefault(stream, {})[version] = record

    def trim(self, record: Recorded) -> None:
        """Forget an event that was trimmed. The stream's version stays."""
        if record.message.key is not None:
            events = self._events.get(Stream(record.message.topic, record.message.key), {})
            for version, known in list(events.items()):
                if known.position == record.position:
                    del events[version]
                    self._repeatable.get(Stream(record.message.topic, record.message.key), set()).discard(
                        known.message.id
                    )
                    return

    def read(self, stream: Stream, after: int, upto: int | None, limit: int, backward: bool) -> list[Recorded]:
        events = self._events.get(stream, {})
        versions = [version for version in sorted(events, reverse=backward) if version > after]
        if upto is not None:
            versions = [version for version in versions if version <= upto]
        return [_numbered(events[version], version) for version in versions[:limit]]

    def of(self, topic: str, after: str, limit: int) -> list[tuple[Stream, int]]:
        streams = sorted(stream for stream in self._versions if stream.topic == topic and stream.key > after)
        return [(stream, self._versions[stream]) for stream in streams[:limit]]

    def stored(self, append: Append) -> list[Stored]:
        """Those of an append's ids that a call with ids of its own has stored here."""
        ids = {message.id for message in append.messages} & self._repeatable.get(append.stream, set())
        if not ids:
            return []
        events = self._events.get(append.stream, {})
        return [
            Stored(events[version].message.id, version, events[version].position)
            for version in sorted(events)
            if events[version].message.id in ids
        ]

    def note(self, append: Append) -> None:
        """The append was stored: its ids are known from here on."""
        if append.repeatable:
            self._repeatable.setdefault(append.stream, set()).update(message.id for message in append.messages)


def _numbered(record: Recorded, version: int) -> Recorded:
    if record.message.sequence == version:
        return record
    return msgspec.structs.replace(record, message=msgspec.structs.replace(record.message, sequence=version))
