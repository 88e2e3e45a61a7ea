"""What is PostgreSQL's own: shared transactions, marks of parameters, the URL, and what a message costs."""

from __future__ import annotations

import asyncio
import random

import psycopg
import pytest

from eventmill import App, Event, Transaction
from eventmill.backends.postgres.address import Address
from eventmill.backends.postgres.backend import PostgresBackend
from eventmill.backends.postgres.placeholders import in_order, translate
from eventmill.backends.url import Url
from eventmill.core.errors import ConfigurationError
from eventmill.core.retry import fixed

MESSAGES = 2_000


class CostShared(Event, name="cost.shared", key="account"):
    account: str
    amount: int


def events(count: int = MESSAGES) -> list[CostShared]:
    return [CostShared(f"account{number % 400}", number) for number in range(count)]


def make(url: str) -> App:
    app = App(url, name="shared")

    @app.setup
    async def create(tx: Transaction) -> None:
        await tx.execute("CREATE TABLE IF NOT EXISTS totals (account text PRIMARY KEY, amount bigint, orders bigint)")
        await tx.execute("INSERT INTO totals VALUES ('all', 0, 0) ON CONFLICT DO NOTHING")

    return app


async def consumed(app: App, count: int) -> None:
    async with asyncio.timeout(60):
        running = asyncio.create_task(app.run())
        while app.handled < count and not running.done():
            await asyncio.sleep(0.01)
        app.stop()
        await running


UPSERT = (
    "INSERT INTO totals VALUES (?, ?, 1) ON CONFLICT (account) DO UPDATE"
    " SET amount = totals.amount + excluded.amount, orders = totals.orders + 1"
)


def test_what_a_handled_message_costs(postgres_url: str) -> None:
    """Statements, writes, commits and WAL are counted: no clock decides."""

    async def main() -> None:
        app = make(postgres_url)

        @app.on(CostShared, concurrency=64)
        async def total(event: CostShared, tx: Transaction) -> None:
            await tx.execute(UPSERT, (event.account, event.amount))

        async with app:
            await app.publish(*events())
            store = app.store
            assert isinstance(store, PostgresBackend)
            async with await psycopg.AsyncConnection.connect(postgres_url, autocommit=True) as watch:

                async def wal() -> int:
                    cursor = await watch.execute("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn")
                    row = await cursor.fetchone()
                    assert row is not None
                    return int(row[0])

                before = await wal()
                await consumed(app, MESSAGES)
                written = await wal() - before
            units = store.server.units
            assert units.pipeline is not None
            assert 0 < units.commits <= 0.1 * MESSAGES
            assert units.pipeline.writes <= 0.2 * MESSAGES
            # One upsert of the handler's, and a fraction of our own.
            assert MESSAGES <= units.pipeline.statements <= 1.4 * MESSAGES
            # Of it, some 150 are the index by which streams are read.
            assert written / MESSAGES < 2_200
            async with app.transaction() as tx:
                rows = await tx.execute("SELECT sum(orders)::bigint, sum(amount)::bigint FROM totals")
            assert rows == [(MESSAGES, sum(range(MESSAGES)))]

    asyncio.run(main())


def test_concurrent_publishers_share_their_commits(postgres_url: str) -> None:
    async def main() -> None:
        async with make(postgres_url) as app:
            left = iter(events())

            async def call() -> None:
                for event in left:
                    await app.publish(event)

            await asyncio.gather(*(call() for _ in range(32)))
            store = app.store
            assert isinstance(store, PostgresBackend)
            publishes = store.server.publishes
            assert publishes.pipeline is not None
            assert publishes.commits <= 0.1 * MESSAGES
            assert publishes.pipeline.statements <= 0.5 * MESSAGES

    asyncio.run(main())


def test_handlers_that_read_and_write_the_same_row_take_turns(postgres_url: str) -> None:
    async def main() -> None:
        app = make(postgres_url)

        @app.on(CostShared, concurrency=64)
        async def total(event: CostShared, tx: Transaction) -> None:
            ((amount,),) = await tx.execute("SELECT amount FROM totals WHERE account = 'all' FOR UPDATE")
            await asyncio.sleep(0)
            await tx.execute("UPDATE totals SET amount = ? WHERE account = 'all'", (amount + event.amount,))

        async with app:
            await app.publish(*events(400))
            await consumed(app, 400)
            async with app.transaction() as tx:
                assert await tx.execute("SELECT amount FROM totals WHERE account = 'all'") == [(sum(range(400)),)]

    asyncio.run(main())


def test_handlers_of_one_document_take_turns(postgres_url: str) -> None:
    async def main() -> None:
        app = make(postgres_url)

        @app.on(CostShared, concurrency=64)
        async def count(event: CostShared, tx: Transaction) -> None:
            for key in random.Random(event.amount).sample(["left", "right"], 2):
                found = await tx.get(key)
                number = int(found.data) if found else 0
                tx.put(key, str(number + 1).encode(), expected=found.version if found else 0)

        async with app:
            await app.publish(*events(300))
            await consumed(app, 300)
            async with app.transaction() as tx:
                for key in ("left", "right"):
                    found = await tx.get(key)
                    assert found is not None
                    assert int(found.data) == 300

    asyncio.run(main())


def test_poison_disturbs_others_little(postgres_url: str) -> None:
    tried: dict[int, int] = {}

    async def main() -> None:
        app = make(postgres_url)

        @app.on(CostShared, concurrency=64, retry=fixed(0.01, attempts=3))
        async def total(event: CostShared, tx: Transaction) -> None:
            tried[event.amount] = tried.get(event.amount, 0) + 1
            await tx.execute(UPSERT, (event.account, event.amount))
            if event.amount % 100 == 50 and tried[event.amount] < 2:
                raise ValueError("not yet")

        async with app:
            await app.publish(*events())
            async with asyncio.timeout(60):
                running = asyncio.create_task(app.run())
                while app.handled < MESSAGES or await app.store.jobs():
                    await asyncio.sleep(0.02)
                app.stop()
                await running
            async with app.transaction() as tx:
                rows = await tx.execute("SELECT sum(orders)::bigint, sum(amount)::bigint FROM totals")
            assert rows == [(MESSAGES, sum(range(MESSAGES)))]
            assert list(await app.store.jobs()) == []

    asyncio.run(main())


def test_many_rows_are_one_reply(postgres_url: str) -> None:
    """In a transaction of the caller's own, and in a handler's: how many rows were changed, or the first error."""
    seen: list[object] = []

    async def main() -> None:
        app = make(postgres_url)

        @app.on(CostShared, concurrency=4, batch=50, retry=fixed(0.01, attempts=2), on_dead="skip")
        async def total(events: list[CostShared], tx: Transaction) -> None:
            rows = [(event.account, event.amount) for event in events]
            seen.append(await tx.executemany(UPSERT, rows) - len(rows))
            seen.append(await tx.executemany("UPDATE totals SET orders = orders WHERE account = ?", []))
            if len(events) > 1 or events[0].amount == 7:
                await tx.executemany("SELECT 1 / (? - 7)", [(event.amount,) for event in events])

        async with app:
            async with app.transaction() as tx:
                assert await tx.executemany(UPSERT, [("own", 1), ("own", 2), ("other", 3)]) == 3
                assert await tx.executemany("UPDATE totals SET amount = 0 WHERE account <> ?", [("x",), ("x",)]) == 6

            async def divide() -> None:
                async with app.transaction() as tx:
                    await tx.execute(UPSERT, ("lost", 1))
                    await tx.executemany("SELECT 1 / ?", [(1,), (0,), (1,)])

            with pytest.raises(psycopg.errors.DivisionByZero):
                await divide()
            await app.publish(*events(100))
            async with asyncio.timeout(60):
                running = asyncio.create_task(app.run())
                while app.handled < 100:
                    await asyncio.sleep(0.01)
                app.stop()
                await running
            assert set(seen) == {0}
            async with app.transaction() as tx:
                found = await tx.execute(
                    "SELECT count(*), sum(orders)::bigint FROM totals WHERE account LIKE 'account%'"
                )
                assert await tx.execute("SELECT 1 FROM totals WHERE account = 'lost'") == []
            (dead,) = await app.store.jobs(state="dead")
            assert "division by zero" in dead.errors[-1].error
            assert found == [(99, 99)]

    asyncio.run(main())


def test_an_error_that_was_caught_ends_the_transaction_all_the_same(postgres_url: str) -> None:
    async def main() -> None:
        async with make(postgres_url) as app:

            async def goes_on() -> None:
                async with app.transaction() as tx:
                    with pytest.raises(psycopg.errors.UndefinedTable):
                        await tx.execute("SELECT * FROM nowhere")

            with pytest.raises(ConfigurationError, match="takes no further ones"):
                await goes_on()
            async with app.transaction() as tx:
                assert await tx.execute("SELECT 1") == [(1,)]

    asyncio.run(main())


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("SELECT ?, '?', \"?\" -- ?\n, ?", "SELECT $1, '?', \"?\" -- ?\n, $2"),
        ("SELECT a ?? 'b', a ??| ?", "SELECT a ? 'b', a ?| $1"),
        ("SELECT $$ ? $$, $x$ :a ? $x$, ?", "SELECT $$ ? $$, $x$ :a ? $x$, $1"),
        (r"SELECT E'it\'s ?', ?", r"SELECT E'it\'s ?', $1"),
        ("SELECT 'it''s ?', /* ? /* ? */ ? */ ?", "SELECT 'it''s ?', /* ? /* ? */ ? */ $1"),
        ("SELECT :a::text, :b, :a, x[1:2]", "SELECT $1::text, $2, $1, x[1:2]"),
    ],
)
def test_marks_of_parameters(given: str, sent: str) -> None:
    assert translate(given).sql.decode() == sent


@pytest.mark.parametrize(
    "sql", ["COMMIT", " -- x\n rollback", "/* a */ BEGIN", "PREPARE TRANSACTION 'x'", "SELECT ?, :a"]
)
def test_statements_that_are_refused(sql: str) -> None:
    with pytest.raises(ConfigurationError):
        translate(sql)


def test_parameters_that_do_not_fit_are_refused() -> None:
    for sql, parameters in (("SELECT ?", ()), ("SELECT ?", (1, 2)), ("SELECT :a", {"b": 1}), ("SELECT ?", {"a": 1})):
        with pytest.raises(ConfigurationError):
            in_order(translate(sql), parameters)


def test_a_url_hides_its_secrets_and_knows_its_options() -> None:
    address = Address.from_url(
        Url.parse("postgresql://me:geheim@one,two:5433/shop?schema=sales&sslmode=require&sslpassword=auchgeheim")
    )
    assert "geheim" not in f"{address} {address!r}"
    assert address.parameters["host"] == "one,two"
    assert address.parameters["port"] == "5432,5433"
    assert address.parameters["target_session_attrs"] == "read-write"
    assert address.parameters["password"] == "geheim"
    for text in ("postgresql://one/shop?scheme=x", "postgresql://one/", "postgresql://one/shop?schema=A-b"):
        with pytest.raises(ConfigurationError):
            Address.from_url(Url.parse(text))
