"""The shop on real servers: the same services, the same verdict."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import pytest
from test_shop_demo import demo, verdict_of

import rooms

ORDERS = ("--seconds", "2", "--rate", "60", "--json", "--chaos")


@pytest.mark.timeout(180)
def test_on_postgres_alone(tmp_path: Path, postgres_url: str) -> None:
    found = verdict_of(demo(*ORDERS, "--store", postgres_url, folder=tmp_path))
    assert found["kills"] > 0


@pytest.mark.timeout(180)
def test_files_around_kafka(tmp_path: Path, kafka_url: str, kafka_prefix: str) -> None:
    verdict_of(demo(*ORDERS, "--broker", f"{kafka_url}?prefix={kafka_prefix}", folder=tmp_path))


@pytest.mark.timeout(180)
def test_files_around_rabbitmq(tmp_path: Path, rabbitmq_url: str) -> None:
    verdict_of(demo(*ORDERS, "--broker", rabbitmq_url, folder=tmp_path))


@pytest.mark.timeout(180)
def test_postgres_around_rabbitmq(tmp_path: Path, postgres_url: str, rabbitmq_url: str) -> None:
    verdict_of(demo(*ORDERS, "--store", postgres_url, "--broker", rabbitmq_url, folder=tmp_path))


@pytest.mark.timeout(180)
def test_nothing_is_left_in_the_broker(tmp_path: Path, rabbitmq_url: str, rabbitmq_management: str) -> None:
    """The names were made up for this run; those that a user gives are left alone."""
    host = urlsplit(rabbitmq_url).path.lstrip("/")

    def left() -> list[str]:
        things = [*rooms.manage(rabbitmq_management, "GET", f"queues/{host}")]
        things += rooms.manage(rabbitmq_management, "GET", f"exchanges/{host}")
        return [thing["name"] for thing in things if thing["name"] and not thing["name"].startswith("amq.")]

    calm = ("--seconds", "1", "--rate", "20", "--json")
    verdict_of(demo(*calm, "--broker", rabbitmq_url, folder=tmp_path))
    assert left() == []
    verdict_of(demo(*calm, "--broker", f"{rabbitmq_url}?prefix=mine", folder=tmp_path))
    assert left()
