"""SQLite, held to the same suites as all others."""

from __future__ import annotations

from pathlib import Path

from eventmill.app import App
from eventmill.backends.sqlite.backend import SqliteBackend
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


class OnSqlite:
    features = Features(durable=True, shared=True, manual_clock=True, one_writer=True)

    def open(self, place: Path, clock: Clock) -> SqliteBackend:
        return SqliteBackend(str(place / "shop.db"), clock)


class TestPublisher(OnSqlite, PublisherConformance[SqliteBackend]): ...


class TestLog(OnSqlite, LogConformance): ...


class TestStore(OnSqlite, StoreConformance): ...


class TestStreams(OnSqlite, StreamConformance): ...


class TestSubscriber(OnSqlite, SubscriberConformance):
    def app(self, place: Path, settings: Settings) -> App:
        return App(f"sqlite:///{place / 'shop.db'}", name="conformance", settings=settings)


class TestTasks(OnSqlite, TaskConformance):
    def app(self, place: Path, settings: Settings) -> App:
        return App(f"sqlite:///{place / 'shop.db'}", name="conformance", settings=settings)
