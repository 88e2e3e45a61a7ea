"""The shop on real servers: the same services, the same verdict."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from test_shop_demo import DEMO, demo, environment, verdict_of

import rooms

ORDERS = ("--seconds", "2", "--rate", "60", "--json", "--chaos")


def left_behind(url: str) -> list[tuple[object, ...]]:
    """Slots, publications and schemas in a database."""
    with psycopg.connect(url) as connection:
        return connection.execute(
            "SELECT slot_name::text FROM pg_replication_slots WHERE database = current_database()"
            " UNION ALL SELECT pubname::text FROM pg_publication"
            " UNION ALL SELECT nspname::text FROM pg_namespace WHERE nspname LIKE 'shop%'"
        ).fetchall()


@pytest.mark.timeout(180)
def test_on_postgres_alone(tmp_path: Path, postgres_url: str) -> None:
    found = verdict_of(demo(*ORDERS, "--store", postgres_url, folder=tmp_path))
    assert found["kills"] > 0
    assert left_behind(postgres_url) == []


SLOTS = "SELECT count(*) FROM pg_replication_slots s WHERE database = current_database()"
CAPTURING = "EXISTS (SELECT FROM pg_stat_replication r WHERE r.pid = s.active_pid)"


@pytest.mark.parametrize("moment", ["true", CAPTURING], ids=["setting-up", "capturing"])
@pytest.mark.timeout(180)
def test_an_interrupted_demo_leaves_no_slot_on_the_server(moment: str, tmp_path: Path, postgres_url: str) -> None:
    process = subprocess.Popen(
        (*DEMO, "--seconds", "60", "--rate", "20", "--store", postgres_url),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(TMPDIR=str(tmp_path)),
    )  # fmt: skip
    try:
        with psycopg.connect(postgres_url, autocommit=True) as connection:
            deadline = time.monotonic() + 60
            while connection.execute(f"{SLOTS} AND {moment}").fetchone() != (1,):
                assert time.monotonic() < deadline
                assert process.poll() is None
                time.sleep(0.001)
            process.terminate()
            assert "the workers are stopped" in process.communicate(timeout=60)[1]
            assert process.returncode == 143
            assert connection.execute(SLOTS).fetchone() == (0,)
    finally:
        process.kill()
        process.wait()


@pytest.mark.timeout(180)
def test_a_user_who_may_not_replicate_is_told_the_remedy(tmp_path: Path, postgres_url: str) -> None:
    room = urlsplit(postgres_url)
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        role = f"plain_{room.path.lstrip('/')}"
        connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'plain'")  # type: ignore[call-overload]
        connection.execute(f"GRANT ALL ON DATABASE {room.path.lstrip('/')} TO {role}")  # type: ignore[call-overload]
        plain = room._replace(netloc=f"{role}:plain@{room.hostname}:{room.port}").geturl()
        try:
            run = demo("--seconds", "1", "--store", plain, folder=tmp_path)
        finally:
            connection.execute(f"DROP OWNED BY {role}")  # type: ignore[call-overload]
            connection.execute(f"DROP ROLE {role}")  # type: ignore[call-overload]
    assert run.returncode == 78
    assert "run: ALTER ROLE" in run.stderr
    assert "Traceback" not in run.stderr


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
