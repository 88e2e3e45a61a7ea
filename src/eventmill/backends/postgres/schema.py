"""Bringing a database's schema up to date, whoever comes first."""

from __future__ import annotations

import time
from typing import Any

import psycopg

from eventmill.backends.postgres.address import Address
from eventmill.backends.sql import migrations
from eventmill.core.errors import BackendError, ConfigurationError

_STEPS = migrations.load("eventmill.backends.postgres.migrations")

OLDEST = 150000
"""The oldest server that will do, as `server_version` counts."""

_LOCK = "SELECT pg_advisory_xact_lock(1835821167, hashtext(%s))"


async def applied(connection: psycopg.AsyncConnection[Any], address: Address) -> dict[int, str]:
    """The steps this schema has had, with their checksums; empty for one without our tables."""
    found = await connection.execute("SELECT to_regclass(%s)", (f"{address.quoted}.eventmill_schema",))
    row = await found.fetchone()
    if row is None or row[0] is None:
        return {}
    rows = await connection.execute(f"SELECT version, checksum FROM {address.quoted}.eventmill_schema")  # noqa: S608
    return dict(await rows.fetchall())


async def check(connection: psycopg.AsyncConnection[Any], address: Address) -> None:
    """Refuse a database that was never initialised, or whose schema this code does not know."""
    if migrations.pending(_STEPS, await applied(connection, address), str(address)):
        raise ConfigurationError(f"{address} has no eventmill schema yet: open it with an App first")


async def migrate(connection: psycopg.AsyncConnection[Any], address: Address) -> None:
    """Apply what is missing, in one transaction. Several processes may do this at once: a lock lets one go first."""
    version = connection.info.server_version
    if version < OLDEST:
        raise ConfigurationError(
            f"{address}: PostgreSQL {version // 10000} is too old; eventmill needs {OLDEST // 10000} or newer"
        )
    if not migrations.pending(_STEPS, await applied(connection, address), str(address)):
        return
    try:
        async with connection.transaction():
            await connection.execute(_LOCK, (address.quoted,))
            if address.schema is not None:
                await connection.execute(f"CREATE SCHEMA IF NOT EXISTS {address.quoted}")
            await connection.execute(
                f"CREATE TABLE IF NOT EXISTS {address.quoted}.eventmill_schema"
                " (version integer PRIMARY KEY, checksum text NOT NULL, applied_at bigint NOT NULL)"
            )
            for step in migrations.pending(_STEPS, await applied(connection, address), str(address)):
                await connection.execute(step.text.replace("{schema}", address.quoted))
                await connection.execute(
                    f"INSERT INTO {address.quoted}.eventmill_schema VALUES (%s, %s, %s)",  # noqa: S608
                    (step.version, step.checksum, int(time.time() * 1000)),
                )
    except psycopg.errors.InsufficientPrivilege as error:
        raise ConfigurationError(
            f"{address}: this user may not create eventmill's tables: {str(error).strip()}; "
            f"GRANT CREATE ON SCHEMA {address.quoted} to it, or open it once as a user who may"
        ) from error
    except psycopg.Error as error:
        raise BackendError(f"{address}: the schema could not be brought up to date: {str(error).strip()}") from error
