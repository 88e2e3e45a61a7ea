"""One AMQP 0-9-1 connection: the handshake, frames to channels, heartbeats."""

from __future__ import annotations

import asyncio
from struct import Struct
from typing import Any, cast

from pamqp import commands, constants
from pamqp.common import FieldTable
from pamqp.exceptions import PAMQPException
from pamqp.frame import marshal, unmarshal
from pamqp.header import ProtocolHeader

from eventmill.backends.rabbitmq.address import Address
from eventmill.backends.rabbitmq.channel import Channel
from eventmill.backends.rabbitmq.closing import ClosedError

HANDSHAKE = 5.0
"""Seconds for connecting to one host, from the first packet to the vhost."""

METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8
_FRAME = Struct(">BHI").unpack_from
_BEAT = b"\x08\x00\x00\x00\x00\x00\x00\xce"

CAPABILITIES: FieldTable = {
    "publisher_confirms": True,
    "basic.nack": True,
    "consumer_cancel_notify": True,
    "connection.blocked": True,
    "authentication_failure_close": True,
}


class Connection(asyncio.Protocol):
    """Lost once and for all when the server is silent for twice the heartbeat, or says so, or is gone."""

    def __init__(self, address: Address, name: str) -> None:
        loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[ClosedError] = loop.create_future()
        self.blocked: str | None = None
        """Why the server takes no messages at the moment."""
        self.version = ""
        self.max_frame = 131_072
        self._address = address
        self._name = name
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._channels: dict[int, Channel] = {}
        self._max_channel = 2_047
        self._next = 0
        self._rest = b""
        self._heard = self._sent = loop.time()
        self._zero: asyncio.Queue[Any] = asyncio.Queue()
        self._writable = asyncio.Event()
        self._writable.set()
        self._beating: asyncio.TimerHandle | None = None

    @classmethod
    async def open(cls, address: Address, name: str, host: str, port: int) -> Connection:
        """Raises ClosedError, OSError or TimeoutError."""
        loop = asyncio.get_running_loop()
        connection = cls(address, name)
        try:
            async with asyncio.timeout(HANDSHAKE):
                await loop.create_connection(
                    lambda: connection,
                    host.strip("[]"),
                    port,
                    ssl=address.tls,
                    # Given up at once where the other side is stuck: it was told everything that matters.
                    ssl_shutdown_timeout=1.0 if address.tls else None,
                )
                await connection._shake_hands()
        except BaseException:
            connection.abort(ClosedError("the handshake was not finished"))
            raise
        return connection

    async def _shake_hands(self) -> None:
        address = self._address
        self.write(ProtocolHeader().marshal())
        start = await self._answer(commands.Connection.Start)
        version = start.server_properties.get("version", "")
        self.version = version.decode() if isinstance(version, bytes) else str(version)
        login = b"" if address.external else f"\0{address.user}\0{address.password}".encode()
        self._say(
            commands.Connection.StartOk(
                {"product": "eventmill", "connection_name": self._name, "capabilities": CAPABILITIES},
                "EXTERNAL" if address.external else "PLAIN",
                login.decode(),
                "en_US",
            )
        )
        tune = await self._answer(commands.Connection.Tune)
        self.max_frame = tune.frame_max or self.max_frame
        self._max_channel = tune.channel_max or self._max_channel
        self._say(commands.Connection.TuneOk(self._max_channel, self.max_frame, address.heartbeat))
        self._say(commands.Connection.Open(address.vhost))
        await self._answer(commands.Connection.OpenOk)
        self._beat()

    async def _answer(self, kind: type[Any]) -> Any:
        frame = await self._zero.get()
        if isinstance(frame, ClosedError):
            raise frame
        if not isinstance(frame, kind):
            raise ClosedError(f"expected {kind.__name__} from the server, got {frame.name}")
        return frame

    def _say(self, frame: Any) -> None:
        self.write(marshal(frame, 0))

    # For whoever uses it

    async def channel(self) -> Channel:
        """A channel of its own, open."""
        for _ in range(self._max_channel):
            self._next = self._next % self._max_channel + 1
            if self._next not in self._channels:
                break
        else:
            raise ClosedError(f"all {self._max_channel} channels of the connection are in use", 504)
        channel = self._channels[self._next] = Channel(self._next, self.write, self._freed)
        if self.lost.done():
            channel.fail(self.lost.result())
        await channel.call(commands.Channel.Open())
        return channel

    def _freed(self, number: int) -> None:
        self._channels.pop(number, None)

    def write(self, frames: bytes) -> None:
        if self._transport is not None and not self.lost.done():
            self._sent = self._loop.time()
            self._transport.write(frames)

    async def drain(self) -> None:
        """Wait until the server takes more."""
        if not self._writable.is_set():
            await self._writable.wait()

    def abort(self, error: ClosedError) -> None:
        """Give the connection up at once."""
        if self._transport is not None:
            self._transport.abort()
        self._lose(error)

    async def close(self) -> None:
        """Close in good order, within a second or so."""
        if not self.lost.done():
            self._say(commands.Connection.Close(constants.REPLY_SUCCESS, "", 0, 0))
            await asyncio.wait([self.lost], timeout=1.0)
            self.abort(ClosedError("the connection was closed by this side"))

    # Called by the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=1 << 20)

    def connection_lost(self, error: Exception | None) -> None:
        self._lose(ClosedError(f"the connection is gone: {error or 'closed by the server'}"))

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        self._heard = self._loop.time()
        if self._rest:
            data = self._rest + data
        at, end = 0, len(data)
        try:
            while end - at >= 8:
                kind, number, size = _FRAME(data, at)
                stop = at + 7 + size
                if end <= stop:
                    if kind not in (METHOD, HEADER, BODY, HEARTBEAT):
                        raise ValueError(f"no AMQP 0-9-1 frame: {data[at : at + 8]!r}")
                    break
                if data[stop] != 0xCE:
                    raise ValueError(f"a frame of {size} bytes does not end where it should")
                self._frame(kind, number, data, at + 7, stop)
                at = stop + 1
        except (ValueError, IndexError, PAMQPException) as error:
            self.abort(ClosedError(f"the server's words are not understood: {error}", 501))
            return
        self._rest = data[at:]

    def _frame(self, kind: int, number: int, data: bytes, start: int, stop: int) -> None:
        if number == 0:
            if kind == METHOD:
                self._control(unmarshal(data[start - 7 : stop + 1])[2])
            return
        channel = self._channels.get(number)
        if channel is None:
            return  # of a channel that this side has given up
        if kind == METHOD:
            channel.method(data, start, stop)
        elif kind == HEADER:
            channel.header(data, start, stop)
        elif kind == BODY:
            channel.body(data, start, stop)

    def _control(self, frame: Any) -> None:
        if isinstance(frame, commands.Connection.Close):
            self._say(commands.Connection.CloseOk())
            self._lose(ClosedError(f"{frame.reply_code} {frame.reply_text}", frame.reply_code or 0))
            if self._transport is not None:
                self._transport.close()
        elif isinstance(frame, commands.Connection.CloseOk):
            self._lose(ClosedError("the connection was closed by this side"))
        elif isinstance(frame, commands.Connection.Blocked):
            self.blocked = str(frame.reason)
        elif isinstance(frame, commands.Connection.Unblocked):
            self.blocked = None
        else:
            self._zero.put_nowait(frame)

    def _lose(self, error: ClosedError) -> None:
        if self.lost.done():
            return
        self.lost.set_result(error)
        self._zero.put_nowait(error)
        self._writable.set()
        if self._beating is not None:
            self._beating.cancel()
        for channel in list(self._channels.values()):
            channel.fail(error)
        self._channels.clear()

    def _beat(self) -> None:
        """Half-open connections end here: nobody else notices them."""
        now, every = self._loop.time(), self._address.heartbeat
        if now - self._heard > 2 * every:
            self.abort(ClosedError(f"the server was silent for {now - self._heard:.0f} s"))
        else:
            if now - self._sent > every / 2 - 0.05:
                self.write(_BEAT)
            self._beating = self._loop.call_later(every / 4, self._beat)
