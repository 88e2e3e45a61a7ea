"""One producer, from its making to the first thing that goes wrong with it.

What a partition gets of one producer is always a prefix of what was handed to it: it is idempotent, so the
broker takes its batches in their order or not at all; it never gives up a message by itself (no timeout of its
own), and an error that would leave a gap stops it for good. So the order of a key holds through every failure,
as long as whoever publishes begins again at the first message that was not confirmed, on a new producer.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from functools import partial

from confluent_kafka import KafkaError, KafkaException, Producer

from eventmill.backends.kafka.failures import configured, of_exception
from eventmill.backends.kafka.record import KafkaMessage, Record
from eventmill.backends.kafka.settings import Config, Settings

POLL = 0.5

CONFIG: Config = {
    "acks": "all",
    "enable.idempotence": True,
    "enable.gapless.guarantee": True,
    "message.timeout.ms": 0,
    "linger.ms": 0,
    # How much is under way is bounded by those who publish; these must only not be in the way.
    "queue.buffering.max.messages": 1_000_000,
    "queue.buffering.max.kbytes": 2_000_000,
    # So is the size of a message, by the topic's own limit.
    "message.max.bytes": 1_000_000_000,
}


class Sent(Exception):
    """A delivery failed."""

    def __init__(self, error: KafkaError) -> None:
        super().__init__(error.str())
        self.error = error


class Batch:
    """What one caller sent, until the broker has confirmed all of it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, size: int) -> None:
        self.positions = [0] * size
        self.done: asyncio.Future[Sequence[int]] = loop.create_future()
        self._loop = loop
        self._left = size
        self._failed = False

    def delivered(self, index: int, error: KafkaError | None, message: KafkaMessage) -> None:
        """Called on the producer's thread, message by message; the event loop hears of it once."""
        if error is not None:
            if not self._failed:
                self._failed = True
                self._tell(self._fail, Sent(error))
            return
        offset = message.offset()
        assert offset is not None
        self.positions[index] = offset + 1
        self._left -= 1
        if not self._left:
            self._tell(self._succeed)

    def _tell(self, function: object, *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *arguments)  # type: ignore[arg-type]
        except RuntimeError:
            self._failed = True  # the loop was closed: nobody is left to tell

    def _succeed(self) -> None:
        if not self.done.done():
            self.done.set_result(self.positions)

    def _fail(self, error: Sent) -> None:
        if not self.done.done():
            self.done.set_exception(error)


class Outlet:
    """A producer and the thread on which the broker's confirmations are heard.

    largest: bytes of one batch at most, which no topic written to may refuse.
    """

    def __init__(self, settings: Settings, where: str, largest: int) -> None:
        self.largest = largest
        self.broken = False
        self._closing = False
        config = {
            **settings.connection,
            **CONFIG,
            "compression.type": settings.compression,
            "batch.size": min(1_000_000, largest),
            "error_cb": self._complain,
        }
        try:
            self._producer = Producer(config, logger=settings.library_log)
        except (KafkaException, ValueError) as error:
            raise configured(error, where) from error
        self._thread = threading.Thread(target=self._run, name="kafka producer", daemon=True)
        self._thread.start()

    def send(self, batch: Batch, records: Sequence[tuple[str, int, Record]]) -> None:
        """Hand records to the library: topic's name, partition, record. Raises Sent where it takes no more."""
        produce = self._producer.produce
        delivered = batch.delivered
        try:
            for index, (name, number, record) in enumerate(records):
                produce(
                    name,
                    record.value,
                    record.key,
                    number,
                    on_delivery=partial(delivered, index),
                    headers=record.headers,
                )
        except KafkaException as error:
            raise Sent(of_exception(error)) from error
        except BufferError as error:
            raise Sent(KafkaError(KafkaError._QUEUE_FULL)) from error

    def discard(self) -> None:
        """Give up what is under way: what the broker has not taken yet, it will not get from this producer.

        A request that is in the network may still arrive; it is a part of the same prefix.
        """
        self.broken = True
        if not self._closing:
            self._producer.purge(blocking=False)
            self._closing = True

    def close(self) -> None:
        self._closing = True

    def _complain(self, error: KafkaError) -> None:
        if error.fatal():
            self.broken = True

    def _run(self) -> None:
        while not self._closing:
            self._poll(POLL)
        self._poll(0)
        self._producer.flush(1.0)
        # The last reference goes with this thread, so that ending the library's threads keeps nobody waiting.
        del self._producer

    def _poll(self, seconds: float) -> None:
        try:
            self._producer.poll(seconds)
        except KafkaException as error:
            # A fatal one. What is under way fails by its delivery reports, which go on coming by this way.
            self._complain(of_exception(error))
