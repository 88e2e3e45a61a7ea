"""The `eventsourcing` library doing the same work: `pip install eventsourcing` to have it measured beside ours."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from eventsourcing.application import Application
from eventsourcing.domain import Aggregate
from eventsourcing.domain import event as on

from bench.rounds import Stopwatch, Work


class TheirLedger(Aggregate):
    def __init__(self) -> None:
        self.balance = 0
        self.last = ""

    @on("Booked")
    def book(self, account: str, amount: int, note: str) -> None:
        self.balance += amount
        self.last = account


def load_and_book(place: Path, count: int, history: int) -> Work:
    """So many commands, each on another aggregate that has a history: load, decide, append, in SQLite."""
    os.environ["PERSISTENCE_MODULE"] = "eventsourcing.sqlite"
    os.environ["SQLITE_DBNAME"] = str(place / "theirs.db")
    application: Any = Application()
    ids = []
    for _ in range(count):
        ledger: Any = TheirLedger()
        for _ in range(history - 1):
            ledger.book("a", 1, "at the counter")
        application.save(ledger)
        ids.append(ledger.id)
    with Stopwatch(count) as watch:
        for id_ in ids:
            ledger = application.repository.get(id_)
            ledger.book("a", 1, "at the counter")
            application.save(ledger)
    application.close()
    return watch.work
