"""Messages that a broker brings twice, at the worst moments."""

from __future__ import annotations

from pathlib import Path

import pytest
from long_running import SETTINGS, in_loop, running, until

from eventmill import App, Event, Message, Transaction, fixed
from eventmill.core.envelope import Envelopes


class InboxPaid(Event, name="inboxtest.paid", key="order"):
    order: str


def shop(folder: Path, *, batch: bool) -> App:
    app = App(f"sqlite:///{folder}/shop.db", broker=f"sqlite:///{folder}/broker.db", name="shop", settings=SETTINGS)

    @app.setup
    async def tables(tx: Transaction) -> None:
        await tx.execute("CREATE TABLE IF NOT EXISTS paid (n TEXT PRIMARY KEY, id TEXT)")

    if batch:

        @app.on(InboxPaid, group="shop.books", batch=10, retry=fixed(0.05, attempts=2))
        async def book_all(events: list[InboxPaid], tx: Transaction) -> None:
            await tx.executemany("INSERT INTO paid (n) VALUES (?)", [(event.order,) for event in events])

    else:

        @app.on(InboxPaid, group="shop.books", retry=fixed(0.05, attempts=2))
        async def book(event: InboxPaid, tx: Transaction, message: Message) -> None:
            await tx.execute("INSERT INTO paid (n, id) VALUES (?, ?)", (event.order, message.id))

    return app


@pytest.mark.parametrize("batch", [False, True])
@in_loop
async def test_a_repeat_that_fails_over_its_own_traces_is_no_failure(tmp_path: Path, batch: bool) -> None:
    """A relay that died has published everything twice, the repeats right behind. The handler's rows are unique: it
    fails at each repeat, in one page with the originals, before its commit could say that the message is known."""
    app = shop(tmp_path, batch=batch)
    async with running(app):
        make: Envelopes = app._envelopes
        messages = [make(InboxPaid(f"order{number}")) for number in range(50)]
        for start in range(0, 50, 10):
            await app.broker.publish(messages[start : start + 10] * 2)

        async def over() -> bool:
            groups = {group.name: group for group in await app.store.groups()}
            group = groups.get("shop.books")
            if group is None or group.retrying:
                return False
            return not (await app.broker.backlog("shop.books", group.cursors, group.types)).messages

        await until(over)
        async with app.transaction() as tx:
            assert await tx.execute("SELECT count(*) FROM paid") == [(50,)]
        assert await app.store.jobs(state="dead") == []
        assert await app.store.jobs() == []
