"""A small service in the current folder, and a way to call commands on it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from eventmill.cli.main import cli

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


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, with the module `bakery` in it."""
    (tmp_path / "bakery.py").write_text(BAKERY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def call(folder: Path) -> Call:
    """Call a command in this process; `input` is its standard input, `code` the exit code it must have."""

    def call(*arguments: str, input: str | bytes | None = None, code: int = 0) -> Result:
        result = CliRunner().invoke(cli, list(arguments), input=input)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.output
        return result

    return call


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


@pytest.fixture
def start(folder: Path) -> Iterator[Callable[..., Running]]:
    """Start `eventmill run` with some arguments; whatever still runs at the end of the test is killed."""
    started: list[Running] = []

    def start(*arguments: str) -> Running:
        started.append(Running(folder, *arguments))
        return started[-1]

    yield start
    for running in started:
        if running.process.poll() is None:
            running.process.kill()
        running.process.wait()
