"""The payment provider as its customers see it: a client that asks once, and says so when there was no answer."""

from __future__ import annotations

import asyncio
import json

ANSWER_WITHIN = 1.0
"""Seconds to wait for an answer."""


class NoAnswer(Exception):
    """Nobody knows whether it took place: ask again, with the same key."""


class Declined(Exception):
    """It did not take place, and will not."""


class Provider:
    """Calls the provider at `host:port`. Every call has a key: the provider does the same thing once for it."""

    def __init__(self, address: str) -> None:
        self._host, _, self._port = address.rpartition(":")

    async def charge(self, key: str, amount: int) -> None:
        """Take money. Raises Declined, NoAnswer."""
        await self._ask("charge", key, amount)

    async def void(self, key: str) -> None:
        """Give back what was charged under a key, and charge nothing under it from now on. Raises NoAnswer."""
        await self._ask("void", key, 0)

    async def pay_out(self, key: str, amount: int) -> None:
        """Give money for something else than a charge. Raises NoAnswer."""
        await self._ask("pay_out", key, amount)

    async def _ask(self, what: str, key: str, amount: int) -> None:
        try:
            async with asyncio.timeout(ANSWER_WITHIN):
                reader, writer = await asyncio.open_connection(self._host, int(self._port))
                try:
                    writer.write(json.dumps({"what": what, "key": key, "amount": amount}).encode() + b"\n")
                    answer = json.loads(await reader.readline() or b'{"error": "hung up"}')
                finally:
                    writer.close()
        except (OSError, TimeoutError, ValueError) as error:
            raise NoAnswer(f"the provider does not answer: {type(error).__name__} {error}") from error
        if "declined" in answer:
            raise Declined(answer["declined"])
        if "error" in answer:
            raise NoAnswer(f"the provider has failed: {answer['error']}")
