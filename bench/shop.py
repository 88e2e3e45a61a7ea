"""The Apps that are measured: one handler each, on one SQLite file."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from bench.order import OrderPlaced
from bench.totals import make
from eventmill import App, Transaction

UPSERT = (
    "INSERT INTO bench_totals (customer, orders, amount) VALUES (?, 1, ?)"
    " ON CONFLICT (customer) DO UPDATE"
    " SET orders = bench_totals.orders + 1, amount = bench_totals.amount + excluded.amount"
)
CREATE = (
    "CREATE TABLE IF NOT EXISTS bench_totals"
    " (customer TEXT PRIMARY KEY, orders BIGINT NOT NULL, amount BIGINT NOT NULL)"
)
BATCH = 100


def shop(file: Path) -> App:
    """An App that only publishes."""
    app = App(f"sqlite:///{file}", name="bench")

    @app.setup
    async def create(tx: Transaction) -> None:
        await tx.execute(CREATE)

    return app


def one_by_one(file: Path) -> App:
    """One upsert a message."""
    app = shop(file)

    @app.on(OrderPlaced, group="totals")
    async def count(event: OrderPlaced, tx: Transaction) -> None:
        await tx.execute(UPSERT, (event.customer, event.total))

    return app


def with_tasks(file: Path) -> App:
    """A task that does nothing, and one that notes how long it took to begin."""
    app = App(f"sqlite:///{file}", name="bench")

    @app.task()
    async def noop() -> None: ...

    @app.task()
    async def timed(sent: float) -> None:
        delays.append(time.monotonic() - sent)

    return app


def in_batches(file: Path) -> App:
    """One `executemany` a batch."""
    app = shop(file)

    @app.on(OrderPlaced, group="totals", batch=BATCH)
    async def count(events: list[OrderPlaced], tx: Transaction) -> None:
        await tx.executemany(UPSERT, [(event.customer, event.total) for event in events])

    return app


delays: list[float] = []
"""What `timed` has noted: seconds from the call to publish until the handler was entered."""


def timed(file: Path) -> App:
    """Notes when each message arrives."""
    app = shop(file)

    @app.on(OrderPlaced, group="clock")
    async def note(event: OrderPlaced) -> None:
        delays.append(time.monotonic() - event.sent)

    return app


def projected(file: Path) -> App:
    """Folds sales into totals."""
    return make(f"sqlite:///{file}", batch=True)


APPS: dict[str, Callable[[Path], App]] = {
    "tasks": with_tasks,
    "one-by-one": one_by_one,
    "in-batches": in_batches,
    "timed": timed,
    "projected": projected,
}
