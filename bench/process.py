"""Worker processes as a measurement sees them: ready, go, handled so many, stop."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 300.0
"""Seconds without a word from a worker after which the measurement is given up."""


class WorkerProcess:
    """A child that runs `bench.worker`; it has opened its App and waits for `go`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.handled = 0
        self.at = 0.0

    @property
    def pid(self) -> int:
        return self.process.pid

    def tell(self, word: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{word}\n".encode())

    async def hear(self) -> dict[str, Any]:
        """The next thing it says. Raises RuntimeError where it has died instead."""
        assert self.process.stdout is not None
        line = await asyncio.wait_for(self.process.stdout.readline(), PATIENCE)
        if not line:
            raise RuntimeError(f"worker process {self.pid} ended with code {await self.process.wait()}")
        said: dict[str, Any] = json.loads(line)
        return said

    async def until(self, count: int) -> None:
        """Listen until it has handled so many."""
        while self.handled < count:
            said = await self.hear()
            self.handled, self.at = said["handled"], said["at"]

    async def stop(self) -> dict[str, Any]:
        """Let it stop in good order; returns its last words."""
        self.tell("stop")
        while "delays" not in (said := await self.hear()):
            pass
        await self.process.wait()
        return said


@asynccontextmanager
async def workers(kind: str, file: Path, number: int) -> AsyncIterator[Sequence[WorkerProcess]]:
    """So many processes that have opened the file and wait for `go`; none is left at the end."""
    started: list[WorkerProcess] = []
    try:
        for _ in range(number):
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "bench.worker", kind, str(file),
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, cwd=ROOT, limit=1 << 26,
            )  # fmt: skip
            started.append(WorkerProcess(process))
        for worker in started:
            await worker.hear()
        yield started
    finally:
        for worker in started:
            if worker.process.returncode is None:
                worker.process.kill()
                await worker.process.wait()


async def all_handled(crew: Sequence[WorkerProcess], count: int) -> float:
    """Say go; seconds until they have handled `count` messages between them."""
    started = time.monotonic()
    for worker in crew:
        worker.tell("go")
    done = asyncio.Event()

    async def listen(worker: WorkerProcess) -> None:
        while not done.is_set():
            said = await worker.hear()
            worker.handled, worker.at = said["handled"], said["at"]
            if sum(each.handled for each in crew) >= count:
                done.set()

    ears = [asyncio.create_task(listen(worker)) for worker in crew]
    over = asyncio.create_task(done.wait())
    waits: set[asyncio.Future[Any]] = {over, *ears}
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for ear in ears:
            if ear.done():
                ear.result()  # a worker that has died says so here
        await over
    finally:
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
    return max(worker.at for worker in crew) - started
