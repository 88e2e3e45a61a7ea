"""Renewing leases from whichever thread: on a connection of its own, with no event loop and no endless wait."""

from __future__ import annotations

import select
import threading
from collections.abc import Sequence
from time import monotonic
from typing import Any

import psycopg
from psycopg import pq

from eventmill.backends.postgres import faults, server_clock
from eventmill.backends.postgres.address import ATTEMPT, Address
from eventmill.backends.postgres.sql import statements
from eventmill.backends.postgres.values import Value
from eventmill.core.clock import Clock, SystemClock
from eventmill.core.errors import BackendError

ANSWER = 5.0
"""Seconds to wait for an answer before another connection is made."""


class Beater:
    """Runs one statement at a time, and makes its connection anew when it breaks."""

    def __init__(self, address: Address, clock: Clock) -> None:
        self._address = address
        self._clock = clock
        self._sql = statements(address.quoted)
        self._lock = threading.Lock()
        self._connection: psycopg.Connection[Any] | None = None

    def run(self, name: str, values: Sequence[Value]) -> None:
        """Raises BackendError where two connections in a row do not answer."""
        with self._lock:
            for attempt in (1, 2):
                try:
                    if self._connection is None:
                        self._connection = psycopg.connect(autocommit=True, **self._address.parameters)  # type: ignore[arg-type]
                    self._ask(self._connection.pgconn, self._sql[name], values)
                    self._follow(self._connection.pgconn)
                    return
                except (psycopg.Error, OSError, TimeoutError) as error:
                    self._drop()
                    if attempt == 2:
                        raise faults.translated(error, str(self._address)) from error

    def _follow(self, pg: pq.abc.PGconn) -> None:
        """Machines' clocks drift apart while they run."""
        if isinstance(self._clock, SystemClock):
            asked = self._clock.machine()
            said = self._ask(pg, server_clock.ASK.encode(), ())
            if said is not None:
                server_clock.told(self._clock, float(said), asked, self._address)

    def _ask(self, pg: pq.abc.PGconn, sql: bytes, values: Sequence[Value]) -> bytes | None:
        """The first value of the answer, as text."""
        types, formats, parameters = zip(*values, strict=True) if values else ((), (), ())
        pg.send_query_params(sql, parameters, types, formats, 0)
        pg.flush()
        first = None
        deadline = monotonic() + ANSWER
        while True:
            while pg.is_busy():
                left = deadline - monotonic()
                if left <= 0 or not select.select([pg.socket], [], [], left)[0]:
                    raise TimeoutError(f"no answer within {ANSWER:g} s")
                pg.consume_input()
            result = pg.get_result()
            if result is None:
                return first
            if result.status not in (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK):
                raise faults.of_result(result)
            if result.ntuples and result.nfields:
                first = result.get_value(0, 0)

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def close(self) -> None:
        # A beat that is under way ends by itself within its time.
        if self._lock.acquire(timeout=2 * (ANSWER + ATTEMPT)):
            try:
                self._drop()
            finally:
                self._lock.release()
        else:
            raise BackendError(f"{self._address}: a heartbeat did not end")
