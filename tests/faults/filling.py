"""A service whose disk runs full while it publishes and handles, and has room again later.

    python filling.py FOLDER

It says `full` when a publish is refused, and goes on when it reads a line; it ends when everything
that was acknowledged is handled. The numbers acknowledged are in the folder's file `acknowledged`.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from mill import Task, mill

from eventmill import App
from eventmill.core.errors import StorageFullError

AFTERWARDS = 50
"""How many more are published when there is room again."""


async def fill(app: App, first: int) -> list[int]:
    """Publish until there is no room; returns what was acknowledged."""
    acknowledged = []
    number = first
    while True:
        try:
            await app.publish(Task(f"lane{number % 4}", number, padding="x" * 4000))
        except StorageFullError:
            return acknowledged
        acknowledged.append(number)
        number += 1


async def main(place: Path) -> None:
    async with mill(place) as app:
        running = asyncio.create_task(app.run())
        acknowledged = await fill(app, 0)
        # Refused again and again: it must not wear anything out.
        acknowledged += await fill(app, 100_000)
        print("full", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
        for number in range(200_000, 200_000 + AFTERWARDS):
            await app.publish(Task(f"lane{number % 4}", number))
            acknowledged.append(number)
        (place / "acknowledged").write_text(" ".join(map(str, acknowledged)))
        while not running.done() and await done(app) < len(acknowledged):
            await asyncio.sleep(0.05)
        app.stop()
        await running


async def done(app: App) -> int:
    async with app.transaction() as tx:
        ((number,),) = await tx.execute("SELECT count(*) FROM done")
    return int(number)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
