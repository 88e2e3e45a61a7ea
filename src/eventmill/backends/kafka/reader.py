"""A consumer on a thread of its own, which hands whole batches to the event loop.

It is told which partitions to read, and from where; Kafka's own spreading of partitions over members is not
used, because the store's leases do that. Two sides share it: the thread owns the consumer, and applies what
is `_wanted`; the event loop owns the buffer. Each time a partition is asked for at a place where the reader is
not, it gets a new version, and what was fetched under an older one is dropped.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Mapping
from itertools import count
from typing import NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from eventmill.backends.kafka import debezium
from eventmill.backends.kafka.failures import of_exception, translated
from eventmill.backends.kafka.record import KafkaMessage, from_record
from eventmill.backends.kafka.settings import Config, Settings
from eventmill.core.errors import BackendError
from eventmill.core.message import Partition, Recorded
from eventmill.core.reading import Page, Types

log = logging.getLogger("eventmill")

FETCH = 512
"""Messages in one batch at most."""

POLL = 0.2
"""Seconds after which a waiting thread looks whether other partitions are wanted."""

HELD = 4 << 20
"""Bytes that wait for the event loop at most; beyond that the library holds a little more, and the broker the rest."""

CLOSING = 10.0
"""Seconds that closing waits for the thread."""

CONFIG: Config = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    # A place that is gone is an error: it must be said how much was lost.
    "auto.offset.reset": "error",
    "enable.partition.eof": True,
    "isolation.level": "read_committed",
    "fetch.wait.max.ms": 500,
    "fetch.error.backoff.ms": 100,
    "queued.min.messages": 2_000,
    "queued.max.messages.kbytes": 8_192,
}


class Place(NamedTuple):
    """Where to begin, and under which version. offset: of the first message wanted."""

    offset: int
    version: int


Wanted = Mapping[Partition, Place]


class Gone(NamedTuple):
    """The broker has no message at the place asked for. The offsets it has, or None where it did not say."""

    partition: Partition
    low: int | None
    high: int | None


class Batch(NamedTuple):
    """What was fetched while these partitions were assigned."""

    assigned: Wanted
    messages: list[KafkaMessage]
    gone: list[Gone]
    size: int


class Reader:
    """Reads the partitions it is asked for, from the places it is asked for; positions are offsets plus one.

    group: whose reading this is, for the log lines and the broker's statistics. types: which to hand out; None for all.
    """

    def __init__(self, settings: Settings, group: str, types: Types | None, where: str) -> None:
        self._settings = settings
        self._group = group
        self._types = types
        self._where = where
        self._loop = asyncio.get_running_loop()
        # The event loop's.
        self._at: dict[Partition, int] = {}
        self._versions = count(1)
        self._buffer: deque[Batch] = deque()
        self._changes = 0
        self._waiting: set[asyncio.Future[None]] = set()
        self._failure: BackendError | None = None
        self._thread: threading.Thread | None = None
        self._ended = asyncio.Event()
        # Written by one side, read by the other.
        self._wanted: Wanted = {}
        self._closing = False
        self._handed = 0
        self._taken = 0
        self._gate = threading.Event()
        self._shown: Mapping[Partition, int] = {}

    # The event loop's side

    def read(self, after: Mapping[Partition, int], *, limit: int, max_bytes: int, types: Types | None = None) -> Page:
        """What has arrived of these partitions, without waiting; the rest is fetched meanwhile.

        types: instead of the reader's own. Raises BackendError for what the broker will not give.
        """
        self._aim(after)
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        types = types or self._types
        found: list[Recorded] = []
        moved: dict[Partition, int] = {}
        size = 0
        while self._buffer and len(found) < limit and size < max_bytes:
            batch = self._buffer.popleft()
            used = 0
            for message in batch.messages:
                if len(found) >= limit or size >= max_bytes:
                    break
                used += 1
                recorded = self._take(batch.assigned, message, types, moved)
                if recorded is not None:
                    found.append(recorded)
                    size += len(recorded.message.data)
            if used < len(batch.messages):
                self._buffer.appendleft(batch._replace(messages=batch.messages[used:]))
                break
            for gone in batch.gone:
                self._begin_again(batch.assigned, gone, moved)
            self._taken += batch.size
        self._gate.set()
        return Page(found, moved)

    def _aim(self, after: Mapping[Partition, int]) -> None:
        at = self._at
        if after == at:
            return
        wanted = {partition: place for partition, place in self._wanted.items() if partition in after}
        for partition, position in after.items():
            if at.get(partition) != position:
                wanted[partition] = Place(position, next(self._versions))
        self._at = dict(after)
        self._want(wanted)

    def _want(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._gate.set()
        if self._thread is None and not self._closing:
            self._thread = threading.Thread(target=self._run, name=f"kafka {self._group}", daemon=True)
            self._thread.start()

    def _current(self, assigned: Wanted, partition: Partition) -> bool:
        """Whether what was fetched under this assignment is still asked for."""
        then, now = assigned.get(partition), self._wanted.get(partition)
        return then is not None and now is not None and then.version == now.version

    def _take(
        self, assigned: Wanted, message: KafkaMessage, types: Types | None, moved: dict[Partition, int]
    ) -> Recorded | None:
        topic, number, offset = message.topic(), message.partition(), message.offset()
        assert topic is not None
        assert number is not None
        assert offset is not None
        name = self._settings.topic(topic)
        partition = Partition(name or topic, number)
        if not self._current(assigned, partition):
            return None
        at = self._at[partition]
        if message.error() is not None:  # the end of the partition: everything before this offset was seen
            if offset > at:
                self._at[partition] = moved[partition] = offset
            return None
        if offset < at:
            return None
        self._at[partition] = moved[partition] = offset + 1
        read = debezium.from_record if self._settings.changes(partition.topic) else from_record
        return read(message, partition, types)

    def _begin_again(self, assigned: Wanted, gone: Gone, moved: dict[Partition, int]) -> None:
        """The place asked for is not there. Go on at the earliest that is left, and say what was lost."""
        partition, low, high = gone
        if not self._current(assigned, partition):
            return
        at = self._at[partition]
        if high is not None and at > high:
            self._failure = BackendError(
                f"{partition}: {self._group} stands at {at}, but the topic ends at {high}: it was made anew, or lost "
                "messages. To begin again with what is there, remove the group: eventmill groups forget"
            )
            at = self._at.pop(partition)
            self._want({part: place for part, place in self._wanted.items() if part != partition})
            return
        if low is not None and at < low:
            if at > 0:
                log.warning(
                    "%s: %d messages of %s are lost to it: the topic's retention removed them before they were handled; "
                    "going on at position %d", self._group, low - at, partition, low,
                )  # fmt: skip
            self._at[partition] = moved[partition] = at = low
        self._want({**self._wanted, partition: Place(at, next(self._versions))})

    def show(self, after: Mapping[Partition, int]) -> None:
        """Commit these positions to Kafka's group, some time: they are what people see, and read by nobody."""
        self._shown = dict(after)

    async def changed(self, seen: int, timeout: float) -> int:
        """Wait until something arrived since `seen`, or the time is up; returns the counter of arrivals."""
        if seen == self._changes:
            waiter: asyncio.Future[None] = self._loop.create_future()
            self._waiting.add(waiter)
            try:
                async with asyncio.timeout(timeout):
                    await waiter
            except TimeoutError:
                pass
            finally:
                self._waiting.discard(waiter)
        return self._changes

    async def close(self) -> None:
        """Stop the thread, and wait a while for it. Never raises for a server that is gone."""
        self._closing = True
        self._gate.set()
        self._wake()
        if self._thread is None:
            return
        try:
            async with asyncio.timeout(CLOSING):
                await self._ended.wait()
        except TimeoutError:
            log.warning("%s: the consumer on %s takes its time to close; not waiting for it", self._group, self._where)

    def _wake(self) -> None:
        self._changes += 1
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)

    def _received(self, batch: Batch) -> None:
        self._buffer.append(batch)
        self._wake()

    def _failed(self, error: BackendError) -> None:
        self._failure = error
        self._wake()

    def _has_ended(self) -> None:
        self._ended.set()
        self._wake()

    # The thread's side

    def _run(self) -> None:
        try:
            consumer = Consumer(
                {
                    **self._settings.connection,
                    **CONFIG,
                    "group.id": self._settings.prefix + self._group,
                    "error_cb": lambda error: log.info("%s: %s", self._where, error.str()),
                },
                logger=self._settings.library_log,
            )
            try:
                self._serve(consumer)
            finally:
                consumer.close()
        except KafkaException as error:
            self._tell(self._failed, translated(error, f"{self._where}: reading for {self._group}"))
        finally:
            self._tell(self._has_ended)

    def _serve(self, consumer: Consumer) -> None:
        assigned: Wanted = {}
        shown: Mapping[Partition, int] = {}
        while not self._closing:
            if self._shown is not shown:
                shown = self._shown
                self._commit(consumer, shown)
            wanted = self._wanted
            if wanted is not assigned:
                self._assign(consumer, assigned, wanted)
                assigned = wanted
            if not assigned or self._handed - self._taken > HELD:
                self._gate.wait(POLL)
                self._gate.clear()
                continue
            first = consumer.poll(POLL)
            if first is None:
                continue
            messages = [first, *consumer.consume(FETCH - 1, 0)]
            self._hand_over(consumer, assigned, messages)

    def _assign(self, consumer: Consumer, assigned: Wanted, wanted: Wanted) -> None:
        left = [part for part, place in assigned.items() if wanted.get(part) != place]
        come = [part for part, place in wanted.items() if assigned.get(part) != place]
        name = self._settings.name
        if left:
            consumer.incremental_unassign([TopicPartition(name(topic), number) for topic, number in left])
        if come:
            consumer.incremental_assign(
                [TopicPartition(name(part.topic), part.number, wanted[part].offset) for part in come]
            )

    def _commit(self, consumer: Consumer, shown: Mapping[Partition, int]) -> None:
        places = [TopicPartition(self._settings.name(topic), number, at) for (topic, number), at in shown.items()]
        try:
            consumer.commit(offsets=places, asynchronous=True)
        except KafkaException as error:  # the next one will say more
            log.info("%s: showing how far %s is: %s", self._where, self._group, of_exception(error).str())

    def _hand_over(self, consumer: Consumer, assigned: Wanted, messages: list[KafkaMessage]) -> None:
        kept: list[KafkaMessage] = []
        gone: list[Gone] = []
        size = 0
        for message in messages:
            error = message.error()
            if error is None:
                size += len(message) + 500
            elif error.code() == KafkaError._AUTO_OFFSET_RESET:
                gone.append(self._look(consumer, message))
                continue
            elif error.code() != KafkaError._PARTITION_EOF:
                self._broken(error)
                continue
            kept.append(message)
        self._handed += size
        self._tell(self._received, Batch(assigned, kept, gone, size))

    def _broken(self, error: KafkaError) -> None:
        """An error of the whole consumer or of one partition. The library mends what can be mended by trying again."""
        if error.retriable() and not error.fatal():
            log.info("%s: %s", self._where, error.str())
        else:
            self._tell(self._failed, translated(error, f"{self._where}: reading for {self._group}"))

    def _look(self, consumer: Consumer, message: KafkaMessage) -> Gone:
        topic, number = message.topic(), message.partition()
        assert topic is not None
        assert number is not None
        partition = Partition(self._settings.topic(topic) or topic, number)
        try:
            offsets = consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=5)
        except KafkaException as error:
            log.info("%s: %s", self._where, of_exception(error).str())
            offsets = None
        return Gone(partition, None, None) if offsets is None else Gone(partition, *offsets)

    def _tell(self, function: object, *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *arguments)  # type: ignore[arg-type]
        except RuntimeError:
            self._closing = True  # the loop was closed without closing this reader: nobody is left to tell
