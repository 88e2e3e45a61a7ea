"""One clock for all machines that share a server: the server's."""

from __future__ import annotations

import logging
from typing import Any

import psycopg

from eventmill.backends.postgres.address import Address
from eventmill.core.clock import Clock, SystemClock

log = logging.getLogger("eventmill")

ASK = "SELECT extract(epoch FROM clock_timestamp())::float8"


async def follow(connection: psycopg.AsyncConnection[Any], clock: Clock, address: Address) -> None:
    """Have the clock go by the server's, where it is the machine's."""
    if isinstance(clock, SystemClock):
        asked = clock.machine()
        row = await (await connection.execute(ASK)).fetchone()
        assert row is not None
        told(clock, row[0], asked, address)


def told(clock: SystemClock, server: float, asked: float, address: Address) -> None:
    """The server has just said what time it is. asked: when it was asked, by the machine."""
    correction = clock.follow(server, asked, clock.machine())
    if correction is not None:
        log.warning(
            "this machine's clock is not that of %s: corrected by %.3f s; is it kept by NTP?", address, correction
        )
