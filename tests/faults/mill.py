"""The worker program of these tests: one service on one file, and tasks that say how they go wrong.

python mill.py FOLDER ATTEMPTS GRACE
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

from eventmill import App, Context, Event, Settings, Transaction, fixed
from eventmill.runtime.service import Service

LEASE = 2.0
"""Seconds; long enough for a heartbeat to be in time on a machine that is busy with other things."""


class Task(Event, name="mill.task", key="lane"):
    """does: `die`, `block`, `stick` and `pause` go wrong as long as the folder holds no file `healed`."""

    lane: str
    number: int
    does: str = ""
    padding: str = ""


class Ground(Event, name="mill.ground", key="lane"):
    lane: str
    number: int


def mill(place: Path, attempts: int = 3, *, options: str = "") -> App:
    app = App(f"sqlite:///{place}/mill.db{options}", name="mill", settings=Settings(lease=LEASE))

    @app.setup
    async def tables(tx: Transaction) -> None:
        await tx.execute("CREATE TABLE IF NOT EXISTS done (line INTEGER PRIMARY KEY, lane, number, attempt, pid)")

    @app.on(Task, retry=fixed(0.05, attempts=attempts))
    async def grind(event: Task, tx: Transaction, ctx: Context) -> None:
        if event.does and not (place / "healed").exists():
            with (place / "begun").open("a") as begun:
                begun.write(f"{event.number} {os.getpid()}\n")
            await misbehave(event.does)
        await tx.execute(
            "INSERT INTO done (lane, number, attempt, pid) VALUES (?, ?, ?, ?)",
            (event.lane, event.number, ctx.attempt, os.getpid()),
        )
        tx.publish(Ground(event.lane, event.number))

    return app


async def misbehave(does: str) -> None:
    match does:
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)
        case "block":
            time.sleep(3 * LEASE)
        case "stick":
            await asyncio.sleep(3600)
        case "pause":
            await asyncio.sleep(0.3)
        case "slow":
            await asyncio.sleep(0.005)
        case _:
            raise ValueError(f"does={does!r}")


if __name__ == "__main__":
    folder, attempts, grace = sys.argv[1:]
    asyncio.run(Service([mill(Path(folder), int(attempts))], grace=float(grace)).run())
