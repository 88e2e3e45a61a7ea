"""Making connections: with patience for a server that is away, and none for one that refuses."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from time import monotonic
from typing import Any

import psycopg

from eventmill.backends.postgres import faults
from eventmill.backends.postgres.address import ATTEMPT, Address
from eventmill.backends.postgres.pipeline import Pipeline
from eventmill.core.errors import BackendUnavailableError, ConfigurationError

FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0

POOLED_SILENCE = 60.0
"""Seconds that an answer may stay out where a pooler stands between."""

HOPELESS_AFTER = 3
"""Attempts after which a refusal is believed: a server that is just starting may not know its users yet."""


async def dial(address: Address) -> psycopg.AsyncConnection[Any]:
    """One attempt. Raises psycopg.OperationalError, and TimeoutError where nothing answers at all."""
    async with asyncio.timeout(2 * ATTEMPT):
        return await psycopg.AsyncConnection.connect(autocommit=True, prepare_threshold=None, **address.parameters)  # type: ignore[arg-type]


async def dial_patiently(address: Address, patience: float) -> psycopg.AsyncConnection[Any]:
    """Attempts with growing, jittered pauses. Raises BackendUnavailableError when the time (seconds) is up,
    ConfigurationError where the server refuses for a reason that time does not mend."""
    deadline = monotonic() + patience
    pause = FIRST_PAUSE
    refusals = 0
    while True:
        try:
            return await dial(address)
        except (psycopg.Error, OSError, TimeoutError) as error:
            refusals = refusals + 1 if faults.hopeless(error) else 0
            text = str(error).strip().replace("\n", " ") or type(error).__name__
            if refusals >= HOPELESS_AFTER:
                raise ConfigurationError(f"{address}: {text}") from error
            if monotonic() + pause > deadline:
                raise BackendUnavailableError(
                    f"{address}: no server answered within {patience:g} s; is it running there? ({text})"
                ) from error
        await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 - jitter, not secrecy
        pause = min(pause * 2, LONGEST_PAUSE)


async def open_pipeline(address: Address, patience: float, lost: Callable[[], None]) -> Pipeline:
    """A connection, ready for statements; the errors are those of `dial_patiently`."""
    deadline = monotonic() + patience
    while True:
        connection = await dial_patiently(address, max(deadline - monotonic(), 0.0))
        try:
            return await _pipeline(connection, address, lost)
        except faults.ConnectionLost:
            if monotonic() > deadline:
                raise


async def _pipeline(connection: psycopg.AsyncConnection[Any], address: Address, lost: Callable[[], None]) -> Pipeline:
    ready = False

    def broke() -> None:
        if ready:
            lost()

    async def alive(pipeline: Pipeline) -> bool:
        if not pipeline.direct:
            # A pooler hides whose connection is whose: only time can tell.
            return monotonic() - pipeline.heard < POOLED_SILENCE
        return await _at_work(address, pipeline.backend_pid)

    pipeline = Pipeline(connection, str(address), prepare=address.prepare, lost=broke, alive=alive)
    try:
        ((pid,),) = await pipeline.fetch(b"SELECT pg_backend_pid()")
    except BaseException:
        pipeline.close()
        raise
    pipeline.direct = pid == pipeline.backend_pid
    ready = True
    return pipeline


async def _at_work(address: Address, pid: int) -> bool:
    """Whether the server, asked on another connection, is still busy with what was sent to it."""
    try:
        connection = await dial(address)
    except (psycopg.Error, OSError, TimeoutError):
        return False
    try:
        async with asyncio.timeout(ATTEMPT):
            cursor = await connection.execute("SELECT state FROM pg_stat_activity WHERE pid = %s", (pid,))
            row = await cursor.fetchone()
    except (psycopg.Error, TimeoutError):
        return False
    finally:
        await connection.close()
    return row is not None and row[0] == "active"
