"""PostgreSQL, held to the same suites as all others, on a real server."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest

from eventmill.app import App
from eventmill.backends.postgres.backend import PostgresBackend
from eventmill.backends.url import Url
from eventmill.core.clock import Clock
from eventmill.settings import Settings
from eventmill.testing.conformance import (
    Features,
    LogConformance,
    PublisherConformance,
    StoreConformance,
    StreamConformance,
    SubscriberConformance,
    TaskConformance,
)


class OnPostgres:
    features = Features(durable=True, shared=True, manual_clock=True)
    server = ""

    @pytest.fixture(autouse=True)
    def _server(self, postgres_url: str) -> None:
        type(self).server = postgres_url

    def url(self, place: Path) -> str:
        """A schema of the case's own."""
        name = sha256(str(place).encode()).hexdigest()[:16]
        return f"{self.server}?schema=c_{name}"

    def open(self, place: Path, clock: Clock) -> PostgresBackend:
        return PostgresBackend.from_url(Url.parse(self.url(place)), clock)


class TestPublisher(OnPostgres, PublisherConformance[PostgresBackend]): ...


class TestLog(OnPostgres, LogConformance): ...


class TestStore(OnPostgres, StoreConformance): ...


class TestStreams(OnPostgres, StreamConformance): ...


EFFECTS = "CREATE TABLE IF NOT EXISTS effects (place BIGSERIAL PRIMARY KEY, reader TEXT, key TEXT, number INTEGER)"


class TestSubscriber(OnPostgres, SubscriberConformance):
    effects_table = EFFECTS

    def app(self, place: Path, settings: Settings) -> App:
        return App(self.url(place), name="conformance", settings=settings)


class TestTasks(OnPostgres, TaskConformance):
    effects_table = EFFECTS

    def app(self, place: Path, settings: Settings) -> App:
        return App(self.url(place), name="conformance", settings=settings)
