"""Change data capture from PostgreSQL: decoding, capture to view, commit to view, the snapshot, and what the source feels.

EVENTMILL_TEST_POSTGRES says where the source is: wal_level = logical, and a user who may create databases. The service's own
store is a SQLite file. The load on the source comes from this machine, too, so that "slowed" holds the processor that
capturing takes where both share one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import psycopg
from psycopg import sql

from bench.measurement import Measurement
from bench.rounds import Plan
from eventmill import App, Transaction
from eventmill.backends.connect import connect_source
from eventmill.cdc import Change
from eventmill.core.changes import RowChange
from eventmill.core.clock import SystemClock
from eventmill.patterns.cdc.setup import initialise

VARIABLE = "EVENTMILL_TEST_POSTGRES"
TABLE = "CREATE TABLE items (id bigint PRIMARY KEY, name text, price numeric, at timestamptz, stock integer)"
FILL = "INSERT INTO items SELECT i, 'item ' || i, i * 1.25, now(), i %% 100 FROM generate_series(%s::int, %s::int) i"
UPSERT = (
    "INSERT INTO items VALUES (?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET name = excluded.name,"
    " price = excluded.price, at = excluded.at, stock = excluded.stock"
)


@contextlib.contextmanager
def database() -> Iterator[str]:
    """A database of its own, which is dropped afterwards."""
    server = os.environ.get(VARIABLE)
    if not server:
        raise SystemExit(f"{VARIABLE} is not set: name the server to measure on")
    name = f"bench_{secrets.token_hex(4)}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            yield urlsplit(server)._replace(path=f"/{name}").geturl()
        finally:
            connection.execute(
                "SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots WHERE database = %s", (name,)
            )
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def run(url: str, statement: str, *parameters: object) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement, parameters)  # type: ignore[arg-type]


def service(store: str, source: str) -> App:
    """Captures and keeps a view of the rows."""
    app = App(store, name="bench")
    capture = app.capture(source, tables=["items"], name="bench", order="table")

    @app.setup
    async def create(tx: Transaction) -> None:
        await tx.execute(
            "CREATE TABLE IF NOT EXISTS items (id INTEGER PRIMARY KEY, name TEXT, price TEXT, at TEXT, stock INTEGER)"
        )

    @app.on(capture["items"], group="items", batch=500)
    async def apply(changes: list[Change], tx: Transaction) -> None:
        rows = [change.after for change in changes if change.after is not None]
        await tx.executemany(UPSERT, [tuple(row.values()) for row in rows])

    return app


async def decode(plan: Plan) -> Measurement:
    """Rows of one slot by the replication protocol into entries, as fast as they come."""
    rows = 50_000 if plan.quick else 300_000
    with database() as url:
        run(url, TABLE)
        source = connect_source(url, SystemClock())
        (shape,) = await source.inspect(["items"])
        position = await source.prepare("decode", [shape], anew=False)
        run(url, FILL, 1, rows)
        samples = []
        for _ in range(3):
            found, processor, began = 0, 0.0, time.perf_counter()
            async with source.stream("decode", position, {"items": shape}, ()) as stream:
                while found < rows:
                    used = time.process_time()
                    entries = await stream.read(2_000, 5)
                    processor += time.process_time() - used
                    found += sum(type(entry) is RowChange for entry in entries)
            samples.append(rows / (time.perf_counter() - began))
        await source.close()
    details = {"processor_us": round(processor / rows * 1e6, 2), "of_processor": round(rows / processor)}
    return Measurement(
        "cdc: decode pgoutput", statistics.median(samples), "rows/s", target=50_000, samples=samples, details=details
    )


async def counted(app: App) -> int:
    async with app.transaction() as tx:
        ((found,),) = await tx.execute("SELECT count(*) FROM items")
    return int(found)


async def applied(app: App, rows: int) -> None:
    while await counted(app) < rows:
        await asyncio.sleep(0.02)


async def to_view(plan: Plan) -> list[Measurement]:
    """Rows of the stream in the view; then the time from a commit to its row."""
    rows = 20_000 if plan.quick else 100_000
    found = []
    with database() as url, plan.place() as place:
        run(url, TABLE)
        app = service(f"sqlite:///{place}/store.db", url)
        async with app:
            (capture,) = app.captures
            await initialise(app.store, capture, app.clock, app.ids, snapshot=False)
            run(url, FILL, 1, rows)
            began = time.perf_counter()
            running = asyncio.create_task(app.run())
            await applied(app, rows)
            seconds = time.perf_counter() - began
            found.append(Measurement("cdc: capture to view", rows / seconds, "rows/s", target=10_000))
            times = await latencies(app, url, rows, 50 if plan.quick else 300)
            p50, p99 = statistics.median(times) * 1e3, sorted(times)[int(len(times) * 0.99)] * 1e3
            found.append(
                Measurement(
                    "cdc: commit to view, p50", p50, "ms", target=20, bound="most", details={"p99": round(p99, 1)}
                )
            )
            app.stop()
            await running
    return found


async def latencies(app: App, url: str, rows: int, count: int) -> list[float]:
    """Seconds from when a commit on the source has returned to when the row can be read in the view."""
    times = []
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        for number in range(rows + 1, rows + 1 + count):
            await connection.execute("INSERT INTO items VALUES (%s, 'x', 1, now(), 1)", (number,))
            began = time.perf_counter()
            while True:
                async with app.transaction() as tx:
                    if list(await tx.execute("SELECT 1 FROM items WHERE id = ?", (number,))):
                        break
                await asyncio.sleep(0.001)
            times.append(time.perf_counter() - began)
            await asyncio.sleep(0.005)
    return times


async def into_log(plan: Plan, *, streamed: bool) -> Measurement:
    """Rows of an existing table, or of one transaction, into the log, without a handler; and the memory it took at most."""
    rows = 50_000 if plan.quick else 1_000_000
    with database() as url, plan.place() as place:
        run(url, TABLE)
        if not streamed:
            run(url, FILL, 1, rows)
            run(url, "ANALYZE items")
        code = (
            "import asyncio, resource, sys, time\n"
            "from bench.cdc import FILL, run, service\n"
            "from eventmill.patterns.cdc.setup import initialise\n"
            "async def main():\n"
            "    app = service(sys.argv[1], sys.argv[2])\n"
            "    async with app:\n"
            "        (capture,) = app.captures\n"
            f"        await initialise(app.store, capture, app.clock, app.ids, snapshot={not streamed})\n"
            f"        if {streamed}: run(sys.argv[2], FILL, 1, {rows})\n"
            "        running = asyncio.create_task(app.run(handle=False))\n"
            "        began = time.perf_counter()\n"
            "        early = 0\n"
            "        while True:\n"
            "            await asyncio.sleep(0.05)\n"
            "            session = app.captures.running[0].session if app.captures.running else None\n"
            "            if session and not early and session.told > 20000:\n"
            "                early = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
            f"            if session and session.told >= {rows}: break\n"
            "        seconds = time.perf_counter() - began\n"
            "        print(seconds, early, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
            "        app.stop(); await running\n"
            "asyncio.run(main())\n"
        )
        done = await asyncio.to_thread(
            subprocess.run, [sys.executable, "-c", code, f"sqlite:///{place}/store.db", url], capture_output=True, text=True,
            check=True,
        )  # fmt: skip
    seconds, early, peak = map(float, done.stdout.split())
    details = {"rows": rows, "MB_at_20k_rows": round(early / 1024), "MB_at_the_end": round(peak / 1024)}
    name = "cdc: one transaction" if streamed else "cdc: snapshot"
    return Measurement(name, rows / seconds, "rows/s", details=details)


async def slowed(plan: Plan) -> list[Measurement]:
    """Small transactions on the source, with a service that captures them and without, in turn.

    Of writers that pause, as an application does, it is the time of a transaction; of writers that do not, the rate on a machine
    whose processors they share with the service. And what the server itself spends for it: a process decodes its log.
    """
    seconds, rounds = (1.5, 2) if plan.quick else (3.0, 7)
    with database() as url, plan.place() as place:
        run(url, TABLE)
        run(url, FILL, 1, 10_000)
        store = f"sqlite:///{place}/store.db"
        app = service(store, url)
        async with app:
            (capture,) = app.captures
            await initialise(app.store, capture, app.clock, app.ids, snapshot=False)
            await capture.source.close()
        code = (
            "import sys\nfrom bench.cdc import service\nimport asyncio\nfrom eventmill.runtime.service import Service\n"
            "asyncio.run(Service([service(sys.argv[1], sys.argv[2])]).run())"
        )
        paused, pressed, spent = [], [], []
        for _ in range(rounds):
            without = [await asyncio.to_thread(load, url, seconds, pause) for pause in (PAUSE, 0.0)]
            process = subprocess.Popen([sys.executable, "-c", code, store, url])
            try:
                await asyncio.sleep(2.5)
                with_it = [await asyncio.to_thread(load, url, seconds, pause) for pause in (PAUSE, 0.0)]
            finally:
                process.terminate()
                process.wait(30)
            paused.append(without[0].median / with_it[0].median)
            pressed.append(with_it[1].rate / without[1].rate)
            spent.append(with_it[1])
    details: dict[str, float | int | str] = {"ms": round(without[0].median * 1e3, 2)}
    if all(each.sender for each in spent):
        details["backend_us"] = round(statistics.median(each.backend for each in spent) * 1e6)
        details["sender_us"] = round(statistics.median(each.sender for each in spent) * 1e6)
    return [
        Measurement(
            "cdc: source with a capture", statistics.median(paused), "of its speed", target=0.9, samples=paused,
            details=details,
        ),
        Measurement(
            "cdc: saturated source", statistics.median(pressed), "of its rate", samples=pressed,
            details={"transactions": round(spent[-1].rate)},
        ),
    ]  # fmt: skip


PAUSE = 0.005
"""Seconds between an application's transactions."""


class Load(NamedTuple):
    """rate: transactions a second. median: seconds of one. backend, sender: processor seconds of the server's for one, of the
    process that makes it and of the one that reads the slot (0 where there is none, or the server is elsewhere)."""

    rate: float
    median: float
    backend: float
    sender: float


def load(url: str, seconds: float, pause: float, writers: int = 2) -> Load:
    end = time.perf_counter() + seconds
    times: list[float] = []
    backend: list[float] = []

    def write(index: int) -> None:
        own = []
        with psycopg.connect(url, autocommit=True) as connection:
            number = index
            while (began := time.perf_counter()) < end:
                number = (number + 7) % 10_000 + 1
                connection.execute("UPDATE items SET stock = stock + 1 WHERE id = %s", (number,))
                own.append(time.perf_counter() - began)
                time.sleep(pause)
            backend.append(processor(connection.info.backend_pid))
        times.extend(own)

    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(
            "SELECT coalesce(max(active_pid), 0) FROM pg_replication_slots WHERE database = current_database()"
        ).fetchone()
        sender = row[0] if row else 0
    before = processor(sender)
    threads = [threading.Thread(target=write, args=(index,)) for index in range(writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    count = len(times)
    return Load(count / seconds, statistics.median(times), sum(backend) / count, (processor(sender) - before) / count)


def processor(pid: int) -> float:
    """Processor seconds of a process of this machine until now; 0 of one that is not here."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def cdc(plan: Plan) -> list[Measurement]:
    rows = [await into_log(plan, streamed=False), await into_log(plan, streamed=True)]
    return [await decode(plan), *await to_view(plan), *rows, *await slowed(plan)]
