"""A capture in the test's own process, and everything that its handlers were given."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import psycopg

from eventmill import App, Message, Settings
from eventmill.core.clock import Ids
from eventmill.patterns.cdc.capture import Capture
from eventmill.patterns.cdc.setup import initialise


class Watched:
    """seen: each message, in the order of the log."""

    def __init__(self, app: App, capture: Capture, running: asyncio.Task[None]) -> None:
        self.app = app
        self.capture = capture
        self.running = running
        self.seen: list[Message] = []

    @property
    def copied(self) -> bool:
        sessions = [capturing.session for capturing in self.app.captures.running]
        return any(session is not None and not session.progress.copying for session in sessions)

    async def until(self, condition: Callable[[list[Message]], object], seconds: float = 30.0) -> list[Message]:
        """Wait until what was seen fulfils a condition; a capture that has ended meanwhile raises what ended it."""
        async with asyncio.timeout(seconds):
            while not condition(self.seen):
                if self.running.done():
                    self.running.result()
                await asyncio.sleep(0.02)
        return self.seen

    async def count(self, number: int, seconds: float = 30.0) -> list[Message]:
        return await self.until(lambda seen: len(seen) >= number, seconds)

    def data(self, kind: str | None = None) -> list[dict[str, Any]]:
        return [json.loads(message.data) for message in self.seen if kind in (None, message.type)]


def declared(url: str, source: str, tables: Sequence[str], **options: Any) -> tuple[App, Capture]:
    app = App(url, name="watch", settings=Settings(lease=2.0))
    options.setdefault("name", "watch")
    return app, app.capture(source, tables=tables, **options)


@asynccontextmanager
async def watched(
    store: str,
    source: str,
    tables: Sequence[str],
    *,
    init: bool = True,
    anew: bool = False,
    copied: bool = True,
    **options: Any,
) -> AsyncIterator[Watched]:
    """An App that captures. copied: what follows begins when the snapshot is told."""
    app, capture = declared(store, source, tables, **options)
    seen: list[Message] = []

    @app.on(f"{capture.name}.*", group="watch.all", batch=200, concurrency=1)
    async def watch(messages: list[Message]) -> None:
        seen.extend(messages)

    async with app:
        if init:
            await initialise(app.store, capture, app.clock, Ids(app.clock), anew=anew)
        running = asyncio.create_task(app.run())
        found = Watched(app, capture, running)
        found.seen = seen
        try:
            if copied:
                await found.until(lambda _: found.copied)
            yield found
        finally:
            app.stop()
            await asyncio.gather(running, return_exceptions=True)


def run(source: str, *statements: str) -> None:
    """Each statement in a transaction of its own."""
    with psycopg.connect(source, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)  # type: ignore[arg-type]
