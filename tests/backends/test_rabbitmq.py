"""RabbitMQ, held to the same suites as all others; a service's store is SQLite here."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

import pytest

from eventmill.app import App
from eventmill.backends.connect import connect
from eventmill.backends.rabbitmq.backend import RabbitBackend
from eventmill.core.clock import Clock
from eventmill.core.message import Message
from eventmill.settings import Settings
from eventmill.testing.conformance import Features, PublisherConformance, SubscriberConformance
from eventmill.testing.conformance.samples import OTHER, TOPIC, partitions

AUDIT = "audit"
COUNT = 16


def broker_url(place: Path, **options: object) -> str:
    """The server's, with a prefix that no other test has."""
    prefix = sha256(str(place).encode()).hexdigest()[:16]
    further = "".join(f"&{name}={value}" for name, value in options.items())
    return f"{os.environ['EVENTMILL_TEST_RABBITMQ']}?prefix={prefix}{further}"


async def drain(backend: RabbitBackend, group: str, *topics: str) -> Sequence[Message]:
    """All that lies in a group's queues; it stays there."""
    parts = [part for topic in topics for part in partitions(COUNT, topic)]
    after = dict.fromkeys(parts, 0)
    waiting = (await backend.backlog(group, after, None)).messages
    found: list[Message] = []
    feed = backend.subscribe(group, None)
    try:
        seen = -1
        while len(found) < waiting:
            page = await feed.read(after, limit=1000)
            after.update(page.after)
            found += [recorded.message for recorded in page.messages]
            seen = await feed.changed(seen, 1.0)
    finally:
        await feed.close()
    return found


@pytest.mark.usefixtures("rabbitmq_url")
class TestPublisher(PublisherConformance[RabbitBackend]):
    features = Features(durable=True, shared=True)

    @asynccontextmanager
    async def open(self, place: Path, clock: Clock) -> AsyncIterator[RabbitBackend]:  # type: ignore[override]
        async with cast(RabbitBackend, connect(broker_url(place), clock)) as backend:
            await backend.declare(dict.fromkeys((TOPIC, OTHER), COUNT))
            await backend.admit(AUDIT, None, [*partitions(COUNT), *partitions(COUNT, OTHER)])
            yield backend

    async def published(self, backend: Any) -> Sequence[Message]:
        return await drain(backend, AUDIT, TOPIC, OTHER)


@pytest.mark.usefixtures("rabbitmq_url")
class TestSubscriber(SubscriberConformance):
    features = Features(durable=True, shared=True, replay=False)

    def app(self, place: Path, settings: Settings) -> App:
        store = f"sqlite:///{place / 'shop.db'}"
        return App(store, broker=broker_url(place), name="conformance", settings=settings)
