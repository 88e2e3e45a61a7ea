"""A service that publishes through its outbox, members of a group that handle, and a proxy between them and the server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

from eventmill import App, Settings, Transaction
from eventmill.testing.conformance.apps import CREATE, INSERT, Step, effects, in_order, running, steps, until

KEYS = 16
SETTINGS = Settings(lease=2.0, grace=10.0)


def sender(place: Path, broker: str) -> App:
    return App(f"sqlite:///{place}/sender.db", broker=broker, name="sender", settings=SETTINGS)


def reader(place: Path, broker: str, label: str = "reader") -> App:
    app = App(f"sqlite:///{place}/reader.db", broker=broker, name="reader", settings=SETTINGS)

    @app.setup
    async def tables(tx: Transaction) -> None:
        await tx.execute(CREATE)

    @app.on(Step, group="readers")
    async def write(event: Step, tx: Transaction) -> None:
        await tx.execute(INSERT, (label, event.key, event.number))

    return app


async def exercise(
    place: Path, broker: str, harm: Callable[[], Awaitable[None]], *, rounds: int, members: int = 2, pause: float = 0.02
) -> None:
    """Publish rounds of a message a key while harm is done; all must be handled once, in order, afterwards."""
    async with AsyncExitStack() as stack:
        readers = [reader(place, broker, f"reader{number}") for number in range(members)]
        apps = [*readers, sender(place, broker)]
        for app in apps:
            stack.push_async_callback(app.close)
        async with running(*apps):
            harming = asyncio.create_task(harm())  # type: ignore[arg-type]
            for number in range(rounds):
                await apps[-1].publish(*steps(KEYS, 1, number))
                await asyncio.sleep(pause)
            await harming
            await until(apps[0], lambda found: len(found) >= rounds * KEYS, 50)
            await asyncio.sleep(0.2)
        found = await effects(apps[0])
        assert in_order(found) == {f"key{key}": list(range(rounds)) for key in range(KEYS)}


class Proxy:
    """Passes bytes on, until it is told to cut its connections or to swallow everything."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 5672
        self._writers: set[asyncio.StreamWriter] = set()
        self._open = asyncio.Event()
        self._open.set()
        self._url = url
        self.url = ""
        self.accepted = 0

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Proxy]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        self.url = self._url.replace(f"{self._host}:{self._port}", f"127.0.0.1:{port}")
        try:
            yield self
        finally:
            server.close()
            self.heal()
            self.cut()

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    def swallow(self) -> None:
        """Half-open: nothing passes, nobody is told."""
        self._open.clear()

    def heal(self) -> None:
        self._open.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        with suppress(OSError):
            there, back = await asyncio.open_connection(self._host, self._port)
            self._writers |= {writer, back}
            await asyncio.gather(self._pass(reader, back), self._pass(there, writer))
        writer.transport.abort()

    async def _pass(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await source.read(1 << 16):
                await self._open.wait()
                target.write(data)
                await target.drain()
        target.transport.abort()
