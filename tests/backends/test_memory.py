"""The memory backend, held to the same suites as all others."""

from __future__ import annotations

from pathlib import Path

from eventmill.backends.memory import MemoryBackend
from eventmill.core.clock import Clock
from eventmill.testing.conformance import (
    Features,
    LogConformance,
    PublisherConformance,
    StoreConformance,
)

FEATURES = Features(durable=False, shared=True, manual_clock=True)


class OnMemory:
    features = FEATURES

    def open(self, place: Path, clock: Clock) -> MemoryBackend:
        return MemoryBackend(clock, name=str(place))


class TestPublisher(OnMemory, PublisherConformance[MemoryBackend]): ...


class TestLog(OnMemory, LogConformance): ...


class TestStore(OnMemory, StoreConformance): ...
