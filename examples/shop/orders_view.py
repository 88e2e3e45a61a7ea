"""The read database: two projections of what all services have published, recorded in a log of its own.

`customer-orders` is what a customer's pages would show: invoices joined with what the old customer administration knows of
their customers, with the ledgers beneath. `product-sales` is what a buyer would look at. Events of orders and captured
changes of customers reach them in no common order, so every step adds up, and the joined columns are taken from whatever
is there. Whenever their code changes they are built anew beside what readers see:
`eventmill projections rebuild shop.orders_view:app customer-orders`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from eventmill import Transaction, on
from eventmill.cdc import Change, Copied, Copies

from .events import (
    CustomerRegistered,
    GoodsReturned,
    Line,
    LinesRejected,
    OrderCancelled,
    OrderDispatched,
    OrderPlaced,
    OrderShipped,
    PaymentCaptured,
    PaymentRefunded,
)
from .wiring import CRM, LEGACY_TABLES, NUMBER, service

app = service("orders-view")
app.record("order.*", "payment.*", "shipping.*", "customer.*", f"{CRM}.*")
crm = app.captured(CRM, tables=list(LEGACY_TABLES.values()))

CONTACT, ACCOUNT, ADDRESS = LEGACY_TABLES.values()
copies = Copies(
    "crm",
    {
        CONTACT: Copied({"customer": "VARCHAR(40)", "name": "TEXT"}, key=("customer",)),
        ACCOUNT: Copied({"customer": "VARCHAR(40)", "terms": "TEXT"}, key=("customer",)),
        ADDRESS: Copied({"customer": "VARCHAR(40)", "city": "TEXT"}, key=("customer",)),
    },
)
JOINED = {
    column: f"(SELECT {column} FROM {{{copies.name(table)}}} WHERE customer = ?)"  # noqa: S608 - names from above
    for table, column in ((CONTACT, "name"), (ACCOUNT, "terms"), (ADDRESS, "city"))
}
"""Columns of an invoice that are its customer's, and where they come from."""


@app.projection(
    "customer-orders",
    tables=["entries", "invoices", "progress", "shipped", "accounts", "rejected", *copies.tables],
)
class CustomerOrders:
    """Per invoice and customer: what was ordered, returned, paid, refunded, and who that is; and how far each order is."""

    async def create(self, tx: Transaction) -> None:
        await copies.create(tx)
        await tx.execute(
            "CREATE TABLE {entries} ("
            + NUMBER
            + """,
                invoice TEXT NOT NULL,
                chunk BIGINT NOT NULL,
                kind TEXT NOT NULL,
                line BIGINT NOT NULL,
                customer TEXT NOT NULL,
                product TEXT NOT NULL,
                quantity BIGINT NOT NULL,
                amount BIGINT NOT NULL
            )
            """
        )
        await tx.execute(
            """
            CREATE TABLE {invoices} (
                invoice TEXT NOT NULL,
                customer TEXT NOT NULL,
                lines BIGINT NOT NULL DEFAULT 0,
                ordered BIGINT NOT NULL DEFAULT 0,
                returned BIGINT NOT NULL DEFAULT 0,
                paid BIGINT NOT NULL DEFAULT 0,
                refunded BIGINT NOT NULL DEFAULT 0,
                name TEXT,
                terms TEXT,
                city TEXT,
                PRIMARY KEY (invoice, customer)
            )
            """
        )
        await tx.execute("CREATE INDEX {invoices}_of ON {invoices} (customer)")
        await tx.execute("CREATE TABLE {shipped} (" + NUMBER + ", invoice TEXT NOT NULL, chunk BIGINT)")
        await tx.execute(
            "CREATE TABLE {progress} (invoice TEXT PRIMARY KEY, dispatched BIGINT NOT NULL, cancelled BIGINT NOT NULL,"
            " remaining BIGINT NOT NULL)"
        )
        await tx.execute("CREATE TABLE {accounts} (" + NUMBER + ", customer TEXT NOT NULL, city TEXT)")
        await tx.execute(
            "CREATE TABLE {rejected} ("
            + NUMBER
            + ", line BIGINT NOT NULL, reason TEXT NOT NULL, malformed INTEGER NOT NULL)"
        )

    @on(OrderPlaced, batch=True)
    async def ordered(self, events: list[OrderPlaced], tx: Transaction) -> None:
        await self.enter(tx, "ordered", [(event.order_id, event.chunk, event.lines) for event in events], 1)

    @on(GoodsReturned, batch=True)
    async def returned(self, events: list[GoodsReturned], tx: Transaction) -> None:
        await self.enter(tx, "returned", [(event.return_id, event.chunk, event.lines) for event in events], -1)

    @on(PaymentCaptured, PaymentRefunded)
    async def settled(self, event: PaymentCaptured | PaymentRefunded, tx: Transaction) -> None:
        if isinstance(event, PaymentCaptured):
            invoice, column = event.order_id, "paid"
        else:
            invoice, column = event.return_id, "refunded"
        await self.add(tx, column, [(invoice, share.customer, share.amount, 0) for share in event.shares])

    @on(OrderShipped)
    async def sent(self, event: OrderShipped, tx: Transaction) -> None:
        await tx.execute("INSERT INTO {shipped} (invoice, chunk) VALUES (?, ?)", (event.order_id, event.chunk))

    @on(OrderDispatched, OrderCancelled)
    async def ended(self, event: OrderDispatched | OrderCancelled, tx: Transaction) -> None:
        dispatched = int(isinstance(event, OrderDispatched))
        await tx.execute(
            "INSERT INTO {progress} (invoice, dispatched, cancelled, remaining) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (invoice) DO UPDATE SET dispatched = {progress}.dispatched + excluded.dispatched,"
            " cancelled = {progress}.cancelled + excluded.cancelled, remaining = excluded.remaining",
            (event.order_id, dispatched, 1 - dispatched, event.remaining),
        )

    @on(CustomerRegistered)
    async def registered(self, event: CustomerRegistered, tx: Transaction) -> None:
        await tx.execute("INSERT INTO {accounts} (customer, city) VALUES (?, ?)", (event.customer, event.city))

    @on(*crm.classes.values(), batch=True)
    async def changed(self, changes: list[Change], tx: Transaction) -> None:
        """The customers' own columns of their invoices, whenever somebody has changed them in the administration."""
        touched = await copies.apply(changes, tx)
        customers = sorted({customer for keys in touched.rows.values() for (customer,) in keys})
        await tx.executemany(
            "UPDATE {invoices} SET "  # noqa: S608 - names from above
            + ", ".join(f"{column} = {query}" for column, query in JOINED.items()) + " WHERE customer = ?",
            [(customer,) * (len(JOINED) + 1) for customer in customers],
        )  # fmt: skip

    @on(LinesRejected)
    async def turned_away(self, event: LinesRejected, tx: Transaction) -> None:
        await tx.executemany(
            "INSERT INTO {rejected} (line, reason, malformed) VALUES (?, ?, ?)",
            [(line.number, line.reason, int(line.malformed)) for line in event.lines],
        )

    async def enter(
        self, tx: Transaction, kind: str, parts: Sequence[tuple[str, int, Iterable[Line]]], sign: int
    ) -> None:
        lines = [(invoice, chunk, line) for invoice, chunk, some in parts for line in some]
        await tx.executemany(
            "INSERT INTO {entries} (invoice, chunk, kind, line, customer, product, quantity, amount)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (invoice, chunk, kind, line.number, line.customer, line.product, line.quantity, sign * line.amount)
                for invoice, chunk, line in lines
            ],
        )
        await self.add(tx, kind, [(invoice, line.customer, sign * line.amount, 1) for invoice, _, line in lines])

    async def add(self, tx: Transaction, column: str, rows: Iterable[tuple[str, str, int, int]]) -> None:
        """Add (invoice, customer, amount, lines) to a column of the invoices; in order, so that nobody's locks cross.

        Those who change the copies wait, and are waited for: a new invoice takes what they have written, or they find it.
        """
        await copies.hold(tx)
        await tx.executemany(
            "INSERT INTO {invoices} (invoice, customer, " + column + ", lines, " + ", ".join(JOINED) + ")"  # noqa: S608
            " VALUES (?, ?, ?, ?, " + ", ".join(JOINED.values()) + ")"
            " ON CONFLICT (invoice, customer) DO UPDATE SET"
            " " + column + " = {invoices}." + column + " + excluded." + column + ","
            " lines = {invoices}.lines + excluded.lines",
            [(*row, *[row[1]] * len(JOINED)) for row in sorted(rows)],
        )


@app.projection("product-sales", tables=["product_sales"])
class ProductSales:
    """Per product: pieces sold and returned, and what they brought."""

    async def create(self, tx: Transaction) -> None:
        await tx.execute(
            """
            CREATE TABLE {product_sales} (
                product TEXT PRIMARY KEY,
                sold BIGINT NOT NULL DEFAULT 0,
                returned BIGINT NOT NULL DEFAULT 0,
                revenue BIGINT NOT NULL DEFAULT 0
            )
            """
        )

    @on(OrderPlaced, batch=True)
    async def ordered(self, events: list[OrderPlaced], tx: Transaction) -> None:
        await self.add(tx, [(line.product, line.quantity, 0, line.amount) for event in events for line in event.lines])

    @on(GoodsReturned, batch=True)
    async def returned(self, events: list[GoodsReturned], tx: Transaction) -> None:
        await self.add(tx, [(line.product, 0, -line.quantity, line.amount) for event in events for line in event.lines])

    async def add(self, tx: Transaction, rows: Sequence[tuple[str, int, int, int]]) -> None:
        """Rows of (product, sold, returned, revenue), each product once."""
        sums: dict[str, tuple[int, int, int]] = {}
        for product, sold, back, revenue in rows:
            known = sums.get(product, (0, 0, 0))
            sums[product] = (known[0] + sold, known[1] + back, known[2] + revenue)
        await tx.executemany(
            "INSERT INTO {product_sales} (product, sold, returned, revenue) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (product) DO UPDATE SET sold = {product_sales}.sold + excluded.sold,"
            " returned = {product_sales}.returned + excluded.returned,"
            " revenue = {product_sales}.revenue + excluded.revenue",
            sorted((product, *counts) for product, counts in sums.items()),
        )
