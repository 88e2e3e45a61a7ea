"""A process: one or more apps, its signals, its end."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Sequence
from typing import Any, Protocol

log = logging.getLogger("eventmill")


class Runnable(Protocol):
    """What a service runs."""

    name: str

    async def run(self) -> None: ...

    def stop(self) -> None: ...

    async def close(self) -> None: ...


class Service:
    """Runs apps until SIGTERM or SIGINT, then stops them in good order.

    The first signal: fetch nothing more, finish what is begun, commit it, give the leases back. What
    is not finished after `grace` seconds is interrupted, and costs no attempt. A second signal
    interrupts at once.
    """

    def __init__(self, apps: Sequence[Runnable], *, grace: float = 20.0) -> None:
        self._apps = apps
        self._grace = grace
        self._signals = 0
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()

    async def run(self) -> None:
        """Returns when all apps have ended; raises what ended one of them early."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled, number)
        tasks = [asyncio.create_task(app.run(), name=app.name) for app in self._apps]
        stopped = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait([*tasks, stopped], return_when=asyncio.FIRST_COMPLETED)
            for app in self._apps:
                app.stop()
            hurry = asyncio.create_task(self._hurry.wait())
            ended = asyncio.ensure_future(asyncio.gather(*tasks, return_exceptions=True))
            waits: set[asyncio.Future[Any]] = {ended, hurry}
            await asyncio.wait(waits, timeout=self._grace, return_when=asyncio.FIRST_COMPLETED)
            hurry.cancel()
            if not ended.done():
                log.warning("interrupting what is unfinished; it will be handled again, with no attempt spent")
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            stopped.cancel()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)
            for app in self._apps:
                await app.close()
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError):
                raise result

    def stop(self) -> None:
        """The same as a first SIGTERM."""
        self._stop.set()

    def _signalled(self, number: signal.Signals) -> None:
        self._signals += 1
        log.info("%s: %s", signal.Signals(number).name, "stopping" if self._signals == 1 else "stopping at once")
        self._stop.set()
        if self._signals > 1:
            self._hurry.set()
