"""A service with one joined view of captured tables: orders with their customer's data, and how many lines they have."""

from __future__ import annotations

import asyncio
import logging
import sys

from eventmill import App, Settings, Transaction, on
from eventmill.cdc import Change, Copied, Copies, Touched
from eventmill.core.clock import Ids
from eventmill.patterns.cdc.setup import initialise
from eventmill.runtime.service import Service

SELECT = """
SELECT o.id AS order_id, o.customer_id, o.total, c.name AS customer, c.balance, count(l.number) AS lines,
       coalesce(sum(l.quantity), 0) AS quantity
FROM {orders} o LEFT JOIN {customers} c ON c.id = o.customer_id LEFT JOIN {lines} l ON l.order_id = o.id
"""
GROUP = " GROUP BY o.id, o.customer_id, o.total, c.name, c.balance"


def view(store: str, source: str) -> App:
    app = App(store, name="views", settings=Settings(lease=2.0))
    legacy = app.capture(source, tables=["customers", "orders", "lines"], name="views")
    copies = Copies(
        "own",
        {
            "customers": Copied({"id": "BIGINT", "name": "TEXT", "balance": "TEXT"}),
            "orders": Copied({"id": "VARCHAR(40)", "customer_id": "BIGINT", "total": "BIGINT"}),
            "lines": Copied(
                {"order_id": "VARCHAR(40)", "number": "BIGINT", "quantity": "BIGINT"}, key=("order_id", "number")
            ),
        },
    )
    select = SELECT.format(orders="{own_orders}", customers="{own_customers}", lines="{own_lines}")

    @app.projection("customer_orders", tables=["customer_orders", *copies.tables])
    class CustomerOrders:
        async def create(self, tx: Transaction) -> None:
            await copies.create(tx)
            await tx.execute(
                "CREATE TABLE {customer_orders} (order_id VARCHAR(40) PRIMARY KEY, customer_id BIGINT, total BIGINT,"
                " customer TEXT, balance TEXT, lines BIGINT, quantity BIGINT)"
            )
            await tx.execute("CREATE INDEX {customer_orders}_of ON {customer_orders} (customer_id)")
            await tx.execute("CREATE INDEX {own_orders}_of ON {own_orders} (customer_id)")

        @on(*legacy.classes.values(), batch=True)
        async def changed(self, changes: list[Change], tx: Transaction) -> None:
            await self.make(await copies.apply(changes, tx), tx)

        async def make(self, touched: Touched, tx: Transaction) -> None:
            """Make those rows of the view anew that have to do with what was touched."""
            if touched.tables:
                await tx.execute("DELETE FROM {customer_orders}")
                await tx.execute(f"INSERT INTO {{customer_orders}} {select} {GROUP}")
                return
            customers = list(dict.fromkeys(touched.rows.get("customers", [])))
            orders = dict.fromkeys([key[:1] for table in ("orders", "lines") for key in touched.rows.get(table, [])])
            for condition, keys in (("customer_id", customers), ("id", list(orders))):
                own = "order_id" if condition == "id" else condition
                await tx.executemany(f"DELETE FROM {{customer_orders}} WHERE {own} = ?", keys)
                await tx.executemany(
                    f"INSERT INTO {{customer_orders}} {select} WHERE o.{condition} = ? {GROUP}"
                    " ON CONFLICT (order_id) DO UPDATE SET customer_id = excluded.customer_id, total = excluded.total,"
                    " customer = excluded.customer, balance = excluded.balance, lines = excluded.lines,"
                    " quantity = excluded.quantity",
                    keys,
                )

    return app


async def init(store: str, source: str) -> None:
    app = view(store, source)
    async with app:
        for capture in app.captures:
            await initialise(app.store, capture, app.clock, Ids(app.clock))
            await capture.source.close()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    asyncio.run(Service([view(sys.argv[1], sys.argv[2])]).run())
