"""From the call to publish until a handler in another process is entered."""

from __future__ import annotations

import asyncio
import time

from bench.measurement import Figure, Measurement
from bench.order import order
from bench.process import workers
from bench.rounds import Plan
from bench.shop import shop

RATE = 50
WARM = RATE
"""Messages of the first second, which are not counted."""


async def latency(plan: Plan) -> list[Measurement]:
    """50 messages a second in an open loop: a slow one does not hold the next back."""
    count = RATE * plan.some(15, 4)
    with plan.place() as place:
        async with shop(place / "shop.db") as app, workers("timed", place / "shop.db", 1) as (worker,):
            worker.tell("go")
            await app.publish(order(0))
            await worker.until(1)
            loop = asyncio.get_running_loop()
            started = loop.time()
            calls = []
            for number in range(1, count + 1):
                await asyncio.sleep(started + number / RATE - loop.time())
                calls.append(asyncio.create_task(app.publish(order(number, time.monotonic()))))
            await asyncio.gather(*calls)
            await worker.until(count + 1)
            words = await worker.stop()
    delays = sorted(1_000 * delay for delay in words["delays"][1 + WARM :])
    p50, p99 = delays[len(delays) // 2], delays[min(len(delays) * 99 // 100, len(delays) - 1)]
    measured: dict[str, Figure] = {"messages": len(delays), "at": "50 a second"}
    return [
        Measurement("latency p50", p50, "ms", target=10, bound="most", details=measured),
        Measurement(
            "latency p99", p99, "ms", target=30, bound="most", details={**measured, "worst": round(delays[-1], 2)}
        ),
    ]
