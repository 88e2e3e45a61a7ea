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
    connection = await dial_patiently(address, patience)
    return Pipeline(connection, str(address), prepare=address.prepare, lost=lost)
