"""Memory of a worker that has a million messages before it."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

from bench.consume import fill
from bench.measurement import Measurement
from bench.order import order
from bench.process import WorkerProcess, workers
from bench.rounds import Plan

LOOK = 0.05
"""Seconds between two looks at the process."""


def resident(pid: int, figure: str = "VmRSS") -> float:
    """Resident memory of a process in MB (10^6 bytes); `VmHWM` is the most it ever had, where the system keeps that."""
    status = Path(f"/proc/{pid}/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith(f"{figure}:"))
        return int(line.split()[1]) * 1024 / 1e6
    told = subprocess.run(["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, check=True)
    return int(told.stdout) * 1024 / 1e6


async def _peak(worker: WorkerProcess, count: int) -> float:
    """The most it had while it handled so many."""
    handling = asyncio.create_task(worker.until(count))
    peak = resident(worker.pid)
    while not handling.done():
        peak = max(peak, resident(worker.pid))
        await asyncio.sleep(LOOK)
    await handling
    return max(peak, resident(worker.pid, "VmHWM"))


async def memory(plan: Plan) -> list[Measurement]:
    """What it grows by from its start, with its App open, over the first tenth of the messages."""
    behind = plan.some(1_000_000, 100_000)
    with plan.place() as place:
        await fill(place / "shop.db", (order(number) for number in range(behind)))
        async with workers("one-by-one", place / "shop.db", 1) as (worker,):
            start = resident(worker.pid)
            worker.tell("go")
            early = await _peak(worker, behind // 100)
            peak = await _peak(worker, behind // 10)
            await worker.stop()
    details = {
        "start_mb": round(start, 1),
        "peak_mb": round(peak, 1),
        "growth_over_first_hundredth_mb": round(early - start, 1),
        "messages_behind": behind,
        "handled": behind // 10,
    }
    return [Measurement("memory, far behind", peak - start, "MB grown", target=20, bound="most", details=details)]
