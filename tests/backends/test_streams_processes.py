"""Several processes want the same seats: ten are sold, each once."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
import seats

import eventmill
from eventmill.backends.connect import connect_store
from eventmill.core.clock import SystemClock

PROGRAMS = 4


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/seats.db"
    return str(request.getfixturevalue("postgres_url"))


@pytest.mark.parametrize("by", ["version", "tags"])
def test_ten_seats_and_four_processes(url: str, by: str) -> None:
    async def stored() -> list[str]:
        async with connect_store(url, SystemClock()) as store:
            found, _ = await store.read_all(limit=1000)
            return [record.message.id for record in found]

    assert asyncio.run(stored()) == []
    environment = {**os.environ, "PYTHONPATH": str(Path(eventmill.__file__).parents[1])}
    programs = [
        subprocess.Popen(
            [sys.executable, seats.__file__, url, str(number), by],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
        )
        for number in range(PROGRAMS)
    ]  # fmt: skip
    ends = [program.communicate(timeout=90) for program in programs]
    assert all(program.returncode == 0 for program in programs), ends
    won = [id_ for out, _ in ends for id_ in out.split()]
    assert len(won) == len(set(won)) == seats.SEATS
    assert sorted(asyncio.run(stored())) == sorted(won)
