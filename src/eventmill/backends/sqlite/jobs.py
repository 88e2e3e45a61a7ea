"""Jobs: claimed, fenced and settled one by one; and what is kept for a while only."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Collection, Sequence

from eventmill.backends.sql.rows import jobs
from eventmill.backends.sqlite.connection import translated
from eventmill.backends.sqlite.database import Database
from eventmill.backends.sqlite.expiry import expire
from eventmill.backends.sqlite.open_file import STATEMENTS
from eventmill.core.crash import point
from eventmill.core.document import LAST, Document
from eventmill.core.job import AGEING, Job
from eventmill.core.reading import Pending

PRUNE_BATCH = 1_000


class SqliteJobs(Database):
    """The job part of the Store."""

    @translated
    async def claim(self, queue: str, member: str, *, limit: int, lease: float, alone: int = 1) -> Sequence[Job]:
        due = await self.next_due(queue)
        if (due is None or due > self.now()) and not self._vanished():
            return []

        def work(connection: sqlite3.Connection) -> Sequence[Job]:
            now = self.now()
            expire(connection, now)
            milliseconds = int(lease * 1000)
            connection.execute(STATEMENTS["join"], (queue, member, now + milliseconds, milliseconds))
            crashed = connection.execute(STATEMENTS["claimable_crashed"], (queue, now, alone)).fetchone()
            if crashed:
                return jobs(connection.execute(STATEMENTS["claim_some"], (member, 1, json.dumps(crashed))).fetchall())
            return self._claim(connection, queue, member, now, limit)

        claimed = await self._write(work)
        if claimed:
            point("job.claimed")
        return claimed

    def _claim(self, connection: sqlite3.Connection, queue: str, member: str, now: int, limit: int) -> Sequence[Job]:
        """The first of each priority are looked at, whatever waits behind them."""
        levels = [level for (level,) in connection.execute(STATEMENTS["priorities"], (queue,))]
        if len(levels) == 1:
            rows = connection.execute(STATEMENTS["claim"], (member, queue, now, limit, levels[0])).fetchall()
        else:
            found: list[tuple[int, int]] = []
            for level in levels:
                first = connection.execute(STATEMENTS["claimable"], (queue, level, now, limit))
                found += [(due - level * AGEING, id_) for due, id_ in first]
            ids = [id_ for _, id_ in sorted(found)[:limit]]
            rows = connection.execute(STATEMENTS["claim_some"], (member, 1, json.dumps(ids))).fetchall()
        return sorted(jobs(rows), key=lambda job: job.rank)

    @translated
    async def take(self, reference: str, member: str, *, lease: float) -> Job | None:
        def work(connection: sqlite3.Connection) -> Job | None:
            now = self.now()
            expire(connection, now)
            row = connection.execute(STATEMENTS["takeable"], (reference,)).fetchone()
            if row is None:
                return None
            id_, queue = row
            milliseconds = int(lease * 1000)
            connection.execute(STATEMENTS["join"], (queue, member, now + milliseconds, milliseconds))
            (job,) = jobs(connection.execute(STATEMENTS["claim_some"], (member, 0, json.dumps([id_]))).fetchall())
            return job

        return await self._write(work)

    @translated
    async def find(self, reference: str) -> Job | None:
        found = jobs(self.reader.execute(STATEMENTS["find_job"], (reference,)).fetchall())
        return found[0] if found else None

    def _vanished(self) -> bool:
        return self.reader.execute(STATEMENTS["expired"], (self.now(),)).fetchone() is not None

    @translated
    async def next_due(self, queue: str) -> int | None:
        due = self.reader.execute(STATEMENTS["next_due"], (queue,)).fetchone()[0]
        return None if due is None else int(due)

    @translated
    async def overdue(self, queue: str) -> Pending:
        return Pending(*self.reader.execute(STATEMENTS["overdue"], (queue, self.now())).fetchone())

    @translated
    async def occupied(self, queue: str, lanes: Collection[str]) -> Collection[str]:
        if not self.reader.execute(STATEMENTS["any_job"], (queue,)).fetchone():
            return ()
        rows = self.reader.execute(STATEMENTS["occupied"], (queue, json.dumps(list(lanes)))).fetchall()
        return {lane for (lane,) in rows}

    @translated
    async def received(self, group: str, ids: Collection[str]) -> Collection[tuple[str, str]]:
        return set(self.reader.execute(STATEMENTS["received"], (group, json.dumps(list(ids)))).fetchall())

    @translated
    async def documents(self, prefix: str, *, after: str = "", limit: int = 100) -> Sequence[Document]:
        rows = self.reader.execute(STATEMENTS["documents"], (prefix, prefix + LAST, after, limit)).fetchall()
        return [Document(*row) for row in rows]

    @translated
    async def jobs(
        self, queue: str | None = None, *, state: str | None = None, limit: int = 100, after_id: int = 0
    ) -> Sequence[Job]:
        return jobs(self.reader.execute(STATEMENTS["jobs"], (after_id, queue, state, limit)).fetchall())

    async def replay(self, ids: Collection[int]) -> int:
        now = self.now()
        return await self._dead(ids, lambda connection, id_: connection.execute(STATEMENTS["replay_job"], (now, id_)))

    async def skip(self, ids: Collection[int]) -> int:
        return await self._dead(ids, lambda connection, id_: connection.execute(STATEMENTS["finish_job"], (id_,)))

    async def _dead(self, ids: Collection[int], act: Callable[[sqlite3.Connection, int], object]) -> int:
        """Do something to those of the jobs that are dead, then let their lanes go on."""

        def work(connection: sqlite3.Connection) -> int:
            number = 0
            for id_ in ids:
                dead = connection.execute(STATEMENTS["dead_job"], (id_,)).fetchone()
                if dead is None:
                    continue
                number += 1
                act(connection, id_)
                queue, lane = dead
                if lane is not None:
                    connection.execute(STATEMENTS["next_of_lane"], (queue, lane, self.now()))
            return number

        return await self._write(work)

    @translated
    async def prune(self, *, inbox_older_than: float, dead_older_than: float) -> int:
        now = self.now()
        inbox = now - int(inbox_older_than * 1000)
        dead = now - int(dead_older_than * 1000)
        removed = 0
        while True:
            number: int = await self._write(
                lambda connection: connection.execute(STATEMENTS["prune_inbox"], (inbox, PRUNE_BATCH)).rowcount
            )
            removed += number
            if number < PRUNE_BATCH:
                break
        while ids := self.reader.execute(STATEMENTS["old_dead"], (dead, PRUNE_BATCH)).fetchall():
            removed += await self.skip([id_ for (id_,) in ids])
        return removed
