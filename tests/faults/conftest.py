from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import mill as program
import pytest
from workers import Mill


@pytest.fixture
def mill(tmp_path: Path) -> Iterator[Mill]:
    """A mill without workers yet; whatever still runs at the end of the test is killed."""

    async def create() -> None:
        async with program.mill(tmp_path):
            pass

    asyncio.run(create())
    made = Mill(tmp_path)
    yield made
    made.kill()
