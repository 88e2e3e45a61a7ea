"""The transactional outbox's second half: from the service's own log to the broker.

The log is the outbox, and the relay is a consumer group of it: its cursor is the mark that a message
was sent. A crash between the broker's confirmation and the cursor's commit sends again, with the
same id; the receiving services' inboxes drop the repeat.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from eventmill.core.capabilities import Publisher
from eventmill.core.clock import Clock
from eventmill.core.crash import point
from eventmill.core.errors import EncodeError, MessageTooLargeError, UnroutableError
from eventmill.core.message import Message
from eventmill.core.outcome import Released
from eventmill.core.registry import Registry
from eventmill.core.retry import RetryPolicy
from eventmill.patterns.recording import is_recorded
from eventmill.runtime.consumer import Consumer
from eventmill.runtime.handler import Handler

log = logging.getLogger("eventmill")

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


WANTED_WITHIN = 30.0
"""Seconds in which somebody must begin to wait for a type that the broker refuses because nobody does: services of one
deployment start one after another. Meanwhile its messages are tried again, and their keys wait."""


class Unwanted:
    """The types that nobody has waited for in time. What is known here is found out anew with each start of the relay."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._since: dict[tuple[str, str], float] = {}
        self._said: set[tuple[str, str]] = set()

    def given_up(self, refused: Sequence[Message]) -> bool:
        """Whether the time is over for all of them."""
        now = self._clock.now()
        over = True
        for kind in {(message.topic, message.type) for message in refused}:
            if now - self._since.setdefault(kind, now) < WANTED_WITHIN:
                over = False
            elif kind not in self._said:
                self._said.add(kind)
                log.warning(
                    "nobody waits for %s of topic %s: such messages are kept as dead letters of the relay, and hold up "
                    "nothing, until somebody does; see `eventmill dead`, or drop them with ?unroutable=drop", kind[1], kind[0],
                )  # fmt: skip
        return over

    def taken(self, messages: Sequence[Message]) -> None:
        """Somebody waits for these."""
        if self._since:
            for kind in {(message.topic, message.type) for message in messages}:
                self._since.pop(kind, None)
                self._said.discard(kind)


def relay(broker: Publisher, registry: Registry, clock: Clock) -> Consumer:
    """The consumer that publishes all of a store's messages to a broker, in order per key."""
    unwanted = Unwanted(clock)

    async def send(messages: list[Message]) -> Released | None:
        try:
            await broker.publish(messages)
        except UnroutableError as error:
            refused = [message for message in messages if message.identity in error.refused]
            if not refused or not unwanted.given_up(refused):
                raise
            unwanted.taken([message for message in messages if message.identity not in error.refused])
            point("relay.published")
            return Released({message.identity: f"nobody waits for {message.type}" for message in refused})
        unwanted.taken(messages)
        point("relay.published")
        return None

    return Consumer(
        group=RELAY,
        types=None,
        where=lambda message: not is_recorded(message),
        topics=frozenset,
        handler=Handler(send, registry, batch=True),
        retry=PATIENCE,
        concurrency=AT_ONCE,
        batch=BATCH,
        prefetch=2 * AT_ONCE * BATCH,
        suspects=False,
        own=True,
    )
