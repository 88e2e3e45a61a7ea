"""Striking at the servers: connections cut from the server's side, and the whole server restarted."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from eventmill.core.errors import BackendError

from ..services import APPS
from ..wiring import CUT

RESTART_EVERY = (4.0, 8.0)
CUT_EVERY = (0.5, 2.0)


class ServerChaos:
    """Cuts connections of the services' databases, where the kind of database can, and runs a restart command.

    restart: a shell command, or None. say: told what went wrong with it.
    """

    def __init__(self, seed: int, restart: str | None, say: Callable[[str], None]) -> None:
        self.restarts = 0
        self.terminated = 0
        self._random = random.Random(f"servers {seed}")  # noqa: S311 - repeatable is the point
        self._restart = restart
        self._say = say

    async def run(self) -> None:
        """Strike until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._restarting())
            tasks.create_task(self._cutting())

    async def _restarting(self) -> None:
        while self._restart is not None:
            await asyncio.sleep(self._random.uniform(*RESTART_EVERY))
            process = await asyncio.create_subprocess_shell(self._restart, stdout=asyncio.subprocess.DEVNULL)
            self.restarts += 1
            ending = asyncio.create_task(process.wait())
            try:
                code = await asyncio.shield(ending)
            except asyncio.CancelledError:
                await ending  # a server must not be left half restarted
                raise
            if code:
                self._say(f"{self._restart}: exit code {code}")

    async def _cutting(self) -> None:
        while CUT is not None:
            await asyncio.sleep(self._random.uniform(*CUT_EVERY))
            try:
                async with APPS[0].transaction() as tx:
                    [(count,)] = await tx.execute(CUT, (self._random.random() / 2,))
            except BackendError:
                continue  # the server is down, or it cut us, too
            self.terminated += count or 0
