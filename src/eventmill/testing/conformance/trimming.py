"""Trimming a log: what goes, what stays, and for whom."""

from __future__ import annotations

from eventmill.core.errors import ConfigurationError
from eventmill.core.message import Partition
from eventmill.testing.conformance.samples import OTHER, TOPIC, everything, ids, message
from eventmill.testing.conformance.suite import Backend, Conformance, Stage, case, refused

ONE = Partition(TOPIC, 0)


class TrimCases(Conformance[Backend]):
    """By age and by size, never past the slowest group unless told to."""

    @case(manual_clock=True)
    async def test_trim_by_age(self, stage: Stage[Backend]) -> None:
        async with stage.open() as log:
            await log.declare({TOPIC: 2, OTHER: 1})
            for number in range(10):
                await log.publish([message(number, f"key{number}"), message(number + 100, topic=OTHER)])
                await stage.advance(60)
            trimmed = await log.trim(TOPIC, older_than=270)
            assert (trimmed.messages, trimmed.held_by) == (6, None)
            left = await everything(log)
            assert sorted(ids([record for record in left if record.partition.topic == TOPIC])) == [
                f"m{number}" for number in range(6, 10)
            ]
            assert len([record for record in left if record.partition.topic == OTHER]) == 10
            assert (await log.trim(TOPIC, older_than=270)).messages == 0

    @case()
    async def test_trim_by_bytes_keeps_the_newest(self, stage: Stage[Backend]) -> None:
        async with stage.open() as log:
            await log.declare({TOPIC: 1})
            await log.publish([message(number, size=10_000) for number in range(10)])
            trimmed = await log.trim(TOPIC, max_bytes=55_000)
            left = ids(await everything(log))
            # What counts beside the data is the backend's own affair.
            assert 4 <= len(left) <= 5
            assert left == [f"m{number}" for number in range(10)][-len(left) :]
            assert trimmed.messages == 10 - len(left)

    @case()
    async def test_trim_stops_for_the_slowest_group_and_names_it(self, stage: Stage[Backend]) -> None:
        async with stage.open() as log:
            await log.declare({TOPIC: 1})
            positions = await log.publish([message(number) for number in range(10)])
            await log.report("fast", {ONE: positions[8]})
            await log.report("slow", {ONE: positions[3]})
            trimmed = await log.trim(TOPIC, max_bytes=0)
            assert (trimmed.messages, trimmed.held_by, trimmed.held_at) == (4, "slow", positions[3])
            assert ids(await everything(log)) == [f"m{number}" for number in range(4, 10)]
            await log.report("slow", {ONE: positions[9]})
            trimmed = await log.trim(TOPIC, max_bytes=0)
            assert (trimmed.messages, trimmed.held_by, trimmed.held_at) == (5, "fast", positions[8])
            trimmed = await log.trim(TOPIC, max_bytes=0, force=True)
            assert (trimmed.messages, trimmed.held_by) == (1, None)
            assert await everything(log) == []

    @case()
    async def test_a_group_that_has_passed_everything_holds_nothing(self, stage: Stage[Backend]) -> None:
        async with stage.open() as log:
            await log.declare({TOPIC: 1})
            positions = await log.publish([message(number) for number in range(5)])
            await log.report("done", {ONE: positions[-1]})
            trimmed = await log.trim(TOPIC, max_bytes=0)
            assert (trimmed.messages, trimmed.held_by, trimmed.held_at) == (5, None, None)

    @case()
    async def test_trim_without_a_bound_is_refused(self, stage: Stage[Backend]) -> None:
        async with stage.open() as log:
            await log.declare({TOPIC: 1})
            with refused(ConfigurationError):
                await log.trim(TOPIC)

    @case()
    async def test_sequence_and_position_go_on_after_trimming_everything(self, stage: Stage[Backend]) -> None:
        async with stage.open() as log:
            await log.declare({TOPIC: 1})
            last = (await log.publish([message(number, "a") for number in range(5)]))[-1]
            assert (await log.trim(TOPIC, max_bytes=0)).messages == 5
            assert await everything(log) == []
            await log.publish([message(5, "a"), message(6, "b")])
            found = await everything(log)
            assert [record.message.sequence for record in found] == [6, 1]
            assert found[0].position > last

    @case(durable=True)
    async def test_sequence_and_position_go_on_after_trimming_and_reopening(self, stage: Stage[Backend]) -> None:
        async with stage.open() as log:
            await log.declare({TOPIC: 1})
            last = (await log.publish([message(number, "a") for number in range(5)]))[-1]
            await log.trim(TOPIC, max_bytes=0)
        async with stage.open() as log:
            assert (await log.publish([message(5, "a")]))[0] > last
            assert [record.message.sequence for record in await everything(log)] == [6]
