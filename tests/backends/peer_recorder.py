"""The `eventsourcing` library's recorder on top of eventmill's streams, so that its own tests can be run against them.

Their versions may begin at 0 or 1, ours count from 1: what a stream began with is written in each event.
"""

from __future__ import annotations

import asyncio
import threading
from base64 import b64decode, b64encode
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar
from uuid import UUID, uuid4

import msgspec
from eventsourcing.persistence import (
    AggregateRecorder,
    ApplicationRecorder,
    IntegrityError,
    Notification,
    StoredEvent,
)

from eventmill.backends.connect import StoreBackend, connect_store
from eventmill.core.clock import SystemClock
from eventmill.core.errors import ConflictError
from eventmill.core.message import Message, Recorded
from eventmill.core.reading import Types
from eventmill.core.stream import Append, Stream

T = TypeVar("T")
ALL = 1 << 62


class Body(msgspec.Struct):
    """begun: the version of the stream's first event, as they count."""

    begun: int
    state: str


class Loop:
    """A store on an event loop of its own, for calls from any thread."""

    def __init__(self, url: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._store = connect_store(url, SystemClock())
        self.call(lambda store: store.__aenter__())

    def call(self, work: Callable[[StoreBackend], Awaitable[T]]) -> T:
        async def run() -> T:
            return await work(self._store)

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result()

    def close(self) -> None:
        self.call(lambda store: store.__aexit__(None, None, None))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class PeerAggregateRecorder(AggregateRecorder):
    """Streams of one topic; their topics are our types."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:
        self._loop.call(lambda store: self._insert(store, stored_events))
        return None

    async def _insert(self, store: StoreBackend, events: Sequence[StoredEvent]) -> list[int]:
        appends = []
        begun: dict[Stream, int] = {}
        try:
            async with store.transaction() as tx:
                for event in events:
                    stream = Stream("peer", str(event.originator_id))
                    if stream not in begun:
                        first = await store.read_stream(stream, limit=1)
                        known = msgspec.json.decode(first[0].message.data, type=Body).begun if first else None
                        begun[stream] = event.originator_version if known is None else known
                    body = Body(begun[stream], b64encode(event.state).decode())
                    message = Message(
                        id=uuid4().hex, source="peer", type=event.topic, topic="peer", time=0, key=stream.key,
                        data=msgspec.json.encode(body),
                    )  # fmt: skip
                    append = Append(stream, [message], event.originator_version - begun[stream])
                    tx.append_to(append)
                    appends.append(append.appended)
        except ConflictError as error:
            raise IntegrityError(str(error)) from error
        return [position for appended in appends for position in appended.positions]

    def select_events(
        self,
        originator_id: UUID | str,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> Sequence[StoredEvent]:
        stream = Stream("peer", str(originator_id))

        async def read(store: StoreBackend) -> Sequence[Recorded]:
            first = await store.read_stream(stream, limit=1)
            if not first:
                return ()
            # One that begins with 0 stands one lower than ours, and so on.
            shift = 1 - msgspec.json.decode(first[0].message.data, type=Body).begun
            return await store.read_stream(
                stream,
                after=0 if gt is None else max(0, gt + shift),
                upto=None if lte is None else lte + shift,
                limit=ALL if limit is None else limit,
                backward=desc,
            )

        return [StoredEvent(originator_id, *_parts(each)) for each in self._loop.call(read)]


class PeerApplicationRecorder(PeerAggregateRecorder, ApplicationRecorder):
    """The same with positions: their notification ids."""

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:
        return self._loop.call(lambda store: self._insert(store, stored_events))

    def select_notifications(
        self,
        start: int | None,
        limit: int,
        stop: int | None = None,
        topics: Sequence[str] = (),
        *,
        inclusive_of_start: bool = True,
    ) -> Sequence[Notification]:
        after = 0 if start is None else start - 1 if inclusive_of_start else start
        types = Types(frozenset(topics)) if topics else None
        found, _ = self._loop.call(lambda store: store.read_all(after=max(0, after), limit=limit, types=types))
        return [
            Notification(UUID(each.message.key), *_parts(each), id=each.position)
            for each in found
            if stop is None or each.position <= stop
        ]

    def max_notification_id(self) -> int | None:
        ends = self._loop.call(lambda store: store.end())
        return max(ends.values(), default=None)

    def subscribe(self, gt: int | None = None, topics: Sequence[str] = ()) -> Any:
        raise NotImplementedError("subscriptions of theirs are handlers of ours")


def _parts(record: Recorded) -> tuple[int, str, bytes]:
    body = msgspec.json.decode(record.message.data, type=Body)
    return (record.message.sequence or 0) - 1 + body.begun, record.message.type, b64decode(body.state)
