"""A caller that nobody joins: what it is spared, and what others are not kept from."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path

import pytest

from eventmill import App, Event
from eventmill.backends.sqlite import alone, writer

CALLS = 40


class LoneNoted(Event, name="lone.noted", key="account"):
    account: str


async def rounds(path: Path, callers: int) -> tuple[int, int]:
    """Rounds of the event loop, and commits, while so many callers publish one message after another."""
    turned = 0
    counting = True

    def turn() -> None:
        nonlocal turned
        turned += 1
        if counting:
            loop.call_soon(turn)

    async def call(app: App) -> None:
        for number in range(CALLS):
            assert await app.publish(LoneNoted(f"account{number}"))

    loop = asyncio.get_running_loop()
    async with App(f"sqlite:///{path}", name="lone") as app:
        before = app.store.writer.commits  # type: ignore[union-attr]
        loop.call_soon(turn)
        await asyncio.gather(*(call(app) for _ in range(callers)))
        counting = False
        return turned, app.store.writer.commits - before  # type: ignore[union-attr]


@pytest.fixture(autouse=True)
def fast_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "SLOW_COMMIT", math.inf)


def test_a_lone_caller_is_committed_where_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alone, "STRETCH", math.inf)
    turned, commits = asyncio.run(rounds(tmp_path / "lone.db", callers=1))
    assert commits == CALLS
    assert turned < CALLS / 2  # two rounds for each of the first few, and none after them


def test_a_lone_caller_gives_way_when_its_stretch_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alone, "STRETCH", 0.0)
    turned, _ = asyncio.run(rounds(tmp_path / "lone.db", callers=1))
    assert turned >= CALLS


def test_callers_who_come_together_share_commits_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alone, "STRETCH", math.inf)
    _, commits = asyncio.run(rounds(tmp_path / "lone.db", callers=16))
    assert commits <= CALLS + alone.ROW
