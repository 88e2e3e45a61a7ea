"""Exchanges, queues and bindings: declared by whoever needs them, and again after every reconnect."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from pamqp import commands
from pamqp.base import Frame

from eventmill.backends.rabbitmq.address import Address
from eventmill.backends.rabbitmq.closing import ClosedError
from eventmill.backends.rabbitmq.connection import Connection
from eventmill.backends.rabbitmq.link import Link
from eventmill.backends.rabbitmq.names import Names
from eventmill.backends.rabbitmq.register import Register
from eventmill.core.errors import BackendUnavailableError, ConfigurationError
from eventmill.core.message import Partition
from eventmill.core.reading import Types

log = logging.getLogger("eventmill")

PATIENCE = 10.0
AGAIN = 10.0
"""Seconds after which what was declared is declared once more: somebody may have deleted it."""


class Topology:
    """Declaring is idempotent, and what was declared is remembered, so that asking again costs nothing.

    Bindings are only added: an older version of the service may run beside this one and still want
    what this one does not. What nobody wants any more is read and dropped.
    """

    def __init__(self, address: Address, link: Link, register: Register, names: Names) -> None:
        self._address = address
        self._link = link
        self._register = register
        self._names = names
        self._exchanges: set[str] = set()
        self._admitted: dict[tuple[str, Types | None, frozenset[Partition]], float] = {}
        self._groups: dict[str, asyncio.Lock] = {}
        self._warned: set[str] = set()

    async def declare(self, topics: Mapping[str, int]) -> None:
        """Topics with their counts; an exchange each."""
        await self._register.declare(topics)
        fresh = [topic for topic in topics if topic not in self._exchanges]
        if fresh:
            await self._ask([self._exchange(topic) for topic in fresh])
            self._exchanges.update(fresh)

    def _exchange(self, topic: str) -> Frame:
        return commands.Exchange.Declare(0, self._names.exchange(topic), "topic", durable=True)

    async def admit(self, group: str, types: Types | None, partitions: Collection[Partition]) -> None:
        """A queue for each of the partitions, bound for the types. Known ones are looked after now and then."""
        if not partitions:
            return
        now = asyncio.get_running_loop().time()
        key = (group, types, frozenset(partitions))
        if now < self._admitted.get(key, 0.0):
            return
        async with self._groups.setdefault(group, asyncio.Lock()):
            if now < self._admitted.get(key, 0.0):
                return
            try:
                connection = await self._link.connection(0 if key in self._admitted else PATIENCE)
            except BackendUnavailableError:
                if key in self._admitted:
                    return  # retries need no broker: what was declared once is looked after when it is back
                raise
            topics = sorted({partition.topic for partition in partitions})
            questions = [self._exchange(topic) for topic in topics]
            for partition in sorted(partitions):
                questions += self._queue(connection, group, types, partition)
            await self._ask(questions)
            self._exchanges.update(topics)
            for other in [other for other in self._admitted if other[0] == group and other[2] == key[2]]:
                del self._admitted[other]
            self._admitted[key] = now + AGAIN

    def _queue(self, connection: Connection, group: str, types: Types | None, partition: Partition) -> list[Frame]:
        queue = self._names.queue(group, partition)
        arguments: dict[str, Any] = {"x-queue-type": "quorum", "x-single-active-consumer": True}
        if queue not in self._warned and int(connection.version.partition(".")[0] or 0) >= 4:
            # Its default would drop a message that was delivered twenty times, without a trace.
            arguments["x-delivery-limit"] = -1
        exchange = self._names.exchange(partition.topic)
        return [
            commands.Queue.Declare(0, queue, durable=True, arguments=arguments),
            *(commands.Queue.Bind(0, queue, exchange, key) for key in self._names.bindings(types, partition.number)),
        ]

    async def _ask(self, questions: Sequence[Frame]) -> None:
        """All at once, in order; ConfigurationError for what is there already and is another thing."""
        while True:
            try:
                async with self._link.channel(PATIENCE) as channel:
                    answers = [channel.ask(question) for question in questions]
                    async with asyncio.timeout(PATIENCE + 0.2 * len(questions)):
                        for answer in answers:
                            await answer
                return
            except TimeoutError:
                raise ClosedError(f"the server did not declare {len(questions)} things in time") from None
            except ClosedError as error:
                if error.code == 403:
                    raise ConfigurationError(
                        f"{self._address.url}: the user may not declare exchanges or queues named "
                        f"{self._address.prefix}.*: {error}"
                    ) from error
                if error.code != 406:
                    raise
                again = self._without_limit(str(error), questions)
                if again is None:
                    raise ConfigurationError(
                        f"{self._address.url}: there is something else of this name already; delete it, "
                        f"or choose another prefix: {error}"
                    ) from error
                questions = again

    def _without_limit(self, text: str, questions: Sequence[Frame]) -> Sequence[Frame] | None:
        """The same for queues that were made before the server was upgraded to 4.x."""
        if "x-delivery-limit" not in text:
            return None
        made_before = [
            question
            for question in questions
            if isinstance(question, commands.Queue.Declare)
            and f"'{question.queue}'" in text
            and "x-delivery-limit" in (question.arguments or {})
        ]
        if not made_before:
            return None
        for question in made_before:
            assert question.arguments is not None
            del question.arguments["x-delivery-limit"]
            self._warned.add(str(question.queue))
        log.warning(
            "%s: queues of RabbitMQ 3 keep version 4's limit of 20 deliveries, after which messages are dropped; "
            "set a policy for quorum queues with delivery-limit -1: %s", self._address.url, text,
        )  # fmt: skip
        return questions

    def forget(self, group: str | None = None) -> None:
        """Something declared is not there any more: declare all of it again (of one group, or whatever it is)."""
        self._exchanges.clear()
        for key in self._admitted:
            if group in (None, key[0]):
                self._admitted[key] = 0.0

    async def waiting(self, group: str, partitions: Collection[Partition]) -> int:
        """How many messages lie in these queues; one that is not there holds none."""
        left = [self._names.queue(group, partition) for partition in sorted(partitions)]
        count = 0
        while left:
            async with self._link.channel(PATIENCE) as channel:
                answers = [channel.ask(commands.Queue.Declare(0, queue, passive=True)) for queue in left]
                for answer in answers:
                    try:
                        async with asyncio.timeout(PATIENCE):
                            found = await answer
                    except TimeoutError:
                        raise ClosedError(f"{left[0]}: no answer within {PATIENCE:g} s") from None
                    except ClosedError as error:
                        if error.code != 404:
                            raise
                        left = left[1:]
                        break  # a missing one closes the channel
                    count += found.message_count
                    left = left[1:]
        return count

    async def dismiss(self, group: str) -> None:
        """Delete the group's queues, of all topics, with what is in them."""
        self.forget(group)
        parts = [Partition(topic, number) for topic, many in self._register.topics.items() for number in range(many)]
        await self._ask([commands.Queue.Delete(0, self._names.queue(group, partition)) for partition in parts])

    async def remove(self) -> None:
        """Delete the exchanges of all topics."""
        await self._ask([commands.Exchange.Delete(0, self._names.exchange(topic)) for topic in self._register.topics])
        self._exchanges.clear()
        self._admitted.clear()
