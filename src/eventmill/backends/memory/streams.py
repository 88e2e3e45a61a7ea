"""The log by stream: what of each topic and key was appended and not trimmed yet."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from eventmill.core.errors import StreamClosedError, WrongExpectedVersionError
from eventmill.core.message import Message, Recorded
from eventmill.core.stream import ANY, Append, Stream, closing


class MemoryStreams:
    """Events by stream and version."""

    def __init__(self) -> None:
        self._events: dict[Stream, dict[int, Recorded]] = {}
        self._versions: dict[Stream, int] = {}

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

    def repeated(self, append: Append) -> Sequence[Recorded] | None:
        """The stored events with the ids of the append's, None where none of them is there.

        Raises WrongExpectedVersionError where only some are there, or in another order.
        """
        ids = [message.id for message in append.messages]
        events = self._events.get(append.stream, {})
        found = [_numbered(events[version], version) for version in sorted(events) if events[version].message.id in ids]
        if not found:
            return None
        first = found[0].message.sequence or 0
        if [event.message.id for event in found] != ids or (found[-1].message.sequence or 0) != first + len(ids) - 1:
            raise _conflict(append, self.version(append.stream))
        return found

    def admitted(self, staged: Sequence[Message | Append], closed: Callable[[str], bytes | None]) -> list[Message]:
        """The messages to append, in order, when every expectation is met; closed: the data of a document.

        Fills in what is known of the appends before they are done. Raises WrongExpectedVersionError and StreamClosedError.
        """
        versions: dict[Stream, int] = {}
        messages: list[Message] = []
        for entry in staged:
            if isinstance(entry, Message):
                if entry.key is not None:
                    stream = Stream(entry.topic, entry.key)
                    versions[stream] = versions.get(stream, self.version(stream)) + 1
                messages.append(entry)
                continue
            word = None if entry.reopens else closed(closing(entry.stream))
            if word is not None:
                raise StreamClosedError(str(entry.stream), word.decode())
            stored = self.repeated(entry) if entry.repeatable and entry.messages else None
            if stored is not None:
                entry.appended.repeated = True
                entry.appended.positions = [event.position for event in stored]
                entry.appended.version = stored[-1].message.sequence or 0
                continue
            actual = versions.get(entry.stream, self.version(entry.stream))
            if entry.expected not in (ANY, actual):
                raise _conflict(entry, actual)
            versions[entry.stream] = entry.appended.version = actual + len(entry.messages)
            messages += entry.messages
        return messages


def _conflict(append: Append, actual: int) -> WrongExpectedVersionError:
    return WrongExpectedVersionError(str(append.stream), expected=append.expected, actual=actual)


def _numbered(record: Recorded, version: int) -> Recorded:
    if record.message.sequence == version:
        return record
    return msgspec.structs.replace(record, message=msgspec.structs.replace(record.message, sequence=version))
