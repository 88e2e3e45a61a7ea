"""One of several processes that publish to one file at once, and note what they were told.

python crowd.py FOLDER NUMBER
"""

from __future__ import annotations

import asyncio
import sys
from itertools import count
from pathlib import Path

from eventmill import App, Event

PROCESSES = 4
MESSAGES = 5_000
CALLERS = 64
KEYS = 10


class Shout(Event, name="crowd.shout", key="key"):
    key: str
    text: str


async def main(place: Path, process: int) -> None:
    numbers = count()
    told: list[str] = []

    async def call(app: App) -> None:
        while (number := next(numbers)) < MESSAGES:
            text = f"{process}-{number}"
            (position,) = await app.publish(Shout(f"key{number % KEYS}", text))
            told.append(f"{position} {text}")

    async with App(f"sqlite:///{place}/crowd.db", name=f"crowd{process}") as app:
        await asyncio.gather(*(call(app) for _ in range(CALLERS)))
    (place / f"positions{process}").write_text("\n".join(told))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
