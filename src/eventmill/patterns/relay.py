"""The transactional outbox's second half: from the service's own log to the broker.

The log is the outbox, and the relay is a consumer group of it: its cursor is the mark that a message
was sent. A crash between the broker's confirmation and the cursor's commit sends again, with the
same id; the receiving services' inboxes drop the repeat.
"""

from __future__ import annotations

from eventmill.core.capabilities import Publisher
from eventmill.core.crash import point
from eventmill.core.errors import EncodeError, MessageTooLargeError
from eventmill.core.message import Message
from eventmill.core.registry import Registry
from eventmill.core.retry import RetryPolicy
from eventmill.runtime.consumer import Consumer
from eventmill.runtime.handler import Handler

RELAY = "relay"
"""The group's name in every store."""

BATCH = 256

AT_ONCE = 4
"""Batches on their way at a time: while the broker confirms one, the next is read and the one before it is marked.
A key is in one of them only, so that its order does not hang on which of them arrives first."""

PATIENCE = RetryPolicy(
    attempts=20, delays=(0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0), never=(MessageTooLargeError, EncodeError)
)
"""What the broker can never take (a message over its limit) is dead at once; its key waits behind it."""


def relay(broker: Publisher, registry: Registry) -> Consumer:
    """The consumer that publishes all of a store's messages to a broker, in order per key."""

    async def send(messages: list[Message]) -> None:
        await broker.publish(messages)
        point("relay.published")

    return Consumer(
        group=RELAY,
        types=None,
        topics=frozenset,
        handler=Handler(send, registry, batch=True),
        retry=PATIENCE,
        concurrency=AT_ONCE,
        batch=BATCH,
        prefetch=2 * AT_ONCE * BATCH,
        suspects=False,
    )
