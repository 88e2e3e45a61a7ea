"""RabbitMQ, held to the same suites as all others; a service's store is SQLite here."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from eventmill.app import App
from eventmill.backends.connect import connect
from eventmill.backends.rabbitmq.backend import RabbitBackend
from eventmill.core.clock import Clock
from eventmill.core.message import Message, Partition
from eventmill.settings import Settings
from eventmill.testing.conformance import Features, PublisherConformance, SubscriberConformance
from eventmill.testing.conformance.samples import OTHER, TOPIC, partitions

AUDIT = "audit"
PARTS = [*partitions(16), *partitions(16, OTHER)]


async def drain(backend: RabbitBackend, group: str, parts: Sequence[Partition]) -> Sequence[Message]:
    """All that lies in a group's queues; it stays there."""
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


class OnRabbit:
    @pytest.fixture(autouse=True)
    def server(self, rabbitmq_url: str) -> None:
        self.url = rabbitmq_url


class TestPublisher(OnRabbit, PublisherConformance[RabbitBackend]):
    features = Features(durable=True, shared=True)

    @asynccontextmanager
    async def open(self, place: Path, clock: Clock) -> AsyncIterator[RabbitBackend]:
        async with cast(RabbitBackend, connect(self.url, clock)) as backend:
            await backend.declare(dict.fromkeys((TOPIC, OTHER), 16))
            await backend.admit(AUDIT, None, PARTS)
            yield backend

    async def published(self, backend: Any) -> Sequence[Message]:
        return await drain(backend, AUDIT, PARTS)


class TestSubscriber(OnRabbit, SubscriberConformance):
    features = Features(durable=True, shared=True, replay=False)

    def app(self, place: Path, settings: Settings) -> App:
        return App(f"sqlite:///{place / 'shop.db'}", broker=self.url, name="conformance", settings=settings)
