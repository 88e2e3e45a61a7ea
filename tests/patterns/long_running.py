"""Sagas and aggregators in a test: on which stores, and waiting for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from functools import wraps
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from eventmill import App, Settings

STORES = ("memory", "sqlite", "postgres")
SETTINGS = Settings(lease=2.0)
_numbers = count(1)

Urls = Callable[[], str]


@pytest.fixture(params=STORES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A store of the test's own, the same all through the test."""
    if request.param == "postgres":
        yield request.getfixturevalue("postgres_url")
    elif request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/shop.db"
    else:
        yield f"memory://long_running_{next(_numbers)}"


@asynccontextmanager
async def running(*apps: App) -> AsyncIterator[None]:
    """The Apps handle during the block."""
    for app in apps:
        await app.open()
    tasks = [asyncio.create_task(app.run()) for app in apps]
    try:
        yield
    finally:
        for app in apps:
            app.stop()
        await asyncio.gather(*tasks)
        for app in apps:
            await app.close()


async def until(condition: Callable[[], Awaitable[Any]], seconds: float = 20.0) -> Any:
    """Wait for something true; returns it."""
    for _ in range(int(seconds / 0.02)):
        found = await condition()
        if found:
            return found
        await asyncio.sleep(0.02)
    raise AssertionError(f"still not so after {seconds:g} s")


def in_loop(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run an `async def` test on a loop of its own."""

    @wraps(test)
    def run(*arguments: Any, **fixtures: Any) -> None:
        async def limited() -> None:
            async with asyncio.timeout(60):
                await test(*arguments, **fixtures)

        asyncio.run(limited())

    return run
