"""Publishing with confirms: any number of calls on their way at a time, each told what became of it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence

from pamqp import commands

from eventmill.backends.rabbitmq import content
from eventmill.backends.rabbitmq.channel import Channel, Delivered
from eventmill.backends.rabbitmq.closing import ClosedError
from eventmill.backends.rabbitmq.connection import Connection
from eventmill.backends.rabbitmq.link import Link
from eventmill.core.errors import (
    BackendError,
    BackendUnavailableError,
    MessageError,
    MessageTooLargeError,
    UnroutableError,
)
from eventmill.core.message import Message

REACH = 10.0
"""Seconds to wait for a connection."""

CONFIRM = 30.0
"""Seconds after which a message that was not confirmed is given up, and the connection with it."""

_TOO_LARGE = re.compile(r"message size (\d+)\D+(\d+)")


class Call:
    """One call of publish: its messages, and what the server has said of them."""

    __slots__ = ("_names", "future", "left", "parcels", "refused", "returned", "sent")

    def __init__(self, parcels: Sequence[content.Parcel]) -> None:
        self.parcels = parcels
        self.future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.sent = 0
        self.again()

    def again(self) -> None:
        self.left = len(self.parcels)
        self.refused = 0
        self.returned: list[Message] = []
        self._names: dict[tuple[object, object], Message] | None = None

    @property
    def names(self) -> dict[tuple[object, object], Message]:
        """Those that were not returned, by id and source; made when the first one is."""
        if self._names is None:
            self._names = {each.message.identity: each.message for each in self.parcels}
        return self._names

    def fail(self, error: BaseException) -> None:
        if not self.future.done():
            self.future.set_exception(error)
            self.future.exception()  # whoever called may be gone

    def confirmed(self, taken: bool) -> None:
        self.left -= 1
        self.refused += not taken
        if self.left:
            return
        if self.refused:
            self.fail(
                BackendUnavailableError(
                    f"RabbitMQ did not take {self.refused} of {len(self.parcels)} messages: a queue has no majority "
                    "of its replicas, or is full; nothing is lost, publish them again"
                )
            )
        elif self.returned:
            self.fail(_unroutable(self.returned, len(self.parcels)))
        elif not self.future.done():
            self.future.set_result(None)


def _unroutable(returned: Sequence[Message], of: int) -> UnroutableError:
    first = returned[0]
    return UnroutableError(
        f"{len(returned)} of {of} messages refused: no queue takes type {first.type!r} of topic {first.topic!r} "
        f"(the first is {first.id}): start a consumer of it, so that its queues exist, or let such messages "
        "be dropped with ?unroutable=drop",
        frozenset(message.identity for message in returned),
    )


class Publishing:
    """One channel. After a connection is lost, its calls fail, and the next ones use the next connection.

    restore: called where an exchange is missing, to make it again.
    """

    def __init__(self, link: Link, *, restore: Callable[[], Awaitable[None]]) -> None:
        self._link = link
        self._restore = restore
        self._lock = asyncio.Lock()
        self._connection: Connection | None = None
        self._channel: Channel | None = None
        self._waiting: dict[int, Call] = {}
        self._lowest = self._next = 1
        self._max_bytes: int | None = None
        self._resending: set[asyncio.Task[None]] = set()

    async def publish(self, parcels: Sequence[content.Parcel]) -> None:
        """Returns when all are safe. Raises UnroutableError and MessageTooLargeError where messages are at fault,
        and BackendUnavailableError within `CONFIRM` seconds where the server is: then some may be safe."""
        self._check(parcels)
        call = Call(parcels)
        try:
            async with asyncio.timeout(CONFIRM):
                await self._send(call)
                await call.future
        except TimeoutError:
            raise self._given_up(call) from None

    async def max_frame(self) -> int:
        return (await self._link.connection(REACH)).max_frame

    async def close(self) -> None:
        for task in list(self._resending):
            task.cancel()
        self._fail(ClosedError("the broker was closed"))

    def _check(self, parcels: Sequence[content.Parcel]) -> None:
        for each in parcels if self._max_bytes is not None else ():
            error = self._excess(each.message)
            if error is not None:
                raise error

    def _excess(self, message: Message) -> MessageTooLargeError | None:
        if self._max_bytes is None or len(message.data) <= self._max_bytes:
            return None
        return MessageTooLargeError(
            f"{message.type} {message.id} is {len(message.data):,} bytes; the server takes {self._max_bytes:,} "
            "(max_message_size): publish a reference to the data"
        )

    def _given_up(self, call: Call) -> BackendUnavailableError:
        connection = self._connection
        why = "no confirmation"
        if connection is not None and connection.blocked is not None:
            why = f"the server takes no messages at the moment: {connection.blocked}"
        if connection is not None and call.sent:
            connection.abort(ClosedError(f"{why} within {CONFIRM:g} s"))
        return BackendUnavailableError(f"publishing was given up after {CONFIRM:g} s: {why}")

    async def _send(self, call: Call) -> None:
        connection = await self._link.connection(REACH)
        async with self._lock:
            channel = self._channel
            if channel is None or channel.closed is not None or self._connection is not connection:
                connection = await self._link.connection(REACH)
                channel = await self._open(connection)
            pieces: list[bytes] = []
            for each in call.parcels:
                pieces += content.frames(each, channel.number, connection.max_frame)
                self._waiting[self._next] = call
                self._next += 1
            call.sent += 1
            channel.write(b"".join(pieces))
            await connection.drain()

    async def _open(self, connection: Connection) -> Channel:
        channel = await connection.channel()
        channel.on_confirm = self._confirmed
        channel.on_return = self._returned
        await channel.call(commands.Confirm.Select())
        self._lowest = self._next = 1
        self._waiting = {}
        channel.on_closed = self._closed
        self._connection, self._channel = connection, channel
        return channel

    # What the server says

    def _confirmed(self, tag: int, multiple: bool, taken: bool) -> None:
        if multiple:
            for earlier in range(self._lowest, tag + 1):
                call = self._waiting.pop(earlier, None)
                if call is not None:
                    call.confirmed(taken)
            self._lowest = max(self._lowest, tag + 1)
        else:
            call = self._waiting.pop(tag, None)
            if call is not None:
                call.confirmed(taken)

    def _returned(self, delivered: Delivered) -> None:
        """Comes before the message's own confirmation, and says its id only."""
        try:
            headers, _ = content.attributes(delivered.properties)
        except MessageError:
            return
        name = (headers.get("ce-id"), headers.get("ce-source"))
        for call in dict.fromkeys(self._waiting.values()):
            message = call.names.pop(name, None)
            if message is not None:
                call.returned.append(message)
                return

    def _closed(self, error: ClosedError) -> None:
        """The server ended the channel for one message's sake, or everything is gone."""
        too_large = _TOO_LARGE.search(str(error)) if error.code == 406 else None
        if too_large is None and error.code != 404:
            self._fail(error)
            return
        if too_large is not None:
            self._max_bytes = int(too_large[2])
        innocent = []
        for call in dict.fromkeys(self._waiting.values()):
            excess = next(filter(None, (self._excess(each.message) for each in call.parcels)), None)
            if excess is not None:
                call.fail(excess)
            elif call.sent > 2:
                call.fail(BackendError(f"RabbitMQ refuses a message: {error}"))
            else:
                innocent.append(call)
        self._waiting = {}
        if innocent:
            task = asyncio.create_task(self._resend(innocent, missing=error.code == 404))
            self._resending.add(task)
            task.add_done_callback(self._resending.discard)

    async def _resend(self, calls: Sequence[Call], *, missing: bool) -> None:
        """In their order; what had arrived arrives twice, under its own id."""
        try:
            if missing:
                await self._restore()
            for call in calls:
                call.again()
                if not call.future.done():
                    await self._send(call)
        except BackendError as error:
            for call in calls:
                call.fail(error)

    def _fail(self, error: ClosedError) -> None:
        lost = dict.fromkeys(self._waiting.values())
        self._waiting = {}
        for call in lost:
            if error.code in (0, 320, 541, 501):
                call.fail(BackendUnavailableError(f"the connection was lost before the confirmation: {error}"))
            else:
                call.fail(BackendError(f"RabbitMQ refuses to take messages: {error}"))
