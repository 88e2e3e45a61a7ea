"""On PostgreSQL a swap needs a lock that readers hold: it must not stand in the way of those who come later."""

from __future__ import annotations

import asyncio
import time

import psycopg
from ledgers import Booked, bank, folded, rows, running


def test_a_reader_that_stays_delays_the_swap_and_nobody_else(postgres_url: str) -> None:
    async def run() -> None:
        async with bank(postgres_url) as app, running(app):
            view = app.view("balances")
            await view.at_least(await app.publish(Booked("ada", 1)))
            assert await view.rebuild(show=False) == 2
            async with await psycopg.AsyncConnection.connect(postgres_url) as reader:
                await reader.execute("SELECT * FROM balances")  # its transaction stays open
                swapping = asyncio.create_task(view.swap())
                waits = []
                for number in range(30):
                    await view.at_least(await app.publish(Booked("bob", number)))
                    began = time.perf_counter()
                    found = await app.store.query("SELECT count(*) FROM balances")
                    waits.append(time.perf_counter() - began)
                    assert found == [(2,)]
                    await asyncio.sleep(0.03)
                assert not swapping.done()
                assert max(waits) < 5, "a reader waited for as long as another one stayed"
                assert (await view.state()).live == 1
                await reader.rollback()
            assert await swapping == 2
            assert await rows(app) == folded([Booked("ada", 1), *(Booked("bob", number) for number in range(30))])

    asyncio.run(run())


def test_a_reader_sees_one_generation_in_one_statement(postgres_url: str) -> None:
    """Statements that began before the swap end with the old view, whole."""

    async def run() -> None:
        async with bank(postgres_url) as app, running(app):
            view = app.view("balances")
            await view.at_least(await app.publish(*(Booked(f"a{number}", 1) for number in range(50))))
            over = asyncio.Event()
            sums: set[tuple[int, int]] = set()

            async def read() -> None:
                async with await psycopg.AsyncConnection.connect(postgres_url, autocommit=True) as reader:
                    while not over.is_set():
                        found = await reader.execute(
                            "SELECT (SELECT sum(amount) FROM balances), (SELECT count(*) FROM balances)"
                        )
                        sums.add(await found.fetchone())  # type: ignore[arg-type]

            reading = [asyncio.create_task(read()) for _ in range(3)]
            await view.rebuild()
            for _ in range(4):
                await view.swap(back=True)
                await asyncio.sleep(0.3)  # the workers have to feed it, or it cannot be swapped to
            over.set()
            await asyncio.gather(*reading)
            assert {(int(total), count) for total, count in sums} == {(50, 50)}

    asyncio.run(run())
