"""Apache Kafka, held to the same suites as all others: as a broker beside a store, and as a log."""

from __future__ import annotations

import zlib
from pathlib import Path

import pytest

from eventmill.app import App
from eventmill.backends.kafka.backend import KafkaBackend
from eventmill.backends.url import Url
from eventmill.core.clock import Clock
from eventmill.settings import Settings
from eventmill.testing.conformance import Features, LogConformance, PublisherConformance, SubscriberConformance


class OnKafka:
    features = Features(durable=True, shared=True, sequences=False)
    prefix: str
    server: str

    @pytest.fixture(autouse=True)
    def broker(self, kafka_server: str, kafka_prefix: str) -> None:
        self.server, self.prefix = kafka_server, kafka_prefix

    def url_of(self, place: Path) -> str:
        """The case's own topics on the broker that all share."""
        return f"{self.server}?prefix={self.prefix}{zlib.crc32(str(place).encode()):08x}."

    def open(self, place: Path, clock: Clock) -> KafkaBackend:
        return KafkaBackend.from_url(Url.parse(self.url_of(place)), clock)


class TestPublisher(OnKafka, PublisherConformance[KafkaBackend]): ...


class TestLog(OnKafka, LogConformance): ...


class TestSubscriber(OnKafka, SubscriberConformance):
    def app(self, place: Path, settings: Settings) -> App:
        return App(f"sqlite:///{place / 'shop.db'}", broker=self.url_of(place), name="conformance", settings=settings)
