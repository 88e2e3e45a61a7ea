"""Machines whose clocks differ share one server: leases and due moments are by its clock."""

from __future__ import annotations

import asyncio
import time

from eventmill import App
from eventmill.core.clock import SystemClock


class Machine(SystemClock):
    """Of a machine that is so many seconds ahead."""

    def __init__(self, ahead: float) -> None:
        super().__init__()
        self.ahead = ahead

    def machine(self) -> float:
        return time.time() + self.ahead


def test_all_machines_go_by_the_server_s_clock(postgres_url: str) -> None:
    async def case() -> None:
        behind, ahead = Machine(-90.0), Machine(90.0)
        async with App(postgres_url, clock=behind) as one, App(postgres_url, clock=ahead) as other:
            assert abs(one.clock.now() - other.clock.now()) < 5

            @one.task()
            async def idle() -> None: ...

            sent = await one.send(idle.job())
            assert (await other.store.find(sent)) is not None
            assert len(await other.store.claim(f"{one.name}/default", "other/1", limit=1, lease=10.0)) == 1
            # A clock that is set while the service runs is followed with the next heartbeat.
            behind.ahead = 30.0
            assert one.clock.now() - other.clock.now() > 100
            await asyncio.to_thread(one.store.beat, ["nobody/1"], 10.0)
            assert abs(one.clock.now() - other.clock.now()) < 5
            assert abs(one.clock.now() - time.time()) < 5, "the server is on this machine"

    asyncio.run(asyncio.wait_for(case(), 60))
