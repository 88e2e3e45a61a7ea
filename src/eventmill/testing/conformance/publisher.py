"""What every Publisher must do."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from eventmill.core.errors import MessageError
from eventmill.core.message import Message
from eventmill.testing.conformance.samples import everything, message
from eventmill.testing.conformance.suite import B, Conformance, Stage, case, refused


class PublisherConformance(Conformance[B]):
    """A binding of a publisher that is no log defines `published`, too."""

    async def published(self, backend: Any) -> Sequence[Message]:
        """What was published so far, in order for each key; by default read from the log."""
        return [record.message for record in await everything(backend)]

    @case()
    async def test_what_was_published_is_stored(self, stage: Stage[Any]) -> None:
        async with stage.open() as backend:
            await backend.publish([message(1, "a"), message(2, "b")])
            await backend.publish([message(3)])
            assert {found.id for found in await self.published(backend)} == {"m1", "m2", "m3"}

    @case()
    async def test_nothing_to_publish_is_fine(self, stage: Stage[Any]) -> None:
        async with stage.open() as backend:
            assert list(await backend.publish([])) == []
            assert list(await self.published(backend)) == []

    @case(durable=True)
    async def test_what_was_published_outlives_closing(self, stage: Stage[Any]) -> None:
        async with stage.open() as backend:
            await backend.publish([message(1, "a"), message(2, "b")])
        async with stage.open() as backend:
            assert {found.id for found in await self.published(backend)} == {"m1", "m2"}

    @case()
    async def test_a_message_arrives_whole(self, stage: Stage[Any]) -> None:
        sent = Message(
            id="m1",
            source="conformance",
            type="order.placed",
            topic="order",
            time=1_700_000_000_123_456,
            data=b'{"total": "12 \xe2\x82\xac"}',
            key="käse",
            version=3,
            sequence=7,
            subject="order 12",
            correlationid="c1",
            causationid="c0",
            traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            contenttype="application/json; charset=utf-8",
            extensions={"tenant": "north"},
            tags=("course:c1", "student:Żofia 7"),
        )
        async with stage.open() as backend:
            await backend.publish([sent])
            assert list(await self.published(backend)) == [sent]

    @case()
    async def test_order_per_key(self, stage: Stage[Any]) -> None:
        async with stage.open() as backend:
            for number in range(0, 60, 3):
                await backend.publish([message(number + step, f"key{step}") for step in range(3)])
            found = await self.published(backend)
            for step in range(3):
                of_key = [one.id for one in found if one.key == f"key{step}"]
                assert of_key == [f"m{number + step}" for number in range(0, 60, 3)]

    @case()
    async def test_all_or_none_of_one_call(self, stage: Stage[Any]) -> None:
        async with stage.open() as backend:
            with refused(MessageError):
                await backend.publish([message(1, "a"), message(2, "\ud800"), message(3, "a")])
            await backend.publish([message(4, "a")])
            assert [found.id for found in await self.published(backend)] == ["m4"]

    @case()
    async def test_a_refused_call_disturbs_no_other(self, stage: Stage[Any]) -> None:
        async with stage.open() as backend:
            calls = [
                backend.publish([message(number, "\ud800" if number % 8 == 0 else f"key{number}")])
                for number in range(64)
            ]
            results = await asyncio.gather(*calls, return_exceptions=True)
            for number, result in enumerate(results):
                assert isinstance(result, MessageError) == (number % 8 == 0), result
            found = {one.id for one in await self.published(backend)}
            assert found == {f"m{number}" for number in range(64) if number % 8}

    @case()
    async def test_callers_at_once_keep_their_own_order(self, stage: Stage[Any]) -> None:
        async def caller(number: int) -> None:
            for step in range(10):
                await backend.publish([message(number * 100 + step, f"key{number}")])

        async with stage.open() as backend:
            await asyncio.gather(*(caller(number) for number in range(16)))
            found = await self.published(backend)
            assert len(found) == 160
            for number in range(16):
                of_key = [one.id for one in found if one.key == f"key{number}"]
                assert of_key == [f"m{number * 100 + step}" for step in range(10)]
