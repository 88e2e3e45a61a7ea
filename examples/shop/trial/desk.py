"""The judge's desk: a scratch database with copies of every service's ledgers and logs.

Copies are read through each service's own store, page by page, so that memory stays flat and only
`wiring` knows what kind of database it is.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from eventmill import App
from eventmill.backends.connect import as_log
from eventmill.core.capabilities import Log
from eventmill.core.message import Partition
from eventmill.core.rows import Row
from eventmill.patterns.recording import is_recorded

from ..services import APPS
from .expectation import SUBSCRIPTIONS

PAGE = 5_000

PROVIDER = "provider.db"
"""The payment provider's own ledger, beside the desk."""

LEDGERS = {
    "order": ("handled", "accepted", "cancelled"),
    "customer": ("handled",),
    "payment": ("handled", "captures", "refunds", "settlements", "fires"),
    "stock": ("handled", "movements", "products"),
    "shipping": ("handled", "ready", "shipments"),
    "orders-view": ("entries", "rejected", "invoices", "shipped", "accounts"),
}
KEYS = {"products": "product", "invoices": "invoice, customer"}
"""By what to page through tables that are no ledgers; ledgers have `n`."""

_TABLES = """
CREATE TABLE logged (n INTEGER PRIMARY KEY, source, id, type, topic, key, sequence);
CREATE TABLE recorded (n INTEGER PRIMARY KEY, source, id, type, topic, key, sequence);
CREATE TABLE brokered (n INTEGER PRIMARY KEY, source, id, type, topic, key, sequence);
CREATE TABLE subscribed (consumer, type);
CREATE TABLE provider (kind, key, amount);
CREATE TABLE handled (service, n, consumer, source, id, topic, key, sequence);
"""
_INDEXES = """
CREATE INDEX logged_by_type ON logged (type);
CREATE INDEX logged_by_id ON logged (source, id);
CREATE INDEX brokered_by_id ON brokered (source, id);
CREATE INDEX recorded_by_id ON recorded (source, id);
CREATE INDEX handled_by_id ON handled (consumer, source, id);
CREATE INDEX captures_by_part ON payment_captures (invoice, chunk);
CREATE TABLE shipped_parts AS
    SELECT a.invoice, a.chunk, a.amount FROM order_accepted AS a
    JOIN shipping_shipments AS s ON s.order_id = a.invoice AND s.chunk = a.chunk WHERE a.kind = 'order';
"""


class Desk:
    """Copies laid out as `service_table` (`-` becomes `_`), all `handled` tables in one, and the logs."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.sql = sqlite3.connect(path, isolation_level=None)
        self.sql.executescript(f"PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; {_TABLES}")
        self.sql.executemany(
            "INSERT INTO subscribed VALUES (?, ?)",
            [(consumer, kind) for consumer, kinds in SUBSCRIPTIONS.items() for kind in kinds],
        )

    def close(self) -> None:
        self.sql.close()
        self._path.unlink()

    def one(self, query: str) -> int:
        """The single figure that a query gives; nothing counts as 0."""
        (figure,) = self.sql.execute(query).fetchone()
        return int(figure or 0)

    async def collect(self) -> None:
        """Copy everything; no worker may run any more."""
        for app in APPS:
            await self._copy_log("logged", app.store, "recorded")
            for table in LEDGERS[app.name]:
                await self._copy_table(app, table)
        with closing(sqlite3.connect(self._path.with_name(PROVIDER))) as provider:
            self._insert(
                "provider",
                ("kind", "key", "amount"),
                provider.execute("SELECT kind, key, amount FROM entries").fetchall(),
            )
        broker = as_log(APPS[0].broker)
        if broker is not None:
            await self._copy_log("brokered", broker, "brokered")
        self.sql.executescript(_INDEXES)

    async def _copy_log(self, table: str, log: Log, copies: str) -> None:
        """copies: the table for what a service has recorded of others."""
        after = {
            Partition(topic, number): 0 for topic, count in (await log.topics()).items() for number in range(count)
        }
        while True:
            page = await log.read(after, limit=PAGE)
            for place in {table, copies}:
                rows = [
                    (message.source, message.id, message.type, message.topic, message.key, message.sequence)
                    for message in (found.message for found in page.messages)
                    if (copies if is_recorded(message) else table) == place
                ]
                self._insert(place, ("source", "id", "type", "topic", "key", "sequence"), rows)
            if all(after[partition] >= position for partition, position in page.after.items()):
                return
            after.update(page.after)

    async def _copy_table(self, app: App, table: str) -> None:
        ledger = table not in KEYS
        target = "handled" if table == "handled" else f"{app.name.replace('-', '_')}_{table}"
        made = table == "handled"
        after = 0
        while True:
            query = (
                f"SELECT * FROM {table} WHERE n > ? ORDER BY n LIMIT {PAGE}"  # noqa: S608 - names from the lists above
                if ledger
                else f"SELECT * FROM {table} ORDER BY {KEYS[table]} LIMIT {PAGE} OFFSET ?"  # noqa: S608 - likewise
            )
            async with app.transaction() as tx:
                rows = await tx.execute(query, (after,))
            columns = rows.columns
            copied: Sequence[Row] = rows
            if table == "handled":
                columns = ("service", *columns)
                copied = [(app.name, *row) for row in rows]
            if not made:
                self.sql.execute(f"CREATE TABLE {target} ({', '.join(columns)})")
                made = True
            self._insert(target, columns, copied)
            if len(rows) < PAGE:
                return
            after = rows[-1][rows.columns.index("n")] if ledger else after + PAGE

    def _insert(self, table: str, columns: Sequence[str], rows: Sequence[Row]) -> None:
        marks = ", ".join("?" * len(columns))
        self.sql.execute("BEGIN")
        self.sql.executemany(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})", rows)  # noqa: S608
        self.sql.execute("COMMIT")
