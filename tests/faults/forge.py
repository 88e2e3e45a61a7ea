"""The program whose workers are hurt: tasks that are slow, long, blocking or deadly, and a schedule.

    python forge.py FOLDER [send NUMBER]

With `send` it sends a unique task once and ends.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

from eventmill import App, Service, Settings, TaskContext, Transaction, fixed

LEASE = 0.6
TICK = 0.1


def make(place: Path) -> App:
    app = App(f"sqlite:///{place / 'forge.db'}", name="forge", settings=Settings(lease=LEASE))

    @app.setup
    async def tables(tx: Transaction) -> None:
        await tx.execute("CREATE TABLE IF NOT EXISTS done (line INTEGER PRIMARY KEY, number, kind, attempt, pid, fire)")

    def begun(number: int) -> None:
        with (place / "begun").open("a") as file:
            file.write(f"{number} {os.getpid()}\n")

    @app.task(queue="work", retry=fixed(0.02, attempts=4))
    async def work(number: int, kind: str, seconds: float, context: TaskContext, tx: Transaction) -> None:
        begun(number)
        if kind == "block":
            time.sleep(seconds)
        elif kind == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        else:
            await asyncio.sleep(seconds)
        await tx.execute(
            "INSERT INTO done (number, kind, attempt, pid) VALUES (?, ?, ?, ?)",
            (number, kind, context.attempt, os.getpid()),
        )

    @app.task(queue="work", unique=True)
    async def only(number: int, tx: Transaction) -> None:
        await tx.execute("INSERT INTO done (number, kind) VALUES (?, 'only')", (number,))

    @app.schedule(every=TICK, missed="all")
    @app.task(queue="ticks")
    async def tick(context: TaskContext, tx: Transaction) -> None:
        assert context.fire is not None
        await tx.execute("INSERT INTO done (kind, fire) VALUES ('tick', ?)", (round(context.fire.timestamp() * 1000),))

    return app


async def serve(app: App, place: Path) -> None:
    # When this comes, signals are listened to.
    asyncio.get_running_loop().call_later(0.01, (place / f"up-{os.getpid()}").touch)
    await Service([app], grace=20.0).run()


async def send(app: App, number: int) -> None:
    async with app:
        only = app.tasks.by_type["task.only"]
        await asyncio.gather(*(app.send(only.job(number), after=3_600) for _ in range(5)))


if __name__ == "__main__":
    forge = make(Path(sys.argv[1]))
    if sys.argv[2:3] == ["send"]:
        asyncio.run(send(forge, int(sys.argv[3])))
    else:
        asyncio.run(serve(forge, Path(sys.argv[1])))
