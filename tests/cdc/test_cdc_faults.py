"""A capturing process that dies at each point, is stopped beyond its lease, or loses its server."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import cdc_mirror
import psycopg
import pytest
from cdc_copies import PATH, Copies, differences, in_order, start
from cdc_legacy import Legacy
from cdc_watching import run, watched

from eventmill.testing.crash import CAPTURE_POINTS, Crash, outlive
from stopping import freeze


def settled(legacy: Legacy, copies: Copies, output: Path, seconds: float = 60) -> None:
    """Wait until the copy is the source."""
    source = legacy.rows()
    deadline = time.monotonic() + seconds
    while found := differences(copies.rows(), source):
        assert time.monotonic() < deadline, (len(found), found[:3], output.read_text()[-3000:])
        time.sleep(0.2)


def told_once(copies: Copies) -> None:
    told = copies.told()
    assert [identity for identity, count in Counter(identity for identity, *_ in told).items() if count > 1] == []
    in_order(told)


LARGE = [
    # One transaction that takes several commits here, with a change of shape in it.
    "INSERT INTO customers (id, name) SELECT i, 'large' FROM generate_series(10000, 13000) i",
    "ALTER TABLE customers ADD COLUMN later integer",
    "UPDATE customers SET later = id WHERE id % 7 = 0",
    "DELETE FROM customers WHERE id % 11 = 0",
]


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    "where",
    [Crash(point, nth) for point in CAPTURE_POINTS for nth in (1, 3) if (point, nth) != ("cdc.prepared", 3)],
    ids=str,
)
def test_nothing_is_missed_nor_told_twice_wherever_it_is_killed(
    postgres_url: str, tmp_path: Path, where: Crash
) -> None:
    legacy = Legacy(postgres_url, 1)
    legacy.create(rows=700)
    store = f"sqlite:///{tmp_path}/mirror.db"
    if where.point != "cdc.prepared":
        asyncio.run(cdc_mirror.init(store, postgres_url))
    with psycopg.connect(postgres_url) as connection:
        for statement in LARGE:
            connection.execute(statement)  # type: ignore[arg-type]
    run(postgres_url, "INSERT INTO customers (id, name) VALUES (-1, 'the last')")
    report = outlive(
        [sys.executable, cdc_mirror.__file__, store, postgres_url, "--until-done"],
        where,
        tmp_path,
        times=2,
        environment={"PYTHONPATH": PATH},
    )
    assert report.kills >= 1
    copies = Copies(tmp_path / "mirror.db")
    assert differences(copies.rows(), legacy.rows()) == []
    told_once(copies)
    schemas = copies.query("SELECT count(*) FROM eventmill_log WHERE type = 'mirror.customers.schema'")
    assert schemas == [(0 if where.point == "cdc.prepared" else 1,)]


@pytest.mark.timeout(180)
def test_a_process_that_was_stopped_beyond_its_lease_can_commit_nothing(postgres_url: str, tmp_path: Path) -> None:
    legacy = Legacy(postgres_url, 3)
    legacy.create(rows=200)
    store = f"sqlite:///{tmp_path}/mirror.db"
    asyncio.run(cdc_mirror.init(store, postgres_url))
    output = tmp_path / "output.txt"
    first = start(store, postgres_url, output)
    second = None
    try:
        copies = Copies(tmp_path / "mirror.db")
        deadline = time.monotonic() + 30
        while copies.query("SELECT count(*) FROM copies")[0][0] < 200:
            assert time.monotonic() < deadline, output.read_text()
            time.sleep(0.1)
        with legacy.busy(writers=1):
            second = start(store, postgres_url, output)
            time.sleep(1.0)
            freeze(first, tmp_path / "mirror.db")
            time.sleep(4.0)
            first.send_signal(signal.SIGCONT)
            time.sleep(2.0)
        run(postgres_url, "INSERT INTO customers (id, name) VALUES (-1, 'the last')")
        settled(legacy, copies, output)
        told_once(copies)
        for process in (first, second):
            process.terminate()
        assert [first.wait(30), second.wait(30)] == [0, 0]
    finally:
        for process in filter(None, (first, second)):
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
                process.wait()


@pytest.mark.timeout(180)
@pytest.mark.parametrize("kill", [False, True], ids=["restart", "kill -9"])
def test_a_source_that_restarts(postgres_url: str, tmp_path: Path, restart: Callable[..., None], kill: bool) -> None:
    async def main() -> None:
        run(postgres_url, "CREATE TABLE things (id integer PRIMARY KEY)",
            "INSERT INTO things SELECT generate_series(1, 20000)")  # fmt: skip
        store = f"sqlite:///{tmp_path}/w.db"
        async with watched(store, postgres_url, ["things"], copied=False) as found:
            await found.count(1)
            await asyncio.to_thread(restart, "postgres", kill=kill)
            run(postgres_url, "INSERT INTO things SELECT generate_series(20001, 20100)")
            await found.until(lambda seen: len({message.key for message in seen}) == 20_100, 60)
            assert len({message.id for message in found.seen}) == len(found.seen)

    asyncio.run(main())


@pytest.mark.timeout(120)
def test_a_source_that_lost_the_log(postgres_url: str, tmp_path: Path) -> None:
    """max_slot_wal_keep_size: the server gives the slot up; the capture must not go on as if nothing had happened."""
    from eventmill import ConfigurationError

    async def main() -> None:
        store = f"sqlite:///{tmp_path}/w.db"
        run(postgres_url, "CREATE TABLE things (id integer PRIMARY KEY, data text)")
        async with watched(store, postgres_url, ["things"]) as found:
            run(postgres_url, "INSERT INTO things VALUES (1, '')")
            await found.count(1)
        try:
            run(postgres_url, "ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'", "SELECT pg_reload_conf()")
            for _ in range(6):
                run(
                    postgres_url,
                    "INSERT INTO things SELECT id + 1, repeat('x', 1000) FROM (SELECT max(id) AS id FROM things) t",
                    "SELECT pg_switch_wal()",
                    "CHECKPOINT",
                )
            with pytest.raises(ConfigurationError, match=r"is lost: .*max_slot_wal_keep_size.*--anew"):
                async with watched(store, postgres_url, ["things"], init=False, copied=False) as found:
                    await found.count(99)
        finally:
            run(postgres_url, "ALTER SYSTEM RESET max_slot_wal_keep_size", "SELECT pg_reload_conf()")

    asyncio.run(main())
