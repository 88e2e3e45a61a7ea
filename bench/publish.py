"""Publishing: many callers at once, and one alone."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

from bench import raw
from bench.measurement import Measurement
from bench.order import OrderPlaced, orders, rows
from bench.rounds import Plan, Stopwatch, Work, duel
from bench.shop import shop
from eventmill import App

CALLERS = 64


async def _call(app: App, events: Iterator[OrderPlaced]) -> None:
    for event in events:
        await app.publish(event)


async def concurrent(plan: Plan) -> list[Measurement]:
    """64 callers, one message a call; bare `executemany` with 100 rows a commit beside it."""
    count = plan.some(80_000, 16_000)
    events = orders(count)
    bare = rows(events) * 2

    async def ours(place: Path) -> Work:
        async with shop(place / "shop.db") as app:
            shared = iter(events)
            with Stopwatch(count) as watch:
                await asyncio.gather(*(_call(app, shared) for _ in range(CALLERS)))
            return watch.work

    async def peer(place: Path) -> Work:
        return raw.append(place / "raw.db", bare)

    found = await duel(plan, ours, peer)
    return [found.measurement("publish, 64 callers", target=0.30)]


async def alone(plan: Plan) -> list[Measurement]:
    """One caller who awaits each message; one row a commit beside it."""
    count = plan.some(8_000, 1_500)
    events = orders(count)
    bare = rows(events)

    async def ours(place: Path) -> Work:
        async with shop(place / "shop.db") as app:
            with Stopwatch(count) as watch:
                await _call(app, iter(events))
            return watch.work

    async def peer(place: Path) -> Work:
        return raw.append_singly(place / "raw.db", bare)

    found = await duel(plan, ours, peer)
    return [found.measurement("publish, one by one", target=0.6)]
