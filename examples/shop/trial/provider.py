"""The payment provider itself: a process of its own, with its own ledger, and faults by seed.

python provider.py LEDGER SEED FAIL

It says its port on standard output, and ends when standard input does. By seed and key, a call fails before or after
the work was done, is answered much too late, or is answered twice; from its third attempt on a call is served well.
A share FAIL of all charges goes wrong for good: half of those are declined; half are charged, and the caller never hears.
Under one key everything is done once.
"""

from __future__ import annotations

import asyncio
import json
import random
import sqlite3
import sys
from collections import Counter

LATE = 3.0
FAULTS = 0.15
"""Share of first and second attempts that go wrong."""
KINDS = ("before", "after", "late", "twice")


def fate_of(seed: str, key: str, fail: float) -> str | None:
    """How a charge goes wrong for good, if it does: `declined` or `silent`."""
    draw = random.Random(f"{seed} {key}").random()  # noqa: S311 - repeatable is the point
    return "declined" if draw < fail / 2 else "silent" if draw < fail else None


class Ledger:
    """What was charged, given back and paid out. A charge that was voided before it came is refused."""

    def __init__(self, path: str) -> None:
        self._sql = sqlite3.connect(path, isolation_level=None)
        self._sql.executescript(
            """
            PRAGMA journal_mode = WAL;
            PRAGMA synchronous = OFF;
            CREATE TABLE IF NOT EXISTS entries (
                n INTEGER PRIMARY KEY, kind TEXT NOT NULL, key TEXT NOT NULL, amount INTEGER NOT NULL, UNIQUE (kind, key)
            );
            """
        )

    def charge(self, key: str, amount: int) -> str | None:
        """Returns why not, if not."""
        if self._has("void", key):
            return "it was voided"
        self._enter("charge", key, amount)
        return None

    def void(self, key: str) -> None:
        self._enter("void", key, 0)
        for (amount,) in self._sql.execute(
            "SELECT amount FROM entries WHERE kind = 'charge' AND key = ?", (key,)
        ).fetchall():
            self._enter("refund", key, amount)

    def pay_out(self, key: str, amount: int) -> None:
        self._enter("payout", key, amount)

    def _has(self, kind: str, key: str) -> bool:
        return self._sql.execute("SELECT 1 FROM entries WHERE kind = ? AND key = ?", (kind, key)).fetchone() is not None

    def _enter(self, kind: str, key: str, amount: int) -> None:
        self._sql.execute("INSERT OR IGNORE INTO entries (kind, key, amount) VALUES (?, ?, ?)", (kind, key, amount))


class Provider:
    """Serves one call a connection, badly now and then."""

    def __init__(self, ledger: Ledger, seed: str, fail: float) -> None:
        self._ledger = ledger
        self._seed = seed
        self._fail = fail
        self._attempts: Counter[tuple[str, str]] = Counter()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            call = json.loads(await reader.readline())
            for pause, answer in self.answers(call["what"], call["key"], call["amount"]):
                await asyncio.sleep(pause)
                writer.write(json.dumps(answer).encode() + b"\n")
                await writer.drain()
        except (OSError, ValueError):
            pass  # the caller has hung up, or said nothing
        except asyncio.CancelledError:
            pass  # the provider ends; asyncio would complain of a server's task that was cancelled
        finally:
            writer.close()

    def answers(self, what: str, key: str, amount: int) -> list[tuple[float, dict[str, str]]]:
        """What to answer, each after a pause. What is to be done is done here, and at once."""
        self._attempts[what, key] += 1
        attempt = self._attempts[what, key]
        fate = None if what != "charge" else fate_of(self._seed, key, self._fail)
        if fate == "declined":
            return [(0.0, {"declined": "the card was declined"})]
        luck = random.Random(f"{self._seed} {what} {key} {attempt}").random()  # noqa: S311
        fault = None if attempt > 2 or luck >= FAULTS else KINDS[int(luck / FAULTS * len(KINDS))]
        if fault == "before":
            return [(0.0, {"error": "internal server error"})]
        done = self._do(what, key, amount)
        if fate == "silent":
            return []
        if fault == "after":
            return [(0.0, {"error": "internal server error"})]
        if fault == "late":
            return [(LATE, done)]
        return [(0.0, done)] * (2 if fault == "twice" else 1)

    def _do(self, what: str, key: str, amount: int) -> dict[str, str]:
        refusal = None
        match what:
            case "charge":
                refusal = self._ledger.charge(key, amount)
            case "void":
                self._ledger.void(key)
            case "pay_out":
                self._ledger.pay_out(key, amount)
        return {"done": what} if refusal is None else {"declined": refusal}


async def main(path: str, seed: str, fail: float) -> None:
    provider = Provider(Ledger(path), seed, fail)
    server = await asyncio.start_server(provider.serve, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], float(sys.argv[3])))
