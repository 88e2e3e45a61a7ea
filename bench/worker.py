"""A worker process: opens an App, waits for the word, handles, and says how far it is.

    python -m bench.worker KIND FILE

On standard output, a JSON object a line: `ready`; then `handled` with the moment (`time.monotonic`,
which processes of one machine share) whenever the number has changed; at last `delays`, and the processor
time since `go`.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path

from bench.shop import APPS, delays
from eventmill import App

LOOK = 0.01
"""Seconds between two looks at how many were handled."""


def say(**words: object) -> None:
    print(json.dumps(words), flush=True)


async def report(app: App) -> None:
    seen = 0
    while True:
        await asyncio.sleep(LOOK)
        if app.handled != seen:
            seen = app.handled
            say(handled=seen, at=time.monotonic())


async def work(app: App) -> None:
    loop = asyncio.get_running_loop()
    words: asyncio.Queue[str] = asyncio.Queue()
    # At the end of the input, too: a worker whose parent is gone stops.
    loop.add_reader(sys.stdin.fileno(), lambda: words.put_nowait(sys.stdin.readline().strip()))
    async with app:
        say(ready=True)
        if await words.get() != "go":
            return
        before = time.process_time()
        running = asyncio.create_task(app.run())
        reporting = asyncio.create_task(report(app))
        hearing = asyncio.create_task(words.get())
        await asyncio.wait([running, hearing], return_when=asyncio.FIRST_COMPLETED)
        loop.remove_reader(sys.stdin.fileno())
        app.stop()
        await running
        reporting.cancel()
    say(delays=delays, processor=time.process_time() - before)


if __name__ == "__main__":
    asyncio.run(work(APPS[sys.argv[1]](Path(sys.argv[2]))))
