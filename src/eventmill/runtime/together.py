"""What works side by side in one process, until it is told to stop."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, Protocol


class Member(Protocol):
    """Runs until it is stopped; ends before that only by an error that nothing was prepared for."""

    async def run(self) -> None: ...

    def stop(self) -> None: ...


async def run_together(members: Sequence[Member], stopped: asyncio.Event, *beside: Coroutine[Any, Any, None]) -> None:
    """Run all until `stopped` is set and each has finished what it has begun; raise what ended one of them early.

    beside: what goes on meanwhile, and is cancelled at the end.
    """
    tasks = [asyncio.create_task(each.run()) for each in members]
    others: list[asyncio.Task[Any]] = [asyncio.create_task(each) for each in beside]
    waiting = asyncio.create_task(stopped.wait())
    try:
        await asyncio.wait([waiting, *tasks], return_when=asyncio.FIRST_COMPLETED)
        for each in members:
            each.stop()
        for task in tasks:
            await task
    finally:
        others += [waiting, *tasks]
        for other in others:
            other.cancel()
        await asyncio.gather(*others, return_exceptions=True)
