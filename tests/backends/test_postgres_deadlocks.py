"""Two transactions that wait for each other: the one that PostgreSQL ends is done again."""

from __future__ import annotations

import asyncio

import psycopg
import pytest
from psycopg.errors import DeadlockDetected

from eventmill.backends.postgres.deadlocks import ATTEMPTS, tried_again


def test_who_is_ended_for_the_other_tries_again(postgres_url: str) -> None:
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE pots (n integer PRIMARY KEY, coins integer)")
        connection.execute("INSERT INTO pots VALUES (1, 0), (2, 0)")
    met = asyncio.Barrier(2)
    calls = 0

    @tried_again
    async def put(first: int, second: int) -> None:
        nonlocal calls
        calls += 1
        async with await psycopg.AsyncConnection.connect(postgres_url) as connection:
            await connection.execute("UPDATE pots SET coins = coins + 1 WHERE n = %s", (first,))
            if calls <= 2:
                await met.wait()
            await connection.execute("UPDATE pots SET coins = coins + 1 WHERE n = %s", (second,))

    async def both() -> None:
        await asyncio.gather(put(1, 2), put(2, 1))

    asyncio.run(both())
    with psycopg.connect(postgres_url) as connection:
        assert connection.execute("SELECT coins FROM pots ORDER BY n").fetchall() == [(2,), (2,)]
    assert calls == 3


def test_not_for_ever() -> None:
    calls = 0

    @tried_again
    async def fail() -> None:
        nonlocal calls
        calls += 1
        raise DeadlockDetected("again")

    with pytest.raises(DeadlockDetected):
        asyncio.run(fail())
    assert calls == ATTEMPTS
