"""Apache Kafka, held to the same suites as all others: as a broker beside a store, and as a log."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

from eventmill.app import App
from eventmill.backends.kafka.backend import KafkaBackend
from eventmill.backends.url import Url
from eventmill.core.clock import Clock
from eventmill.settings import Settings
from eventmill.testing.conformance import Features, LogConformance, PublisherConformance, SubscriberConformance


def url_of(place: Path) -> str:
    """The test's own topics on the broker that all share."""
    return f"{os.environ['EVENTMILL_TEST_KAFKA']}?prefix=t{zlib.crc32(str(place).encode()):08x}."


class OnKafka:
    features = Features(durable=True, shared=True, sequences=False)

    def open(self, place: Path, clock: Clock) -> KafkaBackend:
        return KafkaBackend.from_url(Url.parse(url_of(place)), clock)


class TestPublisher(OnKafka, PublisherConformance[KafkaBackend]): ...


class TestLog(OnKafka, LogConformance): ...


class TestSubscriber(OnKafka, SubscriberConformance):
    def app(self, place: Path, settings: Settings) -> App:
        return App(f"sqlite:///{place / 'shop.db'}", broker=url_of(place), name="conformance", settings=settings)
