"""Which topics there are, with their partition counts: the same for every process."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

import msgspec
from pamqp import commands, header
from pamqp.body import ContentBody
from pamqp.frame import marshal

from eventmill.backends.rabbitmq.channel import Channel, Delivered
from eventmill.backends.rabbitmq.closing import ClosedError
from eventmill.backends.rabbitmq.connection import Connection
from eventmill.backends.rabbitmq.link import Link
from eventmill.core.errors import BackendUnavailableError, ConfigurationError

log = logging.getLogger("eventmill")

PATIENCE = 10.0
WINDOW = 256


class Entry(msgspec.Struct, frozen=True):
    """One topic, declared for the first time or again; the first entry holds."""

    topic: str
    partitions: int


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Entry).decode


class Register:
    """A stream that everybody reads from its beginning, and adds to.

    RabbitMQ keeps no properties of an exchange that a client could read back, and lists nothing without
    its management plugin. A stream is read without being used up, and has one order for all.
    """

    def __init__(self, queue: str, outgoing: Link, *, readonly: bool) -> None:
        self.topics: dict[str, int] = {}
        self._queue = queue
        self._outgoing = outgoing
        self._readonly = readonly
        self._channel: Channel | None = None
        self._read = 0
        self._waiting: dict[str, asyncio.Event] = {}
        self._progress = asyncio.Event()

    async def follow(self, connection: Connection) -> None:
        """Read it all over a new connection, and go on reading; returns when it was read up to its present end."""
        channel = await connection.channel()
        try:
            declared = await channel.call(
                commands.Queue.Declare(
                    0, self._queue, passive=self._readonly, durable=True, arguments={"x-queue-type": "stream"}
                )
            )
        except ClosedError as error:
            if self._readonly and error.code == 404:
                return  # nobody has declared anything
            if error.code == 406:
                raise ConfigurationError(
                    f"queue {self._queue!r} is there, but no stream; choose another prefix: {error}"
                ) from error
            raise
        self._read = 0
        channel.on_delivery = self._arrived
        channel.on_closed = lambda error: connection.abort(ClosedError(f"the register of topics: {error}"))
        self._channel = channel
        await channel.call(commands.Basic.Qos(0, WINDOW, False))
        await channel.call(commands.Basic.Consume(0, self._queue, "", arguments={"x-stream-offset": "first"}))
        try:
            async with asyncio.timeout(PATIENCE):
                while self._read < declared.message_count:
                    self._progress.clear()
                    await self._progress.wait()
        except TimeoutError:
            raise ClosedError(
                f"{self._queue}: {self._read} of {declared.message_count} entries within {PATIENCE:g} s"
            ) from None

    def _arrived(self, delivered: Delivered) -> None:
        assert self._channel is not None
        self._channel.send(commands.Basic.Ack(delivered.tag))
        self._read += 1
        self._progress.set()
        try:
            entry = _decode(delivered.body)
        except msgspec.MsgspecError as error:
            log.warning("%s: an entry that is none, from somebody else: %s", self._queue, error)
            return
        self.topics.setdefault(entry.topic, entry.partitions)
        waiting = self._waiting.pop(entry.topic, None)
        if waiting is not None:
            waiting.set()

    async def declare(self, topics: Mapping[str, int]) -> None:
        """Enter what is not there yet. Raises ConfigurationError for a count that is not the one entered."""
        for topic, partitions in topics.items():
            if topic not in self.topics:
                await self._enter(Entry(topic, partitions))
            if self.topics[topic] != partitions:
                raise ConfigurationError(
                    f"topic {topic!r} has {self.topics[topic]} partitions, not {partitions}: every service must say "
                    "the same; to change it, drain the topic and delete its exchange, queues and this prefix's register"
                )

    async def _enter(self, entry: Entry) -> None:
        # Over the other connection: a server that is short of something stops reading from those that publish.
        seen = self._waiting.setdefault(entry.topic, asyncio.Event())
        body = _encode(entry)
        async with self._outgoing.channel(PATIENCE) as channel:
            number = channel.number
            channel.write(
                marshal(commands.Basic.Publish(0, "", self._queue), number)
                + marshal(header.ContentHeader(0, len(body), commands.Basic.Properties(delivery_mode=2)), number)
                + marshal(ContentBody(body), number)
            )
            try:
                async with asyncio.timeout(PATIENCE):
                    await seen.wait()
            except TimeoutError:
                raise BackendUnavailableError(
                    f"topic {entry.topic!r} was not declared within {PATIENCE:g} s: the broker does not answer"
                ) from None

    async def remove(self) -> None:
        """Delete it. Nobody may be following it any more: it would be made again."""
        async with self._outgoing.channel(PATIENCE) as channel:
            await channel.call(commands.Queue.Delete(0, self._queue))
