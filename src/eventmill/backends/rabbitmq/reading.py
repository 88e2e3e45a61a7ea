"""Reading one queue: a channel of its own, what has arrived, and what is yet to be acknowledged."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection

from pamqp import commands

from eventmill.backends.rabbitmq.channel import Channel, Delivered
from eventmill.backends.rabbitmq.closing import ClosedError
from eventmill.backends.rabbitmq.link import Link
from eventmill.core.errors import BackendUnavailableError
from eventmill.core.message import Partition

REACH = 3_600.0
"""Seconds to wait for a connection at a time: while there is none, there is nothing to read."""

AGAIN = 0.2


class Reading:
    """Begins by itself. Closing the channel cancels the consumer and puts back what is unacknowledged, in one step.

    position: what the last message that was taken out is called. arrived, lost: called when there is
    something to take, and when the server has ended it.
    """

    def __init__(
        self,
        partition: Partition,
        position: int,
        *,
        link: Link,
        queue: str,
        prefetch: int,
        arrived: Callable[[], None],
        lost: Callable[[ClosedError], None],
    ) -> None:
        self.partition = partition
        self.position = position
        self._link = link
        self._queue = queue
        self._prefetch = prefetch
        self._arrived = arrived
        self._lost = lost
        self._buffer: deque[Delivered] = deque()
        self._unsettled: deque[tuple[int, int]] = deque()
        """Position and delivery tag of what was taken out, in order."""
        self._done: set[int] = set()
        self._acked: set[int] = set()
        """Tags that were acknowledged on their own, before an earlier one."""
        self._flushing = False
        self._channel: Channel | None = None
        self._start = asyncio.create_task(self._begin(), name=f"reading {queue}")

    async def _begin(self) -> None:
        while True:
            try:
                connection = await self._link.connection(REACH)
                channel = await connection.channel()
                try:
                    await channel.call(commands.Basic.Qos(0, self._prefetch, False))
                    channel.on_delivery = self._delivered
                    channel.on_closed = self._lost
                    self._channel = channel
                    await channel.call(commands.Basic.Consume(0, self._queue, ""))
                except BaseException:
                    self._channel = None
                    channel.on_closed = None
                    await channel.close()
                    raise
                return
            except ClosedError as error:
                if error.code:
                    self._lost(error)
                    return
            except BackendUnavailableError:
                pass  # there is still no connection: nothing was handed out, so nothing is lost by waiting
            self._buffer.clear()
            await asyncio.sleep(AGAIN)

    def _delivered(self, delivered: Delivered) -> None:
        self._buffer.append(delivered)
        self._arrived()

    @property
    def waiting(self) -> bool:
        return bool(self._buffer)

    def take(self) -> Delivered:
        """The next message; from now on it is called `position`."""
        delivered = self._buffer.popleft()
        self.position += 1
        self._unsettled.append((self.position, delivered.tag))
        return delivered

    def acknowledge(self, positions: Collection[int]) -> None:
        """Told to the server at the end of this turn of the event loop, as few words as possible."""
        self._done.update(positions)
        if not self._flushing:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self.flush)

    def flush(self) -> None:
        self._flushing = False
        channel = self._channel
        done, unsettled = self._done, self._unsettled
        if channel is None or not done:
            return
        last = 0
        while unsettled and unsettled[0][0] in done:
            position, tag = unsettled.popleft()
            done.discard(position)
            if tag in self._acked:
                self._acked.discard(tag)
            else:
                last = tag
        if last:
            channel.send(commands.Basic.Ack(last, True))
        if not unsettled:
            done.clear()
        elif done:
            # Something before them takes longer. They must not use up the window, nor wait for it.
            for position, tag in unsettled:
                if position in done and tag not in self._acked:
                    self._acked.add(tag)
                    channel.send(commands.Basic.Ack(tag, False))

    async def close(self) -> None:
        """Never raises."""
        self._start.cancel()
        await asyncio.wait([self._start])
        channel, self._channel = self._channel, None
        if channel is not None:
            self._channel = channel
            self.flush()
            self._channel = None
            channel.on_closed = None
            await channel.close()
        self._buffer.clear()
