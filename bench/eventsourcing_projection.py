"""The `eventsourcing` library doing the same work: `pip install eventsourcing` to have it measured beside ours.

On SQLite it has no subscriptions, so its own loop is written out: select notifications, map each to its event, upsert the
row and note the position, one commit an event, as its projection runner does on PostgreSQL.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event

from bench.totals import Sold, totals

SECTION = 500


class Account(Aggregate):
    @event("Sold")
    def sell(self, customer: str, order: str, amount: int) -> None: ...


def rate(place: Path, events: Sequence[Sold]) -> float:
    """Events a second, from the log into the table."""
    app: Application = Application(
        env={"PERSISTENCE_MODULE": "eventsourcing.sqlite", "SQLITE_DBNAME": str(place / "peer.db")}
    )
    accounts: dict[str, Account] = {}
    for sale in events:
        accounts.setdefault(sale.customer, Account()).sell(sale.customer, sale.order, sale.amount)
    app.save(*accounts.values())
    with closing(sqlite3.connect(place / "view.db", isolation_level=None)) as view:
        view.execute("PRAGMA journal_mode = WAL")
        view.execute("PRAGMA synchronous = FULL")
        view.execute("CREATE TABLE totals (customer TEXT PRIMARY KEY, sold INTEGER NOT NULL, amount INTEGER NOT NULL)")
        view.execute("CREATE TABLE tracking (position INTEGER NOT NULL)")
        view.execute("INSERT INTO tracking VALUES (0)")
        began = time.perf_counter()
        at = 1
        while section := app.recorder.select_notifications(start=at, limit=SECTION):
            for notification in section:
                sold = app.mapper.to_domain_event(notification)
                view.execute("BEGIN IMMEDIATE")
                if hasattr(sold, "amount"):
                    view.execute(
                        "INSERT INTO totals VALUES (?, 1, ?) ON CONFLICT (customer) DO UPDATE SET sold = sold + 1,"
                        " amount = amount + excluded.amount",
                        (sold.customer, sold.amount),
                    )
                view.execute("UPDATE tracking SET position = ?", (notification.id,))
                view.execute("COMMIT")
            at = section[-1].id + 1
        seconds = time.perf_counter() - began
        if view.execute("SELECT * FROM totals ORDER BY customer").fetchall() != totals(events):
            raise RuntimeError("the peer's view is not the fold of the events")
    return len(events) / seconds
