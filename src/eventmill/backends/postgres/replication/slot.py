"""What a capture has on the server: a publication (which tables) and a replication slot (from where on)."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import psycopg
from psycopg import errors, sql

from eventmill.backends.postgres.replication.connection import Connection
from eventmill.backends.postgres.replication.lsn import lsn_of
from eventmill.backends.postgres.replication.tables import AGAIN, identifier
from eventmill.core.changes import Health, Shape
from eventmill.core.errors import BackendError, ConfigurationError

_HEALTH = """
SELECT s.active, coalesce(s.wal_status, 'lost'), coalesce(pg_wal_lsn_diff(l.head, s.restart_lsn), 0)::bigint,
       coalesce(s.confirmed_flush_lsn, '0/0')::text, l.head::text, coalesce(s.active_pid, 0)
FROM (SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END AS head) AS l
LEFT JOIN pg_replication_slots s ON s.slot_name = %s
"""
_MISSING = f"changes are missing from there on: begin anew with a new snapshot: {AGAIN}"

_PUBLICATION = """
SELECT p.pubinsert AND p.pubupdate AND p.pubdelete AND p.pubtruncate AND p.pubviaroot FROM pg_publication p
WHERE p.pubname = %s
"""
_PUBLISHED = """
SELECT r.prrelid::bigint, to_jsonb(r) ->> 'prqual' IS NOT NULL OR to_jsonb(r) ->> 'prattrs' IS NOT NULL
FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid WHERE p.pubname = %s
"""


class Slot:
    """The publication and the slot of one capture, both called `eventmill_<name>`."""

    def __init__(self, connection: Connection, where: str, name: str) -> None:
        self._connection = connection
        self._where = where
        self.name = f"eventmill_{name.replace('-', '_')}"

    async def health(self, shapes: Collection[Shape] = ()) -> Health:
        row = await (await self._connection.execute(_HEALTH, (self.name,))).fetchone()
        assert row is not None
        active, status, retained, confirmed, head, _ = row
        if active is None:
            return Health(present=False, head=lsn_of(head))
        return Health(
            present=True,
            active=active,
            retained=retained,
            confirmed=lsn_of(confirmed),
            head=lsn_of(head),
            status=status,
            lost=status == "lost",
            gap=await self._gap(shapes) if shapes else "",
        )

    async def _gap(self, shapes: Collection[Shape]) -> str:
        """Why changes of some of these tables are not sent any more, or nothing."""
        whole = await (await self._connection.execute(_PUBLICATION, (self.name,))).fetchone()
        if whole is None:
            return f"publication {self.name} is gone"
        if not whole[0]:
            return (
                f"publication {self.name} was altered: it must publish insert, update, delete, truncate, via the root"
            )
        rows = await (await self._connection.execute(_PUBLISHED, (self.name,))).fetchall()
        narrowed = dict(rows)
        for shape in shapes:
            if narrowed.get(shape.id):
                return f"publication {self.name} was altered: it has a filter or a list of columns for {shape.name}"
            if shape.id not in narrowed:
                found = await self._connection.execute("SELECT FROM pg_class WHERE oid = %s", (shape.id,))
                if await found.fetchone() is None:
                    return f"table {shape.name} was dropped"
                return f"table {shape.name} was taken out of publication {self.name}"
        return ""

    async def create(self, shapes: Sequence[Shape], *, anew: bool) -> int:
        """The publication first: what a slot decodes, it decodes with the publications of that moment."""
        await self._check_server()
        if (await self.health()).present:
            if not anew:
                raise ConfigurationError(
                    f"{self._where}: slot {self.name} is there already, for a capture that this store does not know; "
                    f"if it is no other service's, drop it and begin anew: {AGAIN}"
                )
            await self.drop()
        await self.publish(shapes)
        try:
            cursor = await self._connection.execute(
                "SELECT lsn::text FROM pg_create_logical_replication_slot(%s, 'pgoutput')", (self.name,)
            )
        except errors.InsufficientPrivilege as error:
            raise ConfigurationError(
                f"{self._where}: {str(error).strip()}; run: ALTER ROLE {self._connection.info.user} REPLICATION"
            ) from error
        except errors.ConfigurationLimitExceeded as error:
            raise ConfigurationError(
                f"{self._where}: all replication slots are in use; raise max_replication_slots, or drop one"
            ) from error
        row = await cursor.fetchone()
        assert row is not None
        return lsn_of(row[0])

    async def _check_server(self) -> None:
        row = await (await self._connection.execute("SELECT current_setting('wal_level')")).fetchone()
        assert row is not None
        if row[0] != "logical":
            raise ConfigurationError(
                f"{self._where}: wal_level is {row[0]}; set wal_level = logical in postgresql.conf and restart the server"
            )

    async def adjust(self, shapes: Sequence[Shape], kept: Sequence[Shape]) -> None:
        """As `publish`, where everything of the tables that are kept was sent until now."""
        gap = await self._gap(kept) if kept else ""
        if gap:
            raise ConfigurationError(f"{self._where}: {gap}; {_MISSING}")
        await self.publish(shapes)

    async def publish(self, shapes: Sequence[Shape]) -> None:
        """Have the publication name exactly these tables."""
        name = sql.Identifier(self.name)
        tables = sql.SQL(", ").join(await self._named(shapes))
        there = await (
            await self._connection.execute(
                "SELECT (SELECT array_agg(r.prrelid::bigint) FROM pg_publication_rel r WHERE r.prpubid = p.oid)"
                " FROM pg_publication p WHERE p.pubname = %s",
                (self.name,),
            )
        ).fetchone()
        if there is None:
            command = sql.SQL("CREATE PUBLICATION {} FOR TABLE {} WITH (publish_via_partition_root = true)").format(
                name, tables
            )
        elif set(there[0] or ()) == {shape.id for shape in shapes}:
            return
        else:
            command = sql.SQL("ALTER PUBLICATION {} SET TABLE {}").format(name, tables)
        try:
            await self._connection.execute(command)
        except errors.InsufficientPrivilege as error:
            raise ConfigurationError(
                f"{self._where}: {str(error).strip()}; let the tables' owner run: {command.as_string(None)}"
            ) from error

    async def _named(self, shapes: Sequence[Shape]) -> list[sql.Composable]:
        """The tables without those that inherit from them, which are tables of their own; partitions are not."""
        found = await self._connection.execute(
            "SELECT oid::bigint FROM pg_class WHERE relkind = 'p' AND oid = ANY(%s)", ([shape.id for shape in shapes],)
        )
        whole = {oid for (oid,) in await found.fetchall()}
        return [sql.SQL("{}" if shape.id in whole else "ONLY {}").format(identifier(shape.name)) for shape in shapes]

    async def drop(self) -> None:
        """The slot, whoever reads it, and the publication."""
        await self.free()
        try:
            await self._connection.execute(
                "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = %s",
                (self.name,),
            )
        except psycopg.errors.ObjectInUse as error:
            raise BackendError(f"{self._where}: slot {self.name} is still read: {str(error).strip()}") from error
        try:
            await self._connection.execute(sql.SQL("DROP PUBLICATION IF EXISTS {}").format(sql.Identifier(self.name)))
        except errors.InsufficientPrivilege as error:
            raise ConfigurationError(
                f"{self._where}: the slot is dropped; let its owner run: DROP PUBLICATION {self.name} ({error})"
            ) from error

    async def free(self) -> None:
        """End the connection that reads the slot: its process lost its lease, or is gone and the server does not know."""
        await self._connection.execute(
            "SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots"
            " WHERE slot_name = %s AND active_pid IS NOT NULL",
            (self.name,),
        )

    async def check(self, position: int, shapes: Collection[Shape]) -> None:
        """Refuse to go on where something is missing between the position and what the slot still has."""
        health = await self.health(shapes)
        if not health.present:
            raise ConfigurationError(f"{self._where}: slot {self.name} is gone; {_MISSING}")
        if health.lost:
            raise ConfigurationError(
                f"{self._where}: slot {self.name} is lost: the server has removed the log it needed "
                f"(max_slot_wal_keep_size); {_MISSING}"
            )
        if health.confirmed > position:
            raise ConfigurationError(
                f"{self._where}: slot {self.name} was read by somebody else, or made again, and is beyond this capture; {_MISSING}"
            )
        if health.head < position:
            raise ConfigurationError(
                f"{self._where}: the server is behind what was captured from it (restored, or failed over to a late "
                f"standby?), so what was captured is not true there; {_MISSING}"
            )
        if health.gap:
            raise ConfigurationError(f"{self._where}: {health.gap}; {_MISSING}")
