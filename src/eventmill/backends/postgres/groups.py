"""Groups, their members and the cursors they hold."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence

import msgspec

from eventmill.backends.postgres.database import Database
from eventmill.backends.postgres.deadlocks import tried_again
from eventmill.backends.postgres.values import Value, int4s, number, text, texts
from eventmill.backends.sql.groups import listed
from eventmill.core.assignment import share
from eventmill.core.claims import Balance, Cursor, Group
from eventmill.core.crash import point
from eventmill.core.message import Partition
from eventmill.core.reading import Types
from eventmill.core.rows import Rows, SqlParameters


def _places(partitions: Collection[Partition]) -> tuple[Value, Value]:
    return texts([partition.topic for partition in partitions]), int4s([partition.number for partition in partitions])


class PostgresGroups(Database):
    """The cursor part of the Store. Whoever changes members or holders does so one at a time, under a lock."""

    @tried_again
    async def enroll(self, group: str, types: Types | None, partitions: Collection[Partition]) -> None:
        known = {(topic, part) for topic, part, *_ in await self._fetch("cursors", text(group))}
        described = None if types is None else msgspec.json.encode(types).decode()
        stored = await self._fetch("group_types", text(group))
        if stored == [(described,)] and known.issuperset(partitions):
            return
        async with self._own() as unit:
            await unit.fetch("enroll_group", text(group), text(described))
            await unit.fetch("enroll_cursors", text(group), *_places(partitions))

    async def generation(self, group: str) -> int:
        rows = await self._fetch("generation", text(group), number(self.now()))
        return int(rows[0][0]) if rows else 0

    @tried_again
    async def balance(self, group: str, member: str, partitions: Collection[Partition], lease: float) -> Balance:
        wanted = set(partitions)
        milliseconds = int(lease * 1000)
        async with self._own() as unit:
            await unit.fetch("lock_members")
            now = self.now()
            await unit.fetch("expire", number(now))
            names = {str(name) for (name,) in await unit.fetch("members", text(group))}
            if member not in names:
                await unit.fetch("bump", text(group))
            await unit.fetch("join", text(group), text(member), number(now + milliseconds), number(milliseconds))
            holders: dict[Partition, str | None] = {}
            held: dict[Partition, int] = {}
            for topic, part, _, _, holder, token, _ in await unit.fetch("cursors", text(group)):
                partition = Partition(topic, part)  # type: ignore[arg-type]
                if partition in wanted:
                    holders[partition] = holder  # type: ignore[assignment]
                    if holder == member:
                        held[partition] = token  # type: ignore[assignment]
            take, give = share(member, names, holders)
            rows = await unit.fetch("acquire", text(member), text(group), *_places(take)) if take else []
            acquired = [
                Cursor(Partition(topic, part), position, json.loads(ahead), token, abandoned)  # type: ignore[arg-type]
                for topic, part, position, ahead, token, abandoned in rows
            ]
            held.update({cursor.partition: cursor.token for cursor in acquired})
        if acquired:
            point("lease.taken")
        return Balance(acquired, give, held)

    @tried_again
    async def release(self, group: str, member: str, partitions: Collection[Partition] | None) -> None:
        point("lease.release")
        async with self._own() as unit:
            await unit.fetch("lock_members")
            if partitions is None:
                await unit.fetch("release_cursors", text(group), text(member))
                await unit.fetch("release_jobs", text(group), text(member))
                await unit.fetch("drop_member", text(group), text(member))
            else:
                await unit.fetch("release_some", text(member), text(group), *_places(partitions))
            await unit.fetch("bump", text(group))

    def beat(self, members: Collection[str], lease: float) -> None:
        milliseconds = int(lease * 1000)
        self._beater.run("beat", [number(self.now() + milliseconds), number(milliseconds), texts(members)])

    @tried_again
    async def bury(self, incarnation: str) -> None:
        async with self._own() as unit:
            await unit.fetch("lock_members")
            await unit.fetch("bury", text(f"{incarnation}/"))
            await unit.fetch("expire", number(self.now()))

    async def cursors(self, group: str) -> Mapping[Partition, int]:
        rows = await self._fetch("cursors", text(group))
        return {Partition(topic, part): position for topic, part, position, *_ in rows}

    async def query(self, sql: str, parameters: SqlParameters = ()) -> Rows:
        async with self._own() as unit:
            return await unit.execute(sql, parameters)

    async def primary_key(self, table: str) -> Sequence[str]:
        return [str(name) for (name,) in await self._fetch("primary_key", text(table), text(self.address.schema))]

    async def groups(self) -> Sequence[Group]:
        return listed(
            job_counts=await self._fetch("job_counts"),
            live_members=await self._fetch("live_members", number(self.now())),
            cursors=await self._fetch("all_cursors"),
            groups=await self._fetch("groups"),
        )

    @tried_again
    async def forget(self, group: str) -> None:
        async with self._own() as unit:
            await unit.fetch("lock_members")
            for part in ("", "_members", "_cursors", "_watermarks", "_jobs", "_inbox"):
                await unit.fetch(f"forget{part}", text(group))
