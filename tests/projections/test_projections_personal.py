"""Personal fields in views: readable while their key is there, redacted in what is built after it was destroyed."""

from __future__ import annotations

import asyncio
from pathlib import Path

from ledgers import running

from eventmill import App, Event, Transaction, on
from eventmill.backends.connect import connect_store
from eventmill.patterns.projection.as_of import project


class Subscribed(Event, name="letter.subscribed", key="reader", personal={"email": "reader"}):
    reader: str
    email: str


def letters(url: str) -> App:
    app = App(url, name="letters")

    @app.projection("subscribers", tables=["subscribers"])
    class Subscribers:
        async def create(self, tx: Transaction) -> None:
            await tx.execute("CREATE TABLE {subscribers} (reader TEXT PRIMARY KEY, email TEXT)")

        @on(Subscribed)
        async def subscribed(self, event: Subscribed, tx: Transaction) -> None:
            await tx.execute("INSERT INTO {subscribers} VALUES (?, ?)", (event.reader, event.email))

    return app


def test_what_is_forgotten_is_redacted_in_the_next_generation(tmp_path: Path) -> None:
    async def run() -> None:
        async with letters(f"sqlite:///{tmp_path}/letters.db") as app, running(app):
            view = app.view("subscribers")
            await view.at_least(await app.publish(Subscribed("ada", "ada@x.org"), Subscribed("bob", "bob@x.org")))
            assert await app.store.query("SELECT email FROM subscribers ORDER BY reader") == [
                ("ada@x.org",),
                ("bob@x.org",),
            ]
            assert await app.forget("ada")
            await view.rebuild()
            await view.drop()
            (ada,), (bob,) = await app.store.query("SELECT email FROM subscribers ORDER BY reader")
            assert bob == "bob@x.org"
            assert ada
            assert "ada@" not in ada
            async with connect_store(f"sqlite:///{tmp_path}/then.db") as then:
                await project(app.projections["subscribers"], app.projections.ground, then, at=None)
                assert await then.query("SELECT email FROM subscribers ORDER BY reader") == [(ada,), (bob,)]

    asyncio.run(run())
