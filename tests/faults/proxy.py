"""A bad network on demand: a TCP proxy in front of a server.

    async with Proxy(rabbitmq_url) as proxy:
        app = App(..., broker=proxy.url)
        proxy.cut()

A client of Kafka goes on at the address that the broker names, past the proxy. The broker's listener BEHIND names FRONT:
`Proxy(servers.address("kafka_behind"), servers.address("kafka_front"))` stands there.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Literal
from urllib.parse import urlsplit

Side = Literal["client", "server"]
HOST = "127.0.0.1"
AT_ONCE = 65536  # bytes read at a time
ON_THE_WAY = 64  # reads that may be under way in one direction; beyond them the sender feels it


class Proxy:
    """Forwards every connection to the server of `target`, until it is told otherwise. `heal` undoes all that.

    The URL is the target's with the proxy's port; `at` fixes the port by another URL.
    """

    def __init__(self, target: str, at: str | None = None) -> None:
        self._target = urlsplit(target)
        self._port = urlsplit(at).port or 0 if at else 0
        self._listener: asyncio.Server | None = None
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._flows = asyncio.Event()
        self._flows.set()
        self._budgets: dict[Side, int] = {}
        self.latency = 0.0
        """Seconds by which each read is held back, in both directions; how much flows is not limited by it."""
        self.accepted = 0
        """The connections since the beginning."""

    async def __aenter__(self) -> Proxy:
        await self._listen()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.refuse()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def url(self) -> str:
        login, at, _ = self._target.netloc.rpartition("@")
        return self._target._replace(netloc=f"{login}{at}{HOST}:{self._port}").geturl()

    @property
    def connections(self) -> int:
        """Those that are open now."""
        return len(self._links)

    def cut(self) -> None:
        """Reset every open connection. New ones are welcome."""
        for link in list(self._links):
            link.reset()

    def cut_after(self, size: int, *, towards: Side = "server") -> None:
        """Let `size` more bytes through to that side, then reset the connection which would carry the next; once."""
        self._budgets[towards] = size

    def freeze(self) -> None:
        """Become a black hole: connections stay open and are accepted, and nothing is forwarded, not even an end."""
        self._flows.clear()

    async def refuse(self) -> None:
        """Refuse new connections. Open ones stay."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
            await asyncio.sleep(0)

    async def heal(self) -> None:
        """A good network again. What waited in a black hole goes on its way, as packets that are sent again would."""
        self.latency = 0.0
        self._budgets.clear()
        self._flows.set()
        if self._listener is None:
            await self._listen()

    async def _listen(self) -> None:
        self._listener = await asyncio.start_server(self._accept, HOST, self._port, limit=AT_ONCE)
        self._port = self._listener.sockets[0].getsockname()[1]

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = _Link(writer)
        self._links.add(link)
        try:
            await self._flows.wait()
            far_reader, far_writer = await asyncio.open_connection(
                self._target.hostname, self._target.port, limit=AT_ONCE
            )
            link.writers.append(far_writer)
            await asyncio.gather(
                self._carry(reader, far_writer, "server", link), self._carry(far_reader, writer, "client", link)
            )
        except OSError:
            link.reset()
        finally:
            self._links.discard(link)
            link.close()

    async def _carry(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, towards: Side, link: _Link
    ) -> None:
        """One direction: read as it comes, write when it is due."""
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(ON_THE_WAY)
        now = asyncio.get_running_loop().time

        async def read() -> None:
            data = b"first"
            while data:
                data = await reader.read(AT_ONCE)
                await under_way.put((now() + self.latency, data))

        async def write() -> None:
            while True:
                due, data = await under_way.get()
                await asyncio.sleep(due - now())
                await self._flows.wait()
                if not data:
                    writer.write_eof()
                    return
                allowed = self._take(towards, len(data))
                writer.write(data[:allowed])
                await writer.drain()
                if allowed < len(data):
                    link.reset()
                    return

        await _both(read, write)

    def _take(self, towards: Side, size: int) -> int:
        """How many of so many bytes may pass; the budget is spent by the one who gets less."""
        budget = self._budgets.get(towards)
        if budget is None:
            return size
        if budget >= size:
            self._budgets[towards] = budget - size
            return size
        del self._budgets[towards]
        return budget


class _Link:
    """The two ends of one connection."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.writers = [writer]

    def reset(self) -> None:
        for writer in self.writers:
            end = writer.get_extra_info("socket")
            with suppress(OSError):  # which is closed already
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # RST in place of FIN
            writer.transport.abort()

    def close(self) -> None:
        for writer in self.writers:
            writer.close()


async def _both(*jobs: Callable[[], Awaitable[None]]) -> None:
    """Until both have ended, or one has failed; then the other is ended too, and the failure raised."""
    tasks = [asyncio.ensure_future(job()) for job in jobs]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
