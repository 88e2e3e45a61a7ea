"""A service whose broker is Kafka: it enters what the shop sends into a ledger.

python ledger.py FOLDER BROKER
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from eventmill import App, Event, Settings, Transaction
from eventmill.runtime.service import Service

TOPICS = {"ledger": 8}


class Entry(Event, name="ledger.entry", key="account"):
    account: str
    number: int


def shop(place: Path, broker: str) -> App:
    return App(f"sqlite:///{place}/shop.db", broker=broker, name="shop", settings=Settings(lease=2.0), topics=TOPICS)


def ledger(place: Path, broker: str) -> App:
    app = App(f"sqlite:///{place}/books.db", broker=broker, name="books", settings=Settings(lease=2.0), topics=TOPICS)

    @app.setup
    async def tables(tx: Transaction) -> None:
        await tx.execute("CREATE TABLE IF NOT EXISTS entries (line INTEGER PRIMARY KEY, account, number)")

    @app.on(Entry)
    async def enter(event: Entry, tx: Transaction) -> None:
        await tx.execute("INSERT INTO entries (account, number) VALUES (?, ?)", (event.account, event.number))

    return app


if __name__ == "__main__":
    asyncio.run(Service([ledger(Path(sys.argv[1]), sys.argv[2])], grace=20.0).run())
