"""RabbitMQ as a whole: Publisher and Subscriber."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from types import TracebackType
from typing import Self

from eventmill.backends.rabbitmq import content
from eventmill.backends.rabbitmq.address import Address
from eventmill.backends.rabbitmq.feed import QueueFeed
from eventmill.backends.rabbitmq.link import Link
from eventmill.backends.rabbitmq.names import Names
from eventmill.backends.rabbitmq.publishing import Publishing
from eventmill.backends.rabbitmq.register import Register
from eventmill.backends.rabbitmq.topology import Topology
from eventmill.backends.url import Url
from eventmill.core.capabilities import Capability
from eventmill.core.clock import Clock
from eventmill.core.errors import ConfigurationError, EncodeError
from eventmill.core.message import Message, Partition
from eventmill.core.partition import DEFAULT_PARTITIONS, partition_of
from eventmill.core.reading import Pending, Types


class RabbitBackend:
    """An exchange for each topic, a queue for each group and partition.

    Two connections: a server short of memory or disk stops reading from those that publish, and
    acknowledgements must get through all the same.
    """

    offers = frozenset({Capability.PUBLISHER, Capability.SUBSCRIBER})

    def __init__(self, address: Address, clock: Clock, *, readonly: bool = False, rng: random.Random | None = None):
        self._address = address
        self._clock = clock
        self._readonly = readonly
        rng = rng or random.Random()  # noqa: S311 - jitter, not secrecy
        self._names = Names(address.prefix)
        self._outgoing = Link(address, "eventmill publishing", rng)
        self._register = Register(self._names.register, self._outgoing, readonly=readonly)
        self._link = Link(address, "eventmill reading", rng, self._register.follow)
        self._topology = Topology(address, self._link, self._register, self._names)
        self._publishing = Publishing(self._outgoing, restore=self._restore)

    @classmethod
    def from_url(cls, url: Url, clock: Clock, *, readonly: bool = False) -> Self:
        """`amqp://user:password@host/vhost`, or `amqps://` for TLS; see `Address` for the options."""
        return cls(Address.of(url), clock, readonly=readonly)

    def __repr__(self) -> str:
        return f"RabbitBackend({str(self._address.url)!r})"

    async def __aenter__(self) -> Self:
        await self._link.open()
        try:
            await self._outgoing.open()
        except BaseException:
            await self._link.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._publishing.close()
        await self._outgoing.close()
        await self._link.close()

    async def remove(self) -> None:
        """Delete the exchanges under the URL's prefix, for good: after a trial. Groups are dismissed before, one by one.

        The backend can only be closed after that.
        """
        await self._topology.remove()
        await self._link.close()
        await self._register.remove()

    # Publisher

    async def publish(self, messages: Sequence[Message]) -> Sequence[int]:
        """Safe on a majority of the replicas of every queue that waits for them, when this returns.

        Raises UnroutableError for messages that no queue waits for (see the option `unroutable`), and
        MessageTooLargeError for what the server does not take. A call that fails may have been stored in part.
        """
        if not messages:
            return ()
        if self._readonly:
            raise ConfigurationError(f"{self!r} was opened for reading only")
        topics = self._register.topics
        unknown = {message.topic for message in messages} - topics.keys()
        if unknown:
            await self._topology.declare(dict.fromkeys(sorted(unknown), DEFAULT_PARTITIONS))
        max_frame = await self._publishing.max_frame()
        refuse, exchange = self._address.refuse, self._names.exchange
        parcels = []
        for message in messages:
            try:
                number = partition_of(message.key, message.id, topics[message.topic])
            except UnicodeEncodeError as error:
                raise EncodeError(
                    f"{message.type} {message.id!r}: its key cannot be written as UTF-8: {error}"
                ) from error
            parcels.append(content.parcel(message, exchange(message.topic), number, max_frame, mandatory=refuse))
        await self._publishing.publish(parcels)
        return ()

    async def _restore(self) -> None:
        self._topology.forget()
        await self._topology.declare(self._register.topics)

    # Subscriber

    async def declare(self, topics: Mapping[str, int]) -> None:
        if self._readonly:
            raise ConfigurationError(f"{self!r} was opened for reading only")
        await self._topology.declare(topics)

    async def topics(self) -> Mapping[str, int]:
        """Every topic that any process has declared under this prefix."""
        return dict(self._register.topics)

    async def admit(self, group: str, types: Types | None, partitions: Collection[Partition]) -> None:
        await self._topology.admit(group, types, partitions)

    def subscribe(self, group: str, types: Types | None) -> QueueFeed:
        return QueueFeed(
            group,
            types,
            link=self._link,
            topology=self._topology,
            names=self._names,
            prefetch=self._address.prefetch,
            clock=self._clock,
        )

    async def backlog(self, group: str, after: Mapping[Partition, int], types: Types | None) -> Pending:
        """What lies in the group's queues, without what its members have in hand. How old it is, no queue says."""
        return Pending(await self._topology.waiting(group, after), None)

    async def redelivery(self, topics: Collection[str]) -> Mapping[str, float]:
        return {}

    async def dismiss(self, group: str) -> None:
        await self._topology.dismiss(group)
