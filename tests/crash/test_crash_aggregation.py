"""Aggregation whose process is killed at each point: every part in one coarse event, once, and every group closed."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import aggregation_program
import pytest

import eventmill
from eventmill.testing.crash import Crash, outlive

PATH = str(Path(eventmill.__file__).parents[1])
POINTS = ("transaction.begin", "handler.done", "commit.before", "commit.after", "job.claimed", "lease.taken")


def survive(url: str, folder: Path, point: str, nth: int) -> None:
    report = outlive(
        [sys.executable, aggregation_program.__file__, url],
        Crash(point, nth),
        folder,
        times=2 if nth == 1 else 1,
        environment={"PYTHONPATH": PATH},
    )
    if nth == 1:
        assert report.kills >= 1
    asyncio.run(aggregation_program.check(url))


@pytest.mark.timeout(240)
@pytest.mark.parametrize("nth", [1, 2, 5])
@pytest.mark.parametrize("point", POINTS)
def test_aggregation_survives_on_sqlite(tmp_path: Path, point: str, nth: int) -> None:
    survive(f"sqlite:///{tmp_path}/shop.db", tmp_path, point, nth)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("point", ["handler.done", "commit.before", "commit.after"])
def test_aggregation_survives_on_postgres(postgres_url: str, tmp_path: Path, point: str) -> None:
    survive(postgres_url, tmp_path, point, 2)
