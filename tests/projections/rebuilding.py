"""The program that is killed: events are published, projected, rebuilt, swapped to and fro, and the old one dropped.

    python rebuilding.py URL

Whatever was done before a crash is found and not done again: it can be started any number of times. Each stage looks
at what the store says rather than at what it remembers.
"""

from __future__ import annotations

import asyncio
import sys

from ledgers import Booked, Visited, bank, running

from eventmill import App
from eventmill.testing import crash

EVENTS = [
    Visited(f"g{number % 3}", f"a{number % 10}") if number % 9 == 0 else Booked(f"a{number % 10}", number)
    for number in range(1_200)
]
LATE = [Booked(f"a{number % 10}", 1) for number in range(50)]


async def work(app: App) -> None:
    view = app.view("balances")
    there = max((await app.store.end()).values(), default=0)
    if there == 0:
        await app.publish(*EVENTS)
    async with running(app):
        await view.at_least(len(EVENTS), timeout=60)
        if (await view.state()).next == 2 or (await view.state()).live == 1:
            await view.rebuild()
        if there <= len(EVENTS):
            shown = (await view.state()).live
            assert await view.swap(back=True) != shown
            assert await view.swap(back=True) == shown
            await app.publish(*LATE)
        await view.at_least(len(EVENTS) + len(LATE), timeout=60)
        if len((await view.state()).generations) > 1:
            await view.drop(force=True)


async def main(url: str) -> None:
    async with bank(url) as app:
        await work(app)


if __name__ == "__main__":
    crash.arm()
    asyncio.run(main(sys.argv[1]))
