"""What is projected: sales to totals per customer."""

from __future__ import annotations

from collections.abc import Sequence

from eventmill import App, Event, Transaction, on

CUSTOMERS = 1_000
BATCH = 2_000


class Sold(Event, name="bench.sold", key="customer"):
    customer: str
    order: str
    amount: int


UPSERT = (
    "INSERT INTO {totals} (customer, sold, amount) VALUES (?, ?, ?) ON CONFLICT (customer)"
    " DO UPDATE SET sold = {totals}.sold + excluded.sold, amount = {totals}.amount + excluded.amount"
)


def make(url: str, *, batch: bool) -> App:
    """An App with the projection: its method takes a list, and adds up before it writes, or takes single events."""
    app = App(url, name="bench")

    class Tables:
        async def create(self, tx: Transaction) -> None:
            await tx.execute(
                "CREATE TABLE {totals} (customer TEXT PRIMARY KEY, sold INTEGER NOT NULL, amount INTEGER NOT NULL)"
            )

    class Listed(Tables):
        @on(Sold, batch=True)
        async def sold(self, events: list[Sold], tx: Transaction) -> None:
            sums: dict[str, list[int]] = {}
            for event in events:
                entry = sums.setdefault(event.customer, [0, 0])
                entry[0] += 1
                entry[1] += event.amount
            await tx.executemany(UPSERT, [(customer, *entry) for customer, entry in sums.items()])

    class Single(Tables):
        @on(Sold)
        async def sold(self, event: Sold, tx: Transaction) -> None:
            await tx.execute(UPSERT, (event.customer, 1, event.amount))

    app.projection("totals", tables=["totals"], batch=BATCH)(Listed if batch else Single)
    return app


def sales(count: int) -> list[Sold]:
    """Events of a thousand customers, in no order that would help."""
    return [Sold(f"customer-{n * 7919 % CUSTOMERS:04d}", f"order-{n:08d}", 1 + n % 900) for n in range(count)]


def totals(events: Sequence[Sold]) -> list[tuple[str, int, int]]:
    """What the view must hold."""
    sums: dict[str, tuple[int, int]] = {}
    for event in events:
        sold, amount = sums.get(event.customer, (0, 0))
        sums[event.customer] = (sold + 1, amount + event.amount)
    return sorted((customer, sold, amount) for customer, (sold, amount) in sums.items())
