"""A channel of AMQP without a server: what it does with answers."""

from __future__ import annotations

import asyncio

import pytest
from pamqp import commands
from pamqp.base import Frame
from pamqp.frame import marshal

from eventmill.backends.rabbitmq.channel import Channel


def answered(channel: Channel, frame: Frame) -> None:
    data = marshal(frame, channel.number)
    channel.method(data, 7, len(data) - 1)


def test_a_cancellation_that_comes_with_the_answer_is_not_lost() -> None:
    """Whoever is stopped in that moment would go on for ever."""

    async def case() -> None:
        channel = Channel(1, lambda frames: None, lambda number: None)
        asking = asyncio.create_task(channel.call(commands.Basic.Qos(0, 1, False)))
        await asyncio.sleep(0)
        answered(channel, commands.Basic.QosOk())
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking

    asyncio.run(case())
