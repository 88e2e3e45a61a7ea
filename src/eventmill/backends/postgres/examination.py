"""What can be wrong with a PostgreSQL database that eventmill works in, and what to do about each of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from eventmill.backends.postgres.database import Database
from eventmill.backends.postgres.values import number, text

STUCK = 10.0
IDLE = 60.0
"""Seconds after which an open append, or a transaction in which nothing happens, is worth a word."""

BLOATED = 50_000
"""Dead rows in one of the small tables that are updated all the time."""


class Observation(NamedTuple):
    """One thing that was looked at. level: ok, warning or error. remedy: empty where all is well."""

    level: str
    about: str
    text: str
    remedy: str = ""


class PostgresExamination(Database):
    """The backend's part of `eventmill doctor`."""

    async def examine(self) -> Sequence[Observation]:
        """Look at an open database."""
        found = []
        ((version, autovacuum),) = await self._fetch("server")
        found.append(Observation("ok", "server", f"PostgreSQL {version}"))
        for pid, age, state, query, name in await self._fetch("stuck", number(STUCK)):
            found.append(
                Observation(
                    "error",
                    "append",
                    f"all readers wait for an append that has been open for {age or 0:.0f} s: "
                    f"pid {pid} ({name or 'a prepared transaction'}), {state or 'prepared'}: {query}",
                    f"let it commit or roll back; if nobody does, SELECT pg_terminate_backend({pid})"
                    if pid
                    else "COMMIT PREPARED or ROLLBACK PREPARED it: see pg_prepared_xacts",
                )
            )
        if len(found) == 1:
            found.append(Observation("ok", "append", f"none has been open for {STUCK:g} s"))
        for pid, age, name, query in await self._fetch("idle", number(IDLE)):
            found.append(
                Observation(
                    "warning",
                    "idle",
                    f"pid {pid} ({name}) has an open transaction in which nothing happens, for {age:.0f} s: {query}",
                    "it keeps dead rows from being removed; end it, or set idle_in_transaction_session_timeout",
                )
            )
        if autovacuum != "on":
            found.append(
                Observation(
                    "error",
                    "autovacuum",
                    "autovacuum is off: the tables grow without end",
                    "ALTER SYSTEM SET autovacuum = on",
                )
            )
        for table, dead in await self._fetch("dead_rows", text(self.address.schema or "public"), number(BLOATED)):
            found.append(
                Observation(
                    "warning",
                    "dead rows",
                    f"{table} has {dead:,} dead rows",
                    "something holds an old snapshot open (a long transaction, a replication slot): end it, then VACUUM",
                )
            )
        for gid, age, owner in await self._fetch("prepared"):
            found.append(
                Observation(
                    "warning",
                    "prepared",
                    f"transaction {gid!r} of {owner} has been prepared for {age:.0f} s, and holds its locks",
                    f"COMMIT PREPARED '{gid}' or ROLLBACK PREPARED '{gid}', whichever its coordinator has decided",
                )
            )
        if await self.server.reader.listens():
            found.append(Observation("ok", "wake-up", "by NOTIFY, with polling beneath"))
        else:
            found.append(
                Observation(
                    "ok",
                    "wake-up",
                    "by polling alone, every 3 to 50 ms: a pooler stands between, so that NOTIFY does not come through",
                )
            )
        return found
