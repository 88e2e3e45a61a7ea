"""A service that keeps a copy of every row of five captured tables: what its copy says is what the events said."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from typing import Any

from eventmill import App, Settings, Transaction
from eventmill.core.clock import Ids
from eventmill.patterns.cdc.capture import Capture
from eventmill.patterns.cdc.change import Change
from eventmill.patterns.cdc.session import load
from eventmill.patterns.cdc.setup import initialise
from eventmill.runtime.service import Service
from eventmill.testing import crash

TABLES = ["customers", "addresses", "products", "orders", "lines"]
SETTINGS = Settings(lease=2.0)


def mirror(store: str, source: str, name: str = "mirror") -> tuple[App, Capture]:
    app = App(store, name="mirror", settings=SETTINGS)
    capture = app.capture(source, tables=TABLES, name=name)

    @app.setup
    async def create(tx: Transaction) -> None:
        await tx.execute(
            "CREATE TABLE IF NOT EXISTS copies (tab TEXT NOT NULL, id TEXT NOT NULL, data TEXT NOT NULL,"
            " position BIGINT NOT NULL, number BIGINT NOT NULL, PRIMARY KEY (tab, id))"
        )
        await tx.execute(
            "CREATE TABLE IF NOT EXISTS floors (tab TEXT PRIMARY KEY, position BIGINT NOT NULL, number BIGINT NOT NULL)"
        )

    @app.on(*capture.classes.values(), group="copies", batch=500, concurrency=1)
    async def copy(changes: list[Change], tx: Transaction) -> None:
        for change in changes:
            await apply(change, tx)

    return app, capture


async def apply(change: Change, tx: Transaction) -> None:
    """One change on the copy. A truncate ends what comes before it, whenever that is handled."""
    if change.op == "truncate":
        await tx.execute(
            "DELETE FROM copies WHERE tab = ? AND (position < ? OR (position = ? AND number < ?))",
            (change.table, change.position, change.position, change.number),
        )
        await tx.execute(
            "INSERT INTO floors VALUES (?, ?, ?) ON CONFLICT (tab) DO UPDATE SET position = excluded.position,"
            " number = excluded.number WHERE excluded.position > floors.position"
            " OR (excluded.position = floors.position AND excluded.number > floors.number)",
            (change.table, change.position, change.number),
        )
        return
    floors = await tx.execute("SELECT position, number FROM floors WHERE tab = ?", (change.table,))
    key = json.dumps(change.key, sort_keys=True)
    if any(change.place < tuple(floor) for floor in floors):
        return
    if change.op == "delete":
        await tx.execute("DELETE FROM copies WHERE tab = ? AND id = ?", (change.table, key))
        return
    row: dict[str, Any] = dict(change.after or {})
    if change.unchanged:
        found = list(await tx.execute("SELECT data FROM copies WHERE tab = ? AND id = ?", (change.table, key)))
        # A row that is not there was ended by a truncate or a delete that is handled already.
        before = json.loads(found[0][0]) if found else {}
        row.update((name, before[name]) for name in change.unchanged if name in before)
    await tx.execute(
        "INSERT INTO copies VALUES (?, ?, ?, ?, ?) ON CONFLICT (tab, id) DO UPDATE SET data = excluded.data,"
        " position = excluded.position, number = excluded.number",
        (change.table, key, json.dumps(row, sort_keys=True), change.position, change.number),
    )


async def init(store: str, source: str, *, anew: bool = False) -> None:
    app, capture = mirror(store, source)
    async with app:
        await initialise(app.store, capture, app.clock, Ids(app.clock), anew=anew)
    await capture.source.close()


async def until_done(store: str, source: str) -> None:
    """Begin where it was not begun, and end when the last customer (-1) is copied, and all that was told is handled."""
    app, capture = mirror(store, source)
    async with app:
        if await load(app.store, capture.name) is None:
            await initialise(app.store, capture, app.clock, Ids(app.clock))
        running = asyncio.create_task(app.run())
        while not running.done() and not await _done(app, capture):
            await asyncio.sleep(0.05)
        app.stop()
        await running


async def _done(app: App, capture: Capture) -> bool:
    loaded = await load(app.store, capture.name)
    if loaded is None or loaded.progress.copying:
        return False
    async with app.transaction() as tx:
        last = list(await tx.execute("SELECT 1 FROM copies WHERE tab = 'customers' AND id = ?", ('{"id": -1}',)))
    waiting = [
        (await app.store.backlog(group.name, group.cursors, group.types)).messages
        for group in await app.store.groups()
        if group.name == "copies"
    ]
    # What a process was killed over, the next one handles by jobs.
    return bool(last) and waiting == [0] and not await app.store.jobs("copies")


if __name__ == "__main__":
    crash.arm()
    logging.basicConfig(level=logging.INFO)
    if sys.argv[3:] == ["--until-done"]:
        asyncio.run(until_done(sys.argv[1], sys.argv[2]))
    else:
        asyncio.run(Service([mirror(sys.argv[1], sys.argv[2])[0]]).run())
