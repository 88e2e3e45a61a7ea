"""The projection that these tests look at, and the same fold in plain Python."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager

from eventmill import App, Event, Settings, Transaction, on
from eventmill.core.retry import RetryPolicy, fixed

SETTINGS = Settings(lease=3.0, grace=10.0, housekeeping=3600.0)


class Opened(Event, name="ledger.opened", key="account"):
    account: str


class Booked(Event, name="ledger.booked", key="account"):
    account: str
    amount: int


class Reversed(Event, name="ledger.reversed", key="account"):
    account: str
    amount: int


class Visited(Event, name="visit.made", key="guest"):
    guest: str
    account: str


class Noted(Event, name="note.made", key="about"):
    about: str
    number: int


class Ignored(Event, name="ledger.ignored", key="account"):
    account: str


POISON = -13
CREATE_BALANCES = (
    "CREATE TABLE {balances} (account TEXT PRIMARY KEY, amount INTEGER NOT NULL, bookings INTEGER NOT NULL)"
)
BOOK = (
    "INSERT INTO {balances} (account, amount, bookings) VALUES (?, ?, 1) ON CONFLICT (account) DO UPDATE SET"
    " amount = {balances}.amount + excluded.amount, bookings = {balances}.bookings + 1"
)


def bank(
    url: str,
    *,
    broker: str | None = None,
    version: int = 1,
    factor: int = 1,
    publish: bool = False,
    retry: RetryPolicy | None = None,
    batch: int = 500,
    partial: bool = False,
    topics: dict[str, int] | None = None,
) -> App:
    """An App with one projection of two topics: balances, one row an account, and visits, one row each."""
    app = App(url, broker=broker, name="bank", settings=SETTINGS, topics=topics)

    @app.projection(
        "balances", tables=["balances", "visits"], version=version, retry=retry or fixed(0.05, attempts=2), batch=batch,
        partial=partial,
    )  # fmt: skip
    class Balances:
        async def create(self, tx: Transaction) -> None:
            await tx.execute(CREATE_BALANCES)
            await tx.execute("CREATE INDEX {balances}_amount ON {balances} (amount)")
            await tx.execute("CREATE TABLE {visits} (guest TEXT NOT NULL, account TEXT NOT NULL)")

        @on(Booked)
        async def booked(self, event: Booked, tx: Transaction) -> None:
            if event.amount == POISON:
                raise ValueError("an unlucky amount")
            await tx.execute(BOOK, (event.account, factor * event.amount))
            if publish:
                tx.publish(Noted(event.account, event.amount))

        @on(Reversed)
        async def reversed(self, event: Reversed, tx: Transaction) -> None:
            await tx.execute(BOOK, (event.account, -factor * event.amount))

        @on(Visited, batch=True)
        async def visited(self, events: list[Visited], tx: Transaction) -> None:
            await tx.executemany("INSERT INTO {visits} VALUES (?, ?)", [(each.guest, each.account) for each in events])

    return app


def folded(events: Iterable[object], factor: int = 1) -> tuple[list[tuple[str, int, int]], list[tuple[str, str]]]:
    """The rows that the projection should hold after these events."""
    balances: dict[str, tuple[int, int]] = {}
    visits = []
    for event in events:
        if isinstance(event, Booked | Reversed):
            amount, bookings = balances.get(event.account, (0, 0))
            sign = factor if isinstance(event, Booked) else -factor
            balances[event.account] = (amount + sign * event.amount, bookings + 1)
        elif isinstance(event, Visited):
            visits.append((event.guest, event.account))
    return sorted((account, *rest) for account, rest in balances.items()), sorted(visits)


async def rows(app: App) -> tuple[list[tuple[str, int, int]], list[tuple[str, str]]]:
    """What readers see."""
    balances = await app.store.query("SELECT account, amount, bookings FROM balances ORDER BY account")
    visits = await app.store.query("SELECT guest, account FROM visits ORDER BY guest, account")
    return [(name, int(amount), int(count)) for name, amount, count in balances], [(one, two) for one, two in visits]


@asynccontextmanager
async def running(*apps: App) -> AsyncIterator[None]:
    """Let the Apps feed their projections during the block; stop them in good order after it."""
    for app in apps:
        await app.open()
    tasks = [asyncio.create_task(app.run()) for app in apps]
    try:
        yield
    finally:
        for app in apps:
            app.stop()
        await asyncio.gather(*tasks)


async def until(true: Callable[[], Awaitable[bool]], seconds: float = 30.0) -> None:
    for _ in range(int(seconds / 0.02)):
        if await true():
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"still not so after {seconds:g} s")
