"""What is open to one server in one event loop: connections, and what they have learned."""

from __future__ import annotations

import asyncio

from eventmill.backends.postgres import schema, server_clock
from eventmill.backends.postgres.address import Address
from eventmill.backends.postgres.announcer import Announcer
from eventmill.backends.postgres.connection import dial_patiently
from eventmill.backends.postgres.outcome import Outcomes
from eventmill.backends.postgres.pool import Pool
from eventmill.backends.postgres.reader import Reader
from eventmill.backends.postgres.tail import Tail
from eventmill.backends.postgres.topics import Topics
from eventmill.backends.postgres.watcher import Watcher
from eventmill.backends.postgres.writer import Writer
from eventmill.core import fork
from eventmill.core.clock import Clock
from eventmill.core.errors import BackendError


class OpenServer:
    """One writer for handlers' units, one for messages that are published alone, a reader, and a pool.

    Each connection is made when it is first needed; the reader at once.
    """

    def __init__(self, address: Address, clock: Clock, *, readonly: bool) -> None:
        self.address = address
        self.fork = fork.count
        self.loop = asyncio.get_running_loop()
        self._readonly = readonly
        self._clock = clock
        self.watcher = Watcher()
        self.reader = Reader(address, self.watcher.committed)
        self.announcer = Announcer(self.reader.announce)
        self.tail = Tail(self.reader, self.watcher.advanced)
        self.watcher.watch(self.tail)
        self.topics = Topics(self.reader, clock)
        self.pool = Pool(address)
        self.outcomes = Outcomes(self.reader)
        self._units = self._writer(clock)
        self._publishes = self._writer(clock)

    def _writer(self, clock: Clock) -> Writer:
        return Writer(
            self.address,
            clock,
            self.topics.counts,
            committed=self._committed,
            resolve=self.outcomes.stored,
        )

    def _committed(self, messages: bool) -> None:
        self.watcher.committed()
        if messages:
            self.announcer.appended()

    async def open(self) -> None:
        """Raises BackendUnavailableError where no server answers in time, ConfigurationError where it refuses."""
        connection = await dial_patiently(self.address, self.address.patience)
        try:
            if self._readonly:
                await schema.check(connection, self.address)
            else:
                await schema.migrate(connection, self.address)
            await server_clock.follow(connection, self._clock, self.address)
        finally:
            await connection.close()
        try:
            await self.topics.look()
            await self.tail.look()
        except BaseException:
            await self.reader.close()
            raise

    def _writable(self, writer: Writer) -> Writer:
        if self._readonly:
            raise BackendError(f"{self.address} is open for reading only")
        return writer

    @property
    def units(self) -> Writer:
        return self._writable(self._units)

    @property
    def publishes(self) -> Writer:
        return self._writable(self._publishes)

    async def close(self) -> None:
        """Commit what is staged, then close. A forked child lets go of its parent's connections without a touch."""
        if self.fork != fork.count:
            return
        await self._units.close()
        await self._publishes.close()
        self.announcer.close()
        await asyncio.sleep(0)  # what it says last leaves with this turn
        await self.watcher.close()
        await self.pool.close()
        await self.reader.close()
