"""Commands of several processes on one entity, killed and begun again: each is in the stream once, whoever was faster."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from purses import Purse, check_every_version, naive

from eventmill import App

HERE = Path(__file__).parent
COUNT = 60
NAMES = ("one", "two", "three")


class Till:
    """One of the processes."""

    def __init__(self, url: str, name: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "commanding.py"), url, name, str(COUNT)],
            stdout=subprocess.PIPE, text=True, env=dict(os.environ),
        )  # fmt: skip

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


def work(url: str, rng: random.Random) -> None:
    """Three at once; each is killed a few times in the middle, and begun again from its first command."""
    tills = {name: Till(url, name) for name in NAMES}
    try:
        for _ in range(6):
            time.sleep(0.4 + 0.3 * rng.random())
            name = rng.choice(NAMES)
            tills[name].kill()
            tills[name] = Till(url, name)
        for till in tills.values():
            out, _ = till.process.communicate(timeout=90)
            assert till.process.returncode == 0
            assert len(out.splitlines()) == COUNT
    finally:
        for till in tills.values():
            till.kill()


def check(url: str) -> None:
    async def look() -> None:
        async with App(url, name="till") as app:
            facts = await app.history(Purse, "a")
            assert len(facts) == COUNT * len(NAMES)
            assert len({fact.message.id for fact in facts}) == len(facts)
            assert naive(facts)[1] == sum(range(COUNT)) * len(NAMES)
            await check_every_version(app, "a")

    asyncio.run(look())


@pytest.mark.timeout(180)
def test_on_a_file(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'till.db'}"
    work(url, random.Random(4))
    check(url)


@pytest.mark.timeout(180)
def test_on_postgres(postgres_url: str) -> None:
    work(postgres_url, random.Random(5))
    check(postgres_url)
