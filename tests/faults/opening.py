"""Processes that open one new file at the same moment, again and again.

python opening.py FOLDER ROUNDS
"""

from __future__ import annotations

import asyncio
import multiprocessing
import sys
from multiprocessing.synchronize import Barrier

from eventmill import App

PROCESSES = 4


async def open_file(path: str) -> None:
    async with App(f"sqlite:///{path}", name="opening"):
        pass


def main(folder: str, rounds: int, gate: Barrier) -> None:
    for number in range(rounds):
        gate.wait(30)
        asyncio.run(open_file(f"{folder}/{number}.db"))


if __name__ == "__main__":
    at_once = multiprocessing.get_context("fork")
    gate = at_once.Barrier(PROCESSES)
    processes = [
        at_once.Process(target=main, args=(sys.argv[1], int(sys.argv[2]), gate), daemon=True) for _ in range(PROCESSES)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    sys.exit(max(abs(process.exitcode or 0) for process in processes))
