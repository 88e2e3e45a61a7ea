"""Calling commands, in this process and in one of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from click.testing import Result

BAKERY = """
from eventmill import App, Context, Event, Settings, Transaction, fixed

app = App("sqlite:///bakery.db", name="bakery", settings=Settings(lease=1.0))

class Ordered(Event, name="bread.ordered", key="order"):
    order: str
    loaves: int = 1

@app.setup
async def tables(tx: Transaction) -> None:
    await tx.execute("CREATE TABLE IF NOT EXISTS baked (loaf TEXT, worker TEXT)")

@app.on(Ordered, retry=fixed(0.01, attempts=2))
async def bake(event: Ordered, tx: Transaction) -> None:
    if event.loaves < 0:
        raise ValueError("less than nothing: \\x1b[31mred")
    await tx.execute("INSERT INTO baked VALUES (?, ?)", (event.order, ""))
"""

Call = Callable[..., Result]
Start = Callable[..., "Running"]


def parsed(result: Result) -> Any:
    return json.loads(result.stdout)


class Running:
    """`eventmill run …` as a process of its own."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.log = folder / "log.txt"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "eventmill", "run", *arguments], cwd=folder, stderr=log, env=dict(os.environ)
            )

    def until(self, condition: Callable[[], object], *, seconds: float = 45.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.02)

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(timeout=45)
