"""A connection that is made again whenever it is lost."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from eventmill.backends.rabbitmq.address import Address
from eventmill.backends.rabbitmq.channel import Channel
from eventmill.backends.rabbitmq.closing import ClosedError
from eventmill.backends.rabbitmq.connection import Connection
from eventmill.core.errors import BackendError, BackendUnavailableError, ConfigurationError

log = logging.getLogger("eventmill")

FIRST, CAP = 0.1, 2.0
"""Seconds between two attempts, doubled from the first up to the cap, each spread by half of it."""

REFUSED = {
    403: "the server refuses this user or password: mend the URL, or the user on the server",
    530: "the server has no such vhost, or the user may not enter it: mend the URL's path, or the permissions",
}


class Link:
    """One connection at a time. prepare: called with each new one, before anybody else has it."""

    def __init__(
        self,
        address: Address,
        name: str,
        rng: random.Random,
        prepare: Callable[[Connection], Awaitable[None]] | None = None,
    ) -> None:
        self._address = address
        self._name = name
        self._rng = rng
        self._prepare = prepare
        self._connection: Connection | None = None
        self._up = asyncio.Event()
        self._failure: BaseException | None = None
        self._keeper: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Connect. Raises BackendUnavailableError when the server is not there in time, ConfigurationError
        when it is and does not want us."""
        self._keeper = asyncio.create_task(self._keep(), name=f"rabbitmq {self._name}")
        try:
            deadline = asyncio.get_running_loop().time() + self._address.connect_timeout
            while not self._up.is_set():
                left = deadline - asyncio.get_running_loop().time()
                if isinstance(self._failure, ClosedError) and self._failure.code in REFUSED:
                    raise self._address.url.refusal(f"{REFUSED[self._failure.code]} ({self._failure})")
                if isinstance(self._failure, ConfigurationError):
                    raise self._failure
                if left <= 0:
                    raise self._unavailable(self._address.connect_timeout, "; see connect_timeout")
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(left, 0.05)):
                        await self._up.wait()
        except BaseException:
            await self.close()
            raise

    def _unavailable(self, seconds: float, further: str = "") -> BackendUnavailableError:
        why = self._failure if self._failure is not None else "no answer"
        return BackendUnavailableError(f"{self._address.url}: not reached within {seconds:g} s{further}: {why}")

    async def connection(self, patience: float) -> Connection:
        """The connection, waited for so many seconds. Raises BackendUnavailableError after them."""
        if self._connection is not None and self._connection.lost.done():
            self._up.clear()  # whoever keeps it has not heard yet
        if not self._up.is_set():
            if self._keeper is None:
                raise BackendUnavailableError(f"{self._address.url} is not open: use it in `async with`")
            try:
                async with asyncio.timeout(patience):
                    await self._up.wait()
            except TimeoutError:
                raise self._unavailable(patience) from None
        assert self._connection is not None
        return self._connection

    @asynccontextmanager
    async def channel(self, patience: float) -> AsyncIterator[Channel]:
        """A channel for some questions."""
        channel = await (await self.connection(patience)).channel()
        try:
            yield channel
        finally:
            await channel.close()

    async def close(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
            self._keeper = None
        self._up.clear()
        if self._connection is not None:
            await self._connection.close()
            self._connection = None

    async def _keep(self) -> None:
        pause = FIRST
        while True:
            for host, port in self._address.hosts:
                began = asyncio.get_running_loop().time()
                try:
                    connection = await Connection.open(self._address, self._name, host, port)
                except (OSError, BackendError, TimeoutError, ssl.SSLError) as error:
                    self._failure = _plain(error)
                    continue
                await self._hold(connection)
                if asyncio.get_running_loop().time() - began > 10:
                    pause = FIRST
            await asyncio.sleep(pause * (0.5 + self._rng.random()))
            pause = min(pause * 2, CAP)

    async def _hold(self, connection: Connection) -> None:
        """Have this connection for as long as it lives."""
        try:
            if self._prepare is not None:
                await self._prepare(connection)
        except (BackendError, ConfigurationError) as error:
            self._failure = error
            log.warning("%s: %s", self._address.url, error)
            await connection.close()
            return
        except BaseException:
            connection.abort(ClosedError("given up"))
            raise
        self._connection = connection
        self._up.set()
        lost = await asyncio.shield(connection.lost)
        self._up.clear()
        self._failure = lost
        log.warning("%s: %s; connecting again", self._address.url, lost)


def _plain(error: BaseException) -> BaseException:
    if isinstance(error, TimeoutError) and not str(error):
        return BackendUnavailableError("no answer to the handshake")
    return error
