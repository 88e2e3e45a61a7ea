"""What this process knows of open groups, so that it need not read them again for each event."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping

from eventmill.core.clock import Clock
from eventmill.patterns.aggregation.record import Record, decode
from eventmill.runtime.transaction import Transaction

MOST = 50_000
"""Keys that are kept in mind."""

FORGET = 600.0
"""Seconds after which all is read afresh."""

Versioned = tuple[int, Record]


class Known:
    """Records as they were last committed from here, by their keys.

    A record that is written must still be of the version it was read in, so that one that somebody else has changed
    meanwhile is refused by the store, not overwritten. What a transaction takes is out of mind until that has finished well.
    """

    def __init__(self, prefix: str, clock: Clock) -> None:
        self._prefix = prefix
        self._clock = clock
        self._records: dict[str, Versioned] = {}
        self._since = clock.now()

    async def take(self, tx: Transaction, keys: Collection[str], *, fresh: bool) -> dict[str, Versioned]:
        """The records of some keys, of those that there are. fresh: as they are stored, whatever is known."""
        if self._clock.now() - self._since > FORGET:
            self._records.clear()
            self._since = self._clock.now()
        known = self._records
        found: dict[str, Versioned] = {}
        unknown: list[str] = []
        for key in keys:
            record = known.pop(key, None)
            if record is None or fresh:
                unknown.append(self._prefix + key)
            else:
                found[key] = record
        if unknown:
            length = len(self._prefix)
            for place, document in (await tx.get_many(unknown)).items():
                found[place[length:]] = (document.version, decode(document.data))
        return found

    def keep(self, records: Mapping[str, Versioned], durable: asyncio.Future[object]) -> None:
        """These are in line for a commit, and stand as long as that does not fail."""
        known = self._records
        known.update(records)
        for key in list(known)[: max(0, len(known) - MOST)]:
            del known[key]
        durable.add_done_callback(self._ended)

    def _ended(self, durable: asyncio.Future[object]) -> None:
        if durable.cancelled() or durable.exception() is not None:
            self._records.clear()
