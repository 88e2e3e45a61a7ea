"""What became of a commit whose answer was lost: found out, never guessed."""

from __future__ import annotations

import asyncio
import logging
from time import monotonic

from eventmill.backends.postgres.address import APPLICATION
from eventmill.backends.postgres.batch import Batch, Stored
from eventmill.backends.postgres.reader import Reader
from eventmill.backends.postgres.values import number, text, texts
from eventmill.core.errors import BackendUnavailableError

log = logging.getLogger("eventmill")

PAUSE = 0.05


class Outcomes:
    """Asks the server, once it is there again."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._address = reader.address

    async def committed(self, xid: str, pid: int, error: Exception) -> bool:
        """Whether a transaction has committed. Raises BackendUnavailableError where nobody can tell in time."""
        deadline = monotonic() + self._address.patience
        while monotonic() < deadline:
            await self._end(pid)
            ((status,),) = await self._reader.fetch("outcome", [text(xid)])
            if status != "in progress":
                log.warning("%s: the answer to a commit was lost; it was %s", self._address, status or "long ago")
                return bool(status == "committed")
            await asyncio.sleep(PAUSE)
        raise BackendUnavailableError(
            f"{self._address}: whether transaction {xid} was committed is not known"
        ) from error

    async def stored(self, batch: Batch) -> Stored:
        """Where those stand of a batch's messages that are stored, once its transaction cannot go on any more."""
        if batch.xid is not None:
            if not await self.committed(batch.xid, batch.pid, BackendUnavailableError("lost")):
                return {}
        else:
            await self._gone(batch.pid)
        ids = [message.id for entry in batch.published for message, _ in entry.messages]
        rows = await self._reader.fetch("stored", [number(batch.before), texts(ids)])
        return {(topic, key, id_): (position, sequence) for topic, key, id_, position, sequence in rows}

    async def _end(self, pid: int) -> None:
        """End what may still be going on at the server's end of the broken connection."""
        for _ in range(100):
            if not await self._reader.fetch("terminate", [number(pid), text(APPLICATION)]):
                return
            await asyncio.sleep(PAUSE)

    async def _gone(self, pid: int) -> None:
        """Wait until nobody appends any more who did when this began: among them what we have lost sight of."""
        await self._end(pid)
        appending = {holder for holder, _ in await self._reader.fetch("appending")}
        while appending:
            await asyncio.sleep(PAUSE)
            appending &= {holder for holder, _ in await self._reader.fetch("appending")}
