"""A worker process: feeds the projection of `ledgers.bank` until it is told to stop.

python feeding.py STORE [BROKER]
"""

from __future__ import annotations

import asyncio
import sys

from ledgers import bank

from eventmill import Service

if __name__ == "__main__":
    url, *more = sys.argv[1:]
    app = bank(url, broker=more[0] if more else None)
    asyncio.run(Service([app]).run())
