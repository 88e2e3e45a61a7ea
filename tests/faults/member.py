"""A member of the readers as a process of its own: `python member.py PLACE BROKER LABEL`. SIGTERM stops it in good order."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from pathlib import Path

from relaying import reader


async def main(place: Path, broker: str, label: str) -> None:
    async with reader(place, broker, label) as app:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, app.stop)
        await app.run()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(process)d %(message)s")
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3]))
