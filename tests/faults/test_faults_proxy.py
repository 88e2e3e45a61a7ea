"""The proxy does to connections what the fault tests believe it does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import pytest
from proxy import Proxy

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Play = Callable[["Client", Proxy], Awaitable[None]]


@asynccontextmanager
async def echo() -> AsyncIterator[str]:
    """A server that sends back what it gets."""
    served: set[asyncio.Task[None] | None] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.add(asyncio.current_task())
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield f"echo://user:word@127.0.0.1:{server.sockets[0].getsockname()[1]}/place"
    server.close()
    await asyncio.gather(*filter(None, served), return_exceptions=True)


def through(play: Play) -> None:
    async def run() -> None:
        async with asyncio.timeout(20), echo() as url, Proxy(url) as proxy:
            client = Client(proxy)
            try:
                await play(client, proxy)
            finally:
                client.close()

    asyncio.run(run())


class Client:
    def __init__(self, proxy: Proxy) -> None:
        self._port = urlsplit(proxy.url).port
        self._opened: list[Stream] = []

    async def connect(self) -> Stream:
        self._opened.append(await asyncio.open_connection("127.0.0.1", self._port))
        return self._opened[-1]

    def close(self) -> None:
        for _, writer in self._opened:
            writer.close()


async def say(stream: Stream, text: bytes) -> bytes:
    stream[1].write(text)
    return await stream[0].readexactly(len(text))


async def silent(stream: Stream, text: bytes) -> bool:
    """Whether nothing comes back for a while."""
    stream[1].write(text)
    try:
        await asyncio.wait_for(stream[0].read(1), 0.2)
    except TimeoutError:
        return True
    return False


def test_it_forwards_both_ways_and_passes_ends_on() -> None:
    async def play(client: Client, proxy: Proxy) -> None:
        assert proxy.url.startswith("echo://user:word@127.0.0.1:")
        assert proxy.url.endswith("/place")
        stream = await client.connect()
        large = bytes(range(256)) * 8192
        assert await asyncio.gather(say(stream, large)) == [large]
        assert proxy.connections == 1
        stream[1].write_eof()
        assert await stream[0].read() == b""

    through(play)


def test_latency_delays_each_way() -> None:
    async def play(client: Client, proxy: Proxy) -> None:
        stream = await client.connect()
        proxy.latency = 0.1
        begin = asyncio.get_running_loop().time()
        assert await say(stream, b"slow") == b"slow"
        assert asyncio.get_running_loop().time() - begin >= 0.2

    through(play)


def test_cut_resets_all_and_lets_new_ones_in() -> None:
    async def play(client: Client, proxy: Proxy) -> None:
        streams = [await client.connect() for _ in range(3)]
        for stream in streams:
            await say(stream, b"here")
        proxy.cut()
        for stream in streams:
            with pytest.raises(ConnectionResetError):
                await stream[0].read()
        assert await say(await client.connect(), b"again") == b"again"
        assert proxy.accepted == 4

    through(play)


@pytest.mark.parametrize("towards", ["server", "client"])
def test_cut_after_lets_so_many_bytes_through_once(towards: str) -> None:
    async def play(client: Client, proxy: Proxy) -> None:
        stream = await client.connect()
        proxy.cut_after(6, towards="server" if towards == "server" else "client")
        assert await say(stream, b"1234") == b"1234"
        stream[1].write(b"5678")
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await stream[0].readexactly(4)
        assert await say(await client.connect(), b"again, and at length") == b"again, and at length"

    through(play)


def test_a_black_hole_keeps_connections_and_heals() -> None:
    async def play(client: Client, proxy: Proxy) -> None:
        before = await client.connect()
        await say(before, b"here")
        proxy.freeze()
        during = await client.connect()
        assert await silent(before, b"anyone?")
        assert await silent(during, b"hello?")
        await proxy.heal()
        assert await before[0].readexactly(7) == b"anyone?"
        assert await during[0].readexactly(6) == b"hello?"

    through(play)


def test_it_refuses_new_connections_only_until_healed() -> None:
    async def play(client: Client, proxy: Proxy) -> None:
        before = await client.connect()
        await say(before, b"here")
        await proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            await client.connect()
        assert await say(before, b"still") == b"still"
        await proxy.heal()
        assert await say(await client.connect(), b"again") == b"again"

    through(play)


def test_a_server_that_is_gone_is_felt_by_the_client() -> None:
    async def run() -> None:
        async with echo() as url:
            pass
        async with asyncio.timeout(20), Proxy(url) as proxy:
            client = Client(proxy)
            stream = await client.connect()
            with pytest.raises(ConnectionResetError):
                await stream[0].readexactly(1)
            client.close()

    asyncio.run(run())
