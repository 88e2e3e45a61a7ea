"""The memory backend, held to the same suites as all others."""

from __future__ import annotations

from pathlib import Path

from eventmill.app import App
from eventmill.backends.memory import MemoryBackend
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


class OnMemory:
    features = Features(durable=False, shared=True, manual_clock=True, one_writer=True)

    def open(self, place: Path, clock: Clock) -> MemoryBackend:
        return MemoryBackend(clock, name=str(place))


class TestPublisher(OnMemory, PublisherConformance[MemoryBackend]): ...


class TestLog(OnMemory, LogConformance): ...


class TestStore(OnMemory, StoreConformance): ...


class TestStreams(OnMemory, StreamConformance): ...


class TestSubscriber(OnMemory, SubscriberConformance):
    def app(self, place: Path, settings: Settings) -> App:
        return App(f"memory://{place}", name="conformance", settings=settings)


class TestTasks(OnMemory, TaskConformance):
    def app(self, place: Path, settings: Settings) -> App:
        return App(f"memory://{place}", name="conformance", settings=settings)
