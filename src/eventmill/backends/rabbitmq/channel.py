"""One channel of a connection: questions and answers, deliveries, confirms."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from struct import Struct
from typing import Any, NamedTuple

from pamqp import commands
from pamqp.base import Frame
from pamqp.frame import marshal, unmarshal

from eventmill.backends.rabbitmq.closing import ClosedError

DELIVER, RETURN, ACK, NACK = 0x003C003C, 0x003C0032, 0x003C0050, 0x003C0078
CANCELLED, FLOW, CLOSE, CLOSED = 0x003C001E, 0x00140014, 0x00140028, 0x00140029

_METHOD = Struct(">I").unpack_from
_TAG = Struct(">QB").unpack_from
_SIZE = Struct(">Q").unpack_from

PATIENCE = 10.0
"""Seconds to wait for the answer to a question."""


CLOSING = 2.0
"""Seconds to wait for the end of a channel. A server that is silent for so long closes it when it hears of it."""


class Delivered(NamedTuple):
    """A message as it came: not read yet. tag: 0 for one that was returned. properties: flags and all."""

    tag: int
    routing_key: bytes
    properties: bytes
    body: bytes


class Channel:
    """Answers come in the order of the questions, so any number may be on their way.

    Whoever uses it sets the hooks. `on_closed` is called once, with the reason, unless `close` was called.
    """

    def __init__(self, number: int, write: Callable[[bytes], None], freed: Callable[[int], None]) -> None:
        self.number = number
        self.closed: ClosedError | None = None
        self.on_closed: Callable[[ClosedError], None] | None = None
        self.on_delivery: Callable[[Delivered], None] | None = None
        self.on_return: Callable[[Delivered], None] | None = None
        self.on_confirm: Callable[[int, bool, bool], None] | None = None
        """Called with the tag, whether all before it are meant as well, and whether the server took it."""
        self._write = write
        self._freed = freed
        self._answers: deque[asyncio.Future[Any]] = deque()
        self._head: tuple[Callable[[Delivered], None] | None, int, bytes] | None = None
        self._properties = b""
        self._size = 0
        self._parts: list[bytes] = []

    def __repr__(self) -> str:
        return f"channel {self.number}" + ("" if self.closed is None else f" ({self.closed})")

    def ask(self, question: Frame) -> asyncio.Future[Any]:
        """Send a method that is answered; the future holds the answer, or why there is none."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if self.closed is not None:
            answer.set_exception(self.closed)
        else:
            self._answers.append(answer)
            self._write(marshal(question, self.number))
        return answer

    async def call(self, question: Frame) -> Any:
        """The same, waiting for it; an answer that does not come ends the wait with ClosedError."""
        try:
            async with asyncio.timeout(PATIENCE):
                return await self.ask(question)
        except TimeoutError:
            raise ClosedError(f"no answer to {question.name} within {PATIENCE:g} s") from None

    def send(self, frame: Frame) -> None:
        """Send a method that is not answered; nothing happens on a closed channel."""
        if self.closed is None:
            self._write(marshal(frame, self.number))

    def write(self, frames: bytes) -> None:
        """Send what was marshalled already, for this channel."""
        if self.closed is None:
            self._write(frames)

    async def close(self) -> None:
        """Close in good order. What was delivered and not acknowledged is put back. Never raises."""
        if self.closed is None:
            answer = self.ask(commands.Channel.Close(200, "", 0, 0))
            self.closed = ClosedError("the channel was closed by this side")
            self.on_closed = None
            await asyncio.wait([answer], timeout=CLOSING)
            if answer.done() and not answer.cancelled():
                answer.exception()  # a connection that is gone has closed it, too

    def fail(self, error: ClosedError) -> None:
        """The channel is no more: everybody who waits is told."""
        told = self.closed is not None
        self.closed = self.closed or error
        while self._answers:
            answer = self._answers.popleft()
            if not answer.done():
                answer.set_exception(error)
                answer.exception()  # not every one is waited for
        if self.on_closed is not None and not told:
            self.on_closed(error)

    # What arrives

    def method(self, data: bytes, start: int, stop: int) -> None:
        (method,) = _METHOD(data, start)
        if method in (DELIVER, RETURN):
            self._content(method, data, start)
        elif method in (ACK, NACK):
            tag, bits = _TAG(data, start + 4)
            if self.on_confirm is not None:
                self.on_confirm(tag, bool(bits & 1), method == ACK)
        else:
            self._other(method, unmarshal(data[start - 7 : stop + 1])[2])

    def _content(self, method: int, data: bytes, start: int) -> None:
        tag = 0
        at = start + 4
        if method == DELIVER:
            at += 1 + data[at]
            tag, _redelivered = _TAG(data, at)
            at += 9
            at += 1 + data[at]
        else:
            at += 2
            at += 1 + data[at]
            at += 1 + data[at]
        hook = self.on_delivery if method == DELIVER else self.on_return
        self._head = (hook, tag, data[at + 1 : at + 1 + data[at]])

    def _other(self, method: int, frame: Any) -> None:
        if method == CLOSE:
            self._write(marshal(commands.Channel.CloseOk(), self.number))
            self.fail(ClosedError(f"{frame.reply_code} {frame.reply_text}", frame.reply_code))
            self._freed(self.number)
        elif method == CANCELLED:
            on_closed, self.on_closed = self.on_closed, None
            self._write(marshal(commands.Channel.Close(200, "", 0, 0), self.number))
            error = ClosedError("the server cancelled the consumer: its queue was deleted, or has no leader", 404)
            self.fail(error)
            if on_closed is not None:
                on_closed(error)
        elif method == FLOW:
            self.send(commands.Channel.FlowOk(frame.active))
        else:
            if self._answers:
                answer = self._answers.popleft()
                if not answer.done():
                    answer.set_result(frame)
            if method == CLOSED:
                self._freed(self.number)

    def header(self, data: bytes, start: int, stop: int) -> None:
        (self._size,) = _SIZE(data, start + 4)
        self._properties = data[start + 12 : stop]
        self._parts = []
        if not self._size:
            self._complete(b"")

    def body(self, data: bytes, start: int, stop: int) -> None:
        part = data[start:stop]
        if len(part) == self._size and not self._parts:
            self._complete(part)
            return
        self._parts.append(part)
        if sum(map(len, self._parts)) >= self._size:
            self._complete(b"".join(self._parts))

    def _complete(self, body: bytes) -> None:
        assert self._head is not None
        hook, tag, routing_key = self._head
        self._parts = []
        if hook is not None and self.closed is None:
            hook(Delivered(tag, routing_key, self._properties, body))
