"""The program that is killed: commands with ids, one after another, on one purse. It may be started any number of times.

python commanding.py URL NAME COUNT
"""

from __future__ import annotations

import asyncio
import sys

from purses import Purse, SnappedPurse

from eventmill import App


async def main(url: str, name: str, count: int) -> None:
    async with App(url, name="till") as app:
        for number in range(count):
            kind = (Purse, SnappedPurse)[number % 2]
            executed = await app.execute(kind, "a", kind.fill, number, command_id=f"{name}-{number}")
            print(number, executed.version, flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
