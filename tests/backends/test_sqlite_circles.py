"""What a unit of work held is free as soon as its commit is over, without waiting for the garbage collector."""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path

from eventmill import App
from eventmill.backends.sqlite.unit import SqliteUnit


def test_a_unit_is_not_part_of_a_circle(tmp_path: Path) -> None:
    """It holds its messages: in a large transaction of a captured source that was hundreds of megabytes."""

    async def work(app: App, number: int) -> None:
        unit = app.store.unit()
        unit.put("key", str(number).encode(), expected=None)
        await (await unit.finish())

    async def main() -> None:
        async with App(f"sqlite:///{tmp_path}/w.db", name="circles") as app:
            gc.collect()
            gc.disable()
            try:
                for number in range(3):
                    await work(app, number)
                # By type: asking isinstance would wake whatever lazy object of another library is alive.
                assert [each for each in gc.get_objects() if type(each) is SqliteUnit] == []
            finally:
                gc.enable()

    asyncio.run(main())
