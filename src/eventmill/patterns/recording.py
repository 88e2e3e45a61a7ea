"""Keeping what other services publish in this service's own log.

A queue keeps nothing, and a broker's log may be trimmed by others. What a service has recorded is its own: its
projections read it there and can be rebuilt from it, whatever the broker is.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from eventmill.core.message import Message
from eventmill.core.registry import Registry
from eventmill.patterns.consumers import consumer
from eventmill.runtime.consumer import Consumer
from eventmill.runtime.transaction import Transaction

BATCH = 256
RECORDED = "recordedby"
"""The extension that a recorded copy has beside the envelope it came with, so that it is not sent on."""


def recorder(service: str, wanted: Sequence[type | str], registry: Registry) -> Consumer:
    """The consumer that appends others' messages to the service's log: same ids, same order per key, once each."""

    async def record(messages: list[Message], tx: Transaction) -> None:
        tx.publish(*(_copy(message, service) for message in messages))

    return consumer(
        record,
        wanted,
        registry=registry,
        group=f"{service}.record",
        where=lambda message: message.source != service,
        concurrency=1,
        batch=BATCH,
    )


def is_recorded(message: Message) -> bool:
    """Whether it is a copy of what another service has published."""
    return message.extensions is not None and RECORDED in message.extensions


def _copy(message: Message, service: str) -> Message:
    return msgspec.structs.replace(message, extensions={**(message.extensions or {}), RECORDED: service})
