"""The shop on real servers: the same services, the same verdict."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_shop_demo import demo, verdict_of

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
