"""Publishing: what may be sent, to which partition, and what to make of the broker's answer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from confluent_kafka import KafkaError

from eventmill.backends.kafka.cluster import Cluster
from eventmill.backends.kafka.debezium import to_records
from eventmill.backends.kafka.failures import log, translated
from eventmill.backends.kafka.outlet import Batch, Outlet, Sent
from eventmill.backends.kafka.record import Record, to_record
from eventmill.backends.kafka.settings import Settings
from eventmill.core.errors import BackendError, BackendUnavailableError, EncodeError, MessageTooLargeError
from eventmill.core.message import Message
from eventmill.core.partition import DEFAULT_PARTITIONS, partition_of

AT_ONCE = 10_000
"""Messages of one call that are under way at a time."""


class Publishing:
    """The one producer of a backend, made anew whenever something went wrong with it."""

    def __init__(self, settings: Settings, cluster: Cluster, where: str) -> None:
        self._settings = settings
        self._cluster = cluster
        self._where = where
        self._outlet: Outlet | None = None
        self._known: dict[str, int] = {}

    async def publish(self, messages: Sequence[Message]) -> Sequence[int]:
        """Send in order, and return their positions once all are confirmed by all replicas in sync."""
        if not messages:
            return ()
        topics = {message.topic for message in messages}
        await self._learn(topics)
        limits = await self._cluster.limits(topics)
        records = [record for message in messages for record in self._records(message, limits[message.topic])]
        smallest = min(limits.values())
        positions: list[int] = []
        for first in range(0, len(records), AT_ONCE):
            positions += await self._send(records[first : first + AT_ONCE], smallest)
        # A tombstone follows the delete it belongs to, and is no message of its own.
        return [
            position for position, (_, _, record) in zip(positions, records, strict=True) if record.value is not None
        ]

    async def _learn(self, topics: set[str]) -> None:
        """How many partitions they have. A topic nobody declared is made with the default."""
        for topic in topics - self._known.keys():
            refused = self._cluster.refusal(topic)
            if refused is not None:
                raise EncodeError(refused)
            count = await self._cluster.count(topic)
            if count is None:
                await self._cluster.declare({topic: DEFAULT_PARTITIONS})
                count = DEFAULT_PARTITIONS
            self._known[topic] = count

    def _records(self, message: Message, limit: int) -> Sequence[tuple[str, int, Record]]:
        if not isinstance(message.data, bytes):
            raise EncodeError(f"{message.type}: data must be bytes, not {type(message.data).__name__}")
        records = to_records(message) if self._settings.changes(message.topic) else [to_record(message)]
        if (size := max(record.size for record in records)) > limit:
            raise MessageTooLargeError(
                f"{message.type} {message.id} takes {size:,} bytes as a record; the limit of topic "
                f"{message.topic!r} is {limit:,} (max.message.bytes): publish a reference to the data, or raise the limit"
            )
        number = partition_of(message.key, message.id, self._known[message.topic])
        return [(self._settings.name(message.topic), number, record) for record in records]

    async def _send(self, records: Sequence[tuple[str, int, Record]], largest: int) -> Sequence[int]:
        outlet = self._usable(largest)
        batch = Batch(asyncio.get_running_loop(), len(records))
        try:
            outlet.send(batch, records)
            async with asyncio.timeout(self._settings.publish_timeout):
                return await batch.done
        except TimeoutError:
            self._replace(outlet)
            raise BackendUnavailableError(
                f"{self._where} did not confirm {len(records)} messages within {self._settings.publish_timeout:g} s; "
                "some may be stored: publish them again with the same ids"
            ) from None
        except Sent as sent:
            self._replace(outlet)
            raise self._met(sent.error) from sent

    def _usable(self, largest: int) -> Outlet:
        outlet = self._outlet
        if outlet is None or outlet.broken or outlet.largest > largest:
            if outlet is not None:
                outlet.close()
            largest = largest if outlet is None else min(largest, outlet.largest)
            outlet = self._outlet = Outlet(self._settings, self._where, largest)
        return outlet

    def _replace(self, outlet: Outlet) -> None:
        """Nothing that was handed to this producer may still pass what failed."""
        if not outlet.broken:
            log.info("%s: a new producer takes over from one that failed", self._where)
        outlet.discard()

    def _met(self, error: KafkaError) -> BackendError | MessageTooLargeError:
        code = error.code()
        if code == KafkaError.MSG_SIZE_TOO_LARGE:
            self._cluster.forget_limits()
            return MessageTooLargeError(
                f"{self._where}: a message is over the broker's limit (max.message.bytes), which has changed: "
                f"{error.str()}; publish a reference to the data, or raise the limit"
            )
        if code in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_PARTITION, KafkaError._UNKNOWN_TOPIC):
            self._known.clear()
        return translated(error, f"{self._where}: publishing")

    async def close(self) -> None:
        """What was confirmed is stored; nothing else is waited for."""
        if self._outlet is not None:
            self._outlet.close()
