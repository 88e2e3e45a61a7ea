"""Units share a commit, and not each other's end: one whose caller is cancelled takes nobody along."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable
from pathlib import Path

import pytest

from eventmill import App
from eventmill.backends.sqlite import writer


def test_whoever_stops_waiting_for_a_commit_leaves_it_to_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_commit = threading.Event()
    commit = writer.Writer._commit_now

    def commit_now(self: writer.Writer) -> float:
        assert may_commit.wait(30)
        return commit(self)

    async def wait(durable: Awaitable[object]) -> None:
        await durable

    async def main() -> None:
        async with App(f"sqlite:///{tmp_path}/w.db", name="shared") as app:
            monkeypatch.setattr(writer.Writer, "_commit_now", commit_now)
            # On a thread, so that somebody can wait for it.
            monkeypatch.setattr(writer.Writer, "_hops", lambda _self, _commit: True)
            waiting = []
            for key in ("first", "second"):
                unit = app.store.unit()
                unit.put(key, b"{}", expected=None)
                waiting.append(asyncio.create_task(wait(await unit.finish())))
            first, second = waiting
            await asyncio.sleep(0)
            first.cancel()
            await asyncio.sleep(0)
            may_commit.set()
            async with asyncio.timeout(10):
                with contextlib.suppress(asyncio.CancelledError):
                    await first
                await second
            async with app.transaction() as tx:
                assert await tx.get("first") is not None
                assert await tx.get("second") is not None

    asyncio.run(main())
