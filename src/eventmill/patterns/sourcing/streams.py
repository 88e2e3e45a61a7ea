"""Streams: appended to under an expected version, and read back as facts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from itertools import zip_longest
from typing import Any

import msgspec

from eventmill.core.capabilities import Unit
from eventmill.core.errors import ConfigurationError, StreamClosedError
from eventmill.core.event import Event
from eventmill.core.message import Message, Recorded
from eventmill.core.reading import Types
from eventmill.core.stream import ANY, Append, Appended, Query, Stream, check_append, closing
from eventmill.patterns.sourcing.fact import Fact, fact
from eventmill.patterns.sourcing.host import Host, stream_of

PAGE = 1_000
"""Events that are read at a time."""

ARCHIVED = b"archived"
TOMBSTONED = b"tombstoned"

_read_object = msgspec.json.Decoder(dict[str, Any]).decode


class StreamArchived(Event, name="eventmill.stream.archived"):
    """The stream takes no more events until it is restored."""

    reason: str = ""


class StreamRestored(Event, name="eventmill.stream.restored"):
    """The stream takes events again."""

    reason: str = ""


class StreamTombstoned(Event, name="eventmill.stream.tombstoned"):
    """The stream has ended for good."""

    reason: str = ""


class StreamCalls(Host):
    """The App's calls on streams."""

    async def append(
        self, stream: Stream | str, *events: object, expected: int = ANY, ids: Sequence[str] = ()
    ) -> Appended:
        """Append events to a stream (`order/536365`); they are durable when this returns.

        expected: the version of the stream before the first of them, ABSENT for a new one, or ANY. Without events, this only
        asks whether it stands there. ids: identities of your own, one an event: where a former call has stored all of them in
        this stream, nothing is stored again, and the original positions are returned. Let no two events of the service have
        the same: whoever gets them by a broker knows them by it, and takes the second for a repeat.
        Inside a handler or a transaction they join that, and what is returned is filled in by its commit.

        Raises WrongExpectedVersionError, StreamClosedError, and what `publish` raises.
        """
        transaction = self._joined()
        if transaction is not None:
            return transaction.append(stream, *events, expected=expected, ids=ids)
        if not self._opened:
            await self.open()
        if isinstance(stream, str):
            stream = Stream.parse(stream)
        check_append(expected, ids, len(events))
        make = self._envelopes.in_stream
        messages = [make(event, stream, identity) for event, identity in zip_longest(events, ids)]
        append = Append(stream, await self._sealed(messages), expected, repeatable=bool(ids))
        try:
            await self._commit(append)
        except StreamClosedError:
            before = await self._stored_before(stream, ids) if ids else None
            if before is None:
                raise
            return before
        return append.appended

    async def _stored_before(self, stream: Stream, ids: Sequence[str]) -> Appended | None:
        """Where an append was stored before its stream was closed; None where it was not."""
        records = await self._recorded(stream, 0, None)
        place = next((number for number, record in enumerate(records) if record.message.id == ids[0]), 0)
        found = records[place : place + len(ids)]
        if [record.message.id for record in found] != list(ids):
            return None
        appended = Appended()
        appended.repeated = True
        appended.positions = [record.position for record in found]
        appended.version = found[-1].message.sequence or 0
        return appended

    async def _commit(self, append: Append) -> None:
        unit = self.store.unit()
        unit.append_to(append)
        await finish(unit)

    async def _sealed(self, messages: Sequence[Message]) -> Sequence[Message]:
        """The messages as they may be stored."""
        return await self._vault.seal(messages, None) if self._envelopes.personal(messages) else messages

    async def read(
        self,
        stream: Stream | str,
        *,
        after: int = 0,
        upto: int | None = None,
        limit: int | None = None,
        backward: bool = False,
    ) -> Sequence[Fact]:
        """The facts of a stream whose versions lie beyond `after` and not beyond `upto`, at most `limit`.

        In order of their versions, or from the last one back. Raises DecodeError for one that cannot be read.
        """
        if after < 0 or (upto is not None and upto < 0) or (limit is not None and limit < 0):
            raise ConfigurationError(f"read: after={after}, upto={upto}, limit={limit}: none of them can be below 0")
        if not self._opened:
            await self.open()
        records = await self._recorded(stream_of(stream), after, upto, limit=limit, backward=backward)
        records = await self._legible(records)
        return [fact(record, self.registry) for record in records]

    async def _recorded(
        self, stream: Stream, after: int, upto: int | None, *, limit: int | None = None, backward: bool = False
    ) -> Sequence[Recorded]:
        found: list[Recorded] = []
        while True:
            size = PAGE if limit is None else min(PAGE, limit - len(found))
            page = await self.store.read_stream(stream, after=after, upto=upto, limit=size, backward=backward)
            if len(page) < size and not found:
                return page
            found += page
            if len(page) < size or len(found) == limit:
                return found
            last = page[-1].message.sequence or 0
            if backward:
                upto = last - 1
            else:
                after = last

    async def _legible(self, records: Sequence[Recorded]) -> Sequence[Recorded]:
        """The records with their personal fields opened, or redacted."""
        personal = self.registry.personal
        if not personal or not any(record.message.type in personal for record in records):
            return records
        return [await self._vault.opened(record) for record in records]

    async def read_all(
        self,
        *,
        after: int = 0,
        types: Collection[type | str] | None = None,
        topics: Collection[str] | None = None,
        queries: Sequence[Query] | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[Fact]:
        """Every fact of the store beyond a position, in the order of the positions: `async for fact in app.read_all()`.

        types: event classes, names, or prefixes ending in `.*`. topics: the categories of streams. queries: one of them
        matches the fact's tags and type. Closed streams are read like others: what is in the log has happened.
        Ends where the log ended when it was last looked at. Raises DecodeError for a fact that cannot be read.
        """
        if not self._opened:
            await self.open()
        wanted = None if types is None else self._types(types)
        left = limit
        while left is None or left > 0:
            size = PAGE if left is None else min(PAGE, left)
            page, looked = await self.store.read_all(
                after=after, limit=size, types=wanted, topics=topics, queries=queries
            )
            for record in await self._legible(page):
                yield fact(record, self.registry)
            if left is not None:
                left -= len(page)
            if looked <= after:
                return
            after = looked

    def _types(self, wanted: Collection[type | str]) -> Types:
        names = {each if isinstance(each, str) else self.registry.type_for(each).name for each in wanted}
        prefixes = {each.removesuffix("*") for each in names if each.endswith(".*")}
        return Types(frozenset(each for each in names if not each.endswith(".*")), frozenset(prefixes))

    # What is known of a stream

    async def metadata(self, stream: Stream | str) -> dict[str, Any]:
        """What `describe` has stored of a stream; empty where nothing was."""
        if not self._opened:
            await self.open()
        stored = await self.store.document(_metadata(stream_of(stream)))
        return {} if stored is None else _read_object(stored.data)

    async def describe(self, stream: Stream | str, metadata: dict[str, Any] | None) -> None:
        """Store what is to be known of a stream beside its events, as a JSON object; None removes it. The last call counts.

        Raises ConfigurationError for what is none.
        """
        try:
            data = None if metadata is None else msgspec.json.encode(metadata)
            if data is not None:
                _read_object(data)
        except (TypeError, ValueError, msgspec.MsgspecError) as error:
            raise ConfigurationError(f"describe {stream}: give a dict that JSON can hold: {error}") from error
        async with self.transaction() as tx:
            tx.put(_metadata(stream_of(stream)), data)

    # The end of a stream

    async def archive(self, stream: Stream | str, *, reason: str = "") -> None:
        """Let a stream take no more events, until `restore`; appends end with StreamClosedError. It can still be read.
        What is published with its key is an announcement like any other, and is not kept out.

        The fact `eventmill.stream.archived` becomes its last event. Archiving it again does nothing.
        Raises StreamClosedError for one that is tombstoned.
        """
        await self._close(stream_of(stream), StreamArchived(reason=reason), ARCHIVED)

    async def restore(self, stream: Stream | str, *, reason: str = "") -> None:
        """Let an archived stream take events again, by the fact `eventmill.stream.restored`."""
        await self._close(stream_of(stream), StreamRestored(reason=reason), None)

    async def tombstone(self, stream: Stream | str, *, reason: str = "") -> None:
        """End a stream for good, by the fact `eventmill.stream.tombstoned`: nothing will ever be appended to it again.

        Its events stay, for views to be rebuilt from.
        """
        await self._close(stream_of(stream), StreamTombstoned(reason=reason), TOMBSTONED)

    async def _close(self, stream: Stream, event: Event, word: bytes | None) -> None:
        message = msgspec.structs.replace(self._envelopes(event), topic=stream.topic, key=stream.key)
        async with self.transaction() as tx:
            stands = await tx.get(closing(stream))
            if (stands and stands.data) == word:
                return
            if stands is not None and stands.data == TOMBSTONED:
                raise StreamClosedError(str(stream), TOMBSTONED.decode())
            tx.stage(Append(stream, [message], reopens=True))
            tx.put(closing(stream), word, expected=stands.version if stands else 0)


async def finish(unit: Unit) -> None:
    """End a unit of the store's own; durable when this returns."""
    try:
        durable = await unit.finish()
    except BaseException:
        await unit.discard()
        raise
    await durable


def _metadata(stream: Stream) -> str:
    return f"stream-metadata {stream}"


def numbered(messages: Sequence[Message], version: int) -> list[Recorded]:
    """Messages that are not stored yet, as the records they would be after this version."""
    return [
        Recorded(0, ("", 0), 0, msgspec.structs.replace(message, sequence=version + number))  # type: ignore[arg-type]
        for number, message in enumerate(messages, 1)
    ]
