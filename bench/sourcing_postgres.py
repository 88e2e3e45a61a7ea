"""The event store on PostgreSQL: appends under an expected version, alone and by 32 callers.

Beside the one caller stands bare SQL that does the same: one prepared statement that checks the version and inserts.
EVENTMILL_TEST_POSTGRES says where the server is; what is made there has schemas of its own, which stay.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Awaitable, Callable
from statistics import median

import psycopg

from bench.measurement import Measurement
from bench.postgres import VARIABLE
from bench.rounds import Plan, Stopwatch, Work
from bench.sourcing import LineAdded
from eventmill import App
from eventmill.core.stream import Stream

CALLERS = 32
TABLE = """
CREATE TABLE {0}.events (
    position bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, stream text NOT NULL, version bigint NOT NULL,
    type text NOT NULL, id text NOT NULL, at bigint NOT NULL, attributes text NOT NULL, data bytea NOT NULL,
    UNIQUE (stream, version))
"""
INSERT = """
INSERT INTO {0}.events (stream, version, type, id, at, attributes, data)
SELECT %(stream)s, %(version)s, %(type)s, %(id)s, %(at)s, %(attributes)s, %(data)s
WHERE (SELECT coalesce(max(version), 0) FROM {0}.events WHERE stream = %(stream)s) = %(version)s - 1
"""


def _raw(url: str, count: int) -> Work:
    schema = f"bench_{secrets.token_hex(4)}"
    with psycopg.connect(url, autocommit=True) as connection, connection.cursor(binary=True) as cursor:
        cursor.execute(f"CREATE SCHEMA {schema}")
        cursor.execute(TABLE.format(schema))
        insert = INSERT.format(schema)
        with Stopwatch(count) as watch:
            for number in range(count):
                data = b'{"basket":"b0","product":"product-%d","quantity":%d}' % (number % 50, number)
                row = {
                    "stream": "basket/b0", "version": number + 1, "type": "basket.line-added", "id": f"{number:032x}",
                    "at": 1_700_000_000_000, "attributes": '{"source":"bench"}', "data": data,
                }  # fmt: skip
                cursor.execute(insert, row, prepare=True)
                if cursor.rowcount != 1:
                    raise RuntimeError(f"conflict at {number}")
        return watch.work


async def _ours(url: str, callers: int, each: int) -> Work:
    async def append(app: App, stream: Stream) -> None:
        for number in range(each):
            async with app.transaction() as tx:
                tx.append(stream, LineAdded(stream.key, f"product-{number % 50}", number), expected=number)

    app = App(f"{url}?schema=bench_{secrets.token_hex(4)}", name="bench")
    async with app:
        await append(app, Stream("basket", "first"))
        with Stopwatch(callers * each) as watch:
            await asyncio.gather(*(append(app, Stream("basket", f"b{number}")) for number in range(callers)))
        return watch.work


async def sourcing_postgres(plan: Plan) -> list[Measurement]:
    """One caller beside bare SQL, in turn; then 32 on streams of their own."""
    url = os.environ.get(VARIABLE)
    if not url:
        raise SystemExit(f"{VARIABLE} must say where the server is")
    count, each = plan.some(3_000, 600), plan.some(600, 150)
    alone: list[Work] = []
    raw: list[Work] = []
    many: list[Work] = []
    turns: list[tuple[list[Work], Callable[[], Awaitable[Work]]]] = [
        (raw, lambda: asyncio.to_thread(_raw, url, count)),
        (alone, lambda: _ours(url, 1, count)),
        (many, lambda: _ours(url, CALLERS, each)),
    ]
    for _ in range(plan.rounds):
        for found, turn in turns:
            found.append(await turn())
    rates = [work.rate for work in many]
    return [
        Measurement(
            "postgres: append with expected version, one caller", median(work.rate for work in alone), "messages/s",
            target=0.8, peer=median(work.rate for work in raw), samples=[work.rate for work in alone],
        ),
        Measurement(
            "postgres: append, 32 callers on streams of their own", median(rates), "messages/s", target=10_000,
            samples=rates, details={"processor_us": round(median(work.processor_us for work in many), 1)},
        ),
    ]  # fmt: skip
