"""Jobs: claimed, fenced and settled one by one; and what is kept for a while only."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence

from eventmill.backends.postgres.database import Database
from eventmill.backends.postgres.values import int4s, int8s, number, text, texts
from eventmill.backends.sql.rows import jobs
from eventmill.core.crash import point
from eventmill.core.document import LAST, Document
from eventmill.core.job import AGEING, Job
from eventmill.core.reading import Pending

PRUNE_BATCH = 1_000


class PostgresJobs(Database):
    """The job part of the Store."""

    async def claim(self, queue: str, member: str, *, limit: int, lease: float, alone: int = 1) -> Sequence[Job]:
        expired, levels = await asyncio.gather(
            self._fetch("expired", number(self.now())), self._fetch("due", text(queue))
        )
        if min((due for _, due in levels), default=self.now() + 1) > self.now() and not expired:
            return []
        milliseconds = int(lease * 1000)
        async with self._own() as unit:
            # Members change one at a time; where nobody has vanished, claims pass each other by.
            now = self.now()
            if expired:
                await unit.fetch("lock_members")
                await unit.fetch("expire", number(now))
                levels = await unit.fetch("due", text(queue))
            priorities = int4s([level for level, _ in levels])
            await unit.enter()
            _, rows = await asyncio.gather(
                unit.fetch("join", text(queue), text(member), number(now + milliseconds), number(milliseconds)),
                unit.fetch(
                    "claim",
                    text(member),
                    text(queue),
                    number(now),
                    number(limit),
                    priorities,
                    number(alone),
                    number(AGEING),
                ),
            )
        claimed = sorted(jobs(rows), key=lambda job: job.rank)
        if claimed:
            point("job.claimed")
        return claimed

    async def next_due(self, queue: str) -> int | None:
        return min((int(due) for _, due in await self._fetch("due", text(queue))), default=None)

    async def overdue(self, queue: str) -> Pending:
        ((number_, oldest),) = await self._fetch("overdue", text(queue), number(self.now()))
        return Pending(int(number_), None if oldest is None else int(oldest))

    async def take(self, reference: str, member: str, *, lease: float) -> Job | None:
        milliseconds = int(lease * 1000)
        async with self._own() as unit:
            now = self.now()
            await unit.fetch("lock_members")
            await unit.fetch("expire", number(now))
            found = jobs(await unit.fetch("take", text(member), text(reference)))
            if not found:
                return None
            (job,) = found
            await unit.fetch("join", text(job.queue), text(member), number(now + milliseconds), number(milliseconds))
        return job

    async def find(self, reference: str) -> Job | None:
        found = jobs(await self._fetch("find_job", text(reference)))
        return found[0] if found else None

    async def occupied(self, queue: str, lanes: Collection[str]) -> Collection[str]:
        if not lanes:
            return ()
        return {lane for (lane,) in await self._fetch("occupied", text(queue), texts(lanes))}

    async def received(self, group: str, ids: Collection[str]) -> Collection[tuple[str, str]]:
        if not ids:
            return ()
        return {(id_, source) for id_, source in await self._fetch("received", text(group), texts(ids))}

    async def documents(self, prefix: str, *, after: str = "", limit: int = 100) -> Sequence[Document]:
        rows = await self._fetch("documents", text(prefix), text(prefix + LAST), text(after), number(limit))
        return [Document(*row) for row in rows]

    async def jobs(
        self, queue: str | None = None, *, state: str | None = None, limit: int = 100, after_id: int = 0
    ) -> Sequence[Job]:
        return jobs(await self._fetch("jobs", number(after_id), text(queue), text(state), number(limit)))

    async def replay(self, ids: Collection[int]) -> int:
        return await self._dead(ids, skip=False)

    async def skip(self, ids: Collection[int]) -> int:
        return await self._dead(ids, skip=True)

    async def _dead(self, ids: Collection[int], *, skip: bool) -> int:
        """Do something to those of the jobs that are dead, then let their lanes go on."""
        if not ids:
            return 0
        wanted = int8s(list(ids))
        async with self._own() as unit:
            lanes = await unit.fetch("dead_lanes", wanted)
            queues_and_lanes = (texts([queue for queue, _ in lanes]), texts([lane for _, lane in lanes]))  # type: ignore[misc]
            await unit.fetch("lock_lanes", *queues_and_lanes)
            dead = await unit.fetch("dead_jobs", wanted)
            found = int8s([id_ for id_, _, _ in dead])  # type: ignore[misc]
            if skip:
                await unit.fetch("drop_jobs", found)
            else:
                await unit.fetch("replay_jobs", number(self.now()), found)
            await unit.fetch("go_on", *queues_and_lanes, number(self.now()))
        return len(dead)

    async def prune(self, *, inbox_older_than: float, dead_older_than: float) -> int:
        now = self.now()
        removed = 0
        while True:
            async with self._own() as unit:
                result = await unit.fetch(
                    "prune_inbox", number(now - int(inbox_older_than * 1000)), number(PRUNE_BATCH)
                )
            removed += len(result)
            if len(result) < PRUNE_BATCH:
                break
        while ids := await self._fetch("old_dead", number(now - int(dead_older_than * 1000)), number(PRUNE_BATCH)):
            removed += await self.skip([id_ for (id_,) in ids])
        return removed
