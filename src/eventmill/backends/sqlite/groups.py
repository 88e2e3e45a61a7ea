"""Groups, their members and the cursors they hold."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Collection, Mapping, Sequence

import msgspec

from eventmill.backends.sql.groups import listed
from eventmill.backends.sqlite.connection import connect, translated
from eventmill.backends.sqlite.database import Database
from eventmill.backends.sqlite.expiry import expire
from eventmill.backends.sqlite.open_file import STATEMENTS
from eventmill.core.assignment import share
from eventmill.core.claims import Balance, Cursor, Group
from eventmill.core.crash import point
from eventmill.core.message import Partition
from eventmill.core.reading import Types
from eventmill.core.rows import Rows, SqlParameters


class SqliteGroups(Database):
    """The cursor part of the Store."""

    @translated
    async def enroll(self, group: str, types: Types | None, partitions: Collection[Partition]) -> None:
        known = self.reader.execute(STATEMENTS["cursors"], (group,)).fetchall()
        places = {(topic, number) for topic, number, *_ in known}
        described = None if types is None else msgspec.json.encode(types).decode()
        stored = self.reader.execute("SELECT types FROM eventmill_groups WHERE grp = ?", (group,)).fetchone()
        if stored == (described,) and places.issuperset(partitions):
            return

        def work(connection: sqlite3.Connection) -> None:
            connection.execute(STATEMENTS["enroll_group"], (group, described))
            connection.executemany(STATEMENTS["enroll_cursor"], [(group, *partition) for partition in partitions])

        await self._write(work)

    @translated
    async def generation(self, group: str) -> int:
        row = self.reader.execute(STATEMENTS["generation"], (group, self.now())).fetchone()
        return int(row[0]) if row else 0

    async def balance(self, group: str, member: str, partitions: Collection[Partition], lease: float) -> Balance:
        wanted = set(partitions)

        def work(connection: sqlite3.Connection) -> Balance:
            now = self.now()
            expire(connection, now)
            names = {name for (name,) in connection.execute(STATEMENTS["members"], (group,))}
            if member not in names:
                connection.execute(STATEMENTS["bump"], (group,))
            milliseconds = int(lease * 1000)
            connection.execute(STATEMENTS["join"], (group, member, now + milliseconds, milliseconds))
            cursors = {
                Partition(topic, number): rest
                for topic, number, *rest in connection.execute(STATEMENTS["cursors"], (group,))
                if (topic, number) in wanted
            }
            holders = {partition: rest[2] for partition, rest in cursors.items()}
            take, give = share(member, names, holders)
            connection.executemany(STATEMENTS["acquire"], [(member, group, *partition) for partition in take])
            acquired = []
            for partition in take:
                position, ahead, _, token, abandoned = cursors[partition]
                acquired.append(Cursor(partition, position, json.loads(ahead), token + 1, abandoned))
            held = {partition: rest[3] for partition, rest in cursors.items() if rest[2] == member}
            held.update({cursor.partition: cursor.token for cursor in acquired})
            return Balance(acquired, give, held)

        balance = await self._write(work)
        if balance.acquired:
            point("lease.taken")
        return balance

    async def release(self, group: str, member: str, partitions: Collection[Partition] | None) -> None:
        def work(connection: sqlite3.Connection) -> None:
            if partitions is None:
                connection.execute(STATEMENTS["release_cursors"], (group, member))
                connection.execute(STATEMENTS["release_jobs"], (group, member))
                connection.execute(STATEMENTS["drop_member"], (group, member))
            else:
                connection.executemany(
                    STATEMENTS["release_cursor"], [(group, *partition, member) for partition in partitions]
                )
            connection.execute(STATEMENTS["bump"], (group,))

        point("lease.release")
        await self._write(work)

    def beat(self, members: Collection[str], lease: float) -> None:
        self.writer.beating[id(self)] = json.dumps(list(members)), int(lease * 1000)
        with self._beating:
            if self._beater is None:
                self._beater = connect(self.path, synchronous=self._synchronous)
            milliseconds = int(lease * 1000)
            until = time.monotonic() + 3 * lease
            while True:
                try:
                    self._beater.execute(
                        STATEMENTS["beat"], (self.now() + milliseconds, milliseconds, json.dumps(list(members)))
                    )
                    return
                except sqlite3.OperationalError as error:
                    if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                        raise
                # SQLite's own waiting looks ten times a second: writers that follow each other closely would never let it in.
                time.sleep(0.001)

    async def bury(self, incarnation: str) -> None:
        def work(connection: sqlite3.Connection) -> None:
            connection.execute(STATEMENTS["bury"], (f"{incarnation}/",))
            expire(connection, self.now())

        await self._write(work)

    @translated
    async def cursors(self, group: str) -> Mapping[Partition, int]:
        rows = self.reader.execute(STATEMENTS["cursors"], (group,)).fetchall()
        return {Partition(topic, number): position for topic, number, position, *_ in rows}

    async def query(self, sql: str, parameters: SqlParameters = ()) -> Rows:
        def read(connection: sqlite3.Connection) -> Rows:
            cursor = connection.execute(sql, parameters)
            rows = Rows(cursor.fetchall())
            rows.columns = tuple(column[0] for column in cursor.description or ())
            return rows

        return await self._scan(read)

    @translated
    async def primary_key(self, table: str) -> Sequence[str]:
        return [name for (name,) in self.reader.execute(STATEMENTS["primary_key"], (table,)).fetchall()]

    @translated
    async def groups(self) -> Sequence[Group]:
        execute = self.reader.execute
        return listed(
            job_counts=execute(STATEMENTS["job_counts"]).fetchall(),
            live_members=execute(STATEMENTS["live_members"], (self.now(),)).fetchall(),
            cursors=execute(STATEMENTS["all_cursors"]).fetchall(),
            groups=execute(STATEMENTS["groups"]).fetchall(),
        )

    async def forget(self, group: str) -> None:
        def work(connection: sqlite3.Connection) -> None:
            for part in ("", "_members", "_cursors", "_watermarks", "_jobs", "_inbox"):
                connection.execute(STATEMENTS[f"forget{part}"], (group,))

        await self._write(work)
