"""What every Log must do, beside taking messages."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import pairwise

from eventmill.core.capabilities import Log
from eventmill.core.errors import ConfigurationError
from eventmill.core.message import Partition, Recorded
from eventmill.core.partition import DEFAULT_PARTITIONS, partition_of
from eventmill.core.reading import Types
from eventmill.testing.conformance.samples import OTHER, TOPIC, everything, ids, message, partitions, start
from eventmill.testing.conformance.suite import Conformance, Stage, case, refused

ONE = Partition(TOPIC, 0)


class LogConformance(Conformance[Log]):
    """Positions, sequences, reading and waiting."""

    # Topics

    @case()
    async def test_declared_topics_are_listed(self, stage: Stage[Log]) -> None:
        async with stage.open() as log:
            await log.declare({TOPIC: 3, OTHER: 5})
            await log.declare({TOPIC: 3})
            assert dict(await log.topics()) == {TOPIC: 3, OTHER: 5}

    @case()
    async def test_another_partition_count_is_refused(self, stage: Stage[Log]) -> None:
        async with stage.open() as log:
            await log.declare({TOPIC: 3})
            with refused(ConfigurationError) as caught:
                await log.declare({OTHER: 2, TOPIC: 4})
            assert TOPIC in str(caught.error)
            assert "3" in str(caught.error)
            assert dict(await log.topics()) == {TOPIC: 3}
            with refused(ConfigurationError):
                await log.declare({OTHER: 0})

    @case()
    async def test_an_undeclared_topic_gets_the_default_count(self, stage: Stage[Log]) -> None:
        async with stage.open() as log:
            await log.publish([message(1, "a")])
            assert dict(await log.topics()) == {TOPIC: DEFAULT_PARTITIONS}

    # Positions and sequences

    @case()
    async def test_positions_grow_in_the_order_of_the_call(self, stage: Stage[Log]) -> None:
        async with stage.open() as log:
            await log.declare({TOPIC: 1})
            positions = [*await log.publish([message(1), message(2)]), *await log.publish([message(3)])]
            assert all(earlier < later for earlier, later in pairwise(positions))
            found = await everything(log)
            assert [record.position for record in found] == positions
            assert ids(found) == ["m1", "m2", "m3"]

    @case()
    async def test_each_key_lives_in_its_partition(self, stage: Stage[Log]) -> None:
        async with stage.open() as log:
            await log.declare({TOPIC: 4})
            await log.publish([message(number, f"key{number % 20}") for number in range(40)])
            await log.publish([message(number) for number in range(40, 80)])
            found = await everything(log)
            assert len(found) == 80
            for record in found:
                number = partition_of(record.message.key, record.message.id, 4)
                assert record.partition == Partition(TOPIC, number)
            assert {record.partition for record in found if record.message.key is None} == set(partitions(4))

    @case(sequences=True)
    async def test_sequence_counts_each_key_of_a_topic(self, stage: Stage[Log]) -> None:
        async with stage.open() as log:
            for number in range(0, 30, 3):
                await log.publish(
                    [
                        message(number, "a"),
                        message(number + 1, "b" if number % 2 else "a"),
                        message(number + 2, "a", topic=OTHER, type="payment.made"),
                    ]
                )
            counts: dict[tuple[str, str | None], list[int | None]] = {}
            for record in await everything(log):
                counts.setdefault((record.message.topic, record.message.key), []).append(record.message.sequence)
            assert counts == {
                (TOPIC, "a"): list(range(1, 16)),
                (TOPIC, "b"): list(range(1, 6)),
                (OTHER, "a"): list(range(1, 11)),
            }

    @case()
    async def test_a_message_without_a_key_has_no_sequence(self, stage: Stage[Log]) -> None:
        async with stage.open() as log:
            await log.publish([message(1)])
            assert [record.message.sequence for record in await everything(log)] == [None]

    @case(durable=True)
    async def test_positions_go_on_after_reopening(self, stage: Stage[Log]) -> None:
        positions, found = await self._reopened(stage)
        assert [record.position for record in found] == positions
        assert all(earlier < later for earlier, later in pairwise(positions))

    @case(durable=True, sequences=True)
    async def test_sequences_go_on_after_reopening(self, stage: Stage[Log]) -> None:
        _, found = await self._reopened(stage)
        assert [record.message.sequence for record in found] == [1, 2, 3, 4]

    async def _reopened(self, stage: Stage[Log]) -> tuple[list[int], Sequence[Recorded]]:
        """Positions of messages that were published each by a log of its own, and what is read afterwards."""
        positions: list[int] = []
        for number in range(4):
            async with stage.open() as log:
                await log.declare({TOPIC: 2})
                positions += await log.publish([message(number, "a")])
        async with stage.open() as log:
            return positions, await everything(log)

    @case(shared=True, sequences=True)
    async def test_two_writers_share_one_count(self, stage: Stage[Log]) -> None:
        async with stage.open() as one, stage.open() as two:
            await one.declare({TOPIC: 4})
            for number in range(0, 40, 4):
                await one.publish([message(number, "a"), message(number + 1, "b")])
                await asyncio.gather(one.publish([message(number + 2, "a")]), two.publish([message(number + 3, "a")]))
            found = await everything(two)
            assert ids(found) == ids(await everything(one))
            assert len({record.position for record in found}) == 40
            of_a = [record.message.sequence for record in found if record.message.key == "a"]
            assert of_a == list(range(1, 31))

    # Reading

    @case()
    async def test_reads_beyond_different_positions(self, stage: Stage[Log]) -> None:
        async with stage.open() as log:
            await log.declare({TOPIC: 4})
            await log.publish([message(number, f"key{number % 10}") for number in range(60)])
            found = await everything(log)
            by_part = {part: [record for record in found if record.partition == part] for part in partitions(4)}
            busy = [part for part in partitions(4) if len(by_part[part]) > 2]
            after = {part: by_part[part][place].position for place, part in enumerate(busy)}
            expected = {record.message.id for place, part in enumerate(busy) for record in by_part[part][place + 1 :]}
            rest = await everything(log, after, limit=7)
            assert sorted(ids(rest)) == sorted(expected)
            for part in busy:
                positions = [record.position for record in rest if record.partition == part]
                assert positions == sorted(positions)

    @case()
    async def test_reads_only_the_partitions_asked_for(self, stage: Stage[Log]) -> None:
        async with stage.open() as log:
            await log.declare({TOPIC: 4, OTHER: 4})
            await log.publish([message(number, f"key{number}") for number in range(20)])
            await log.publish([message(number, f"key{number}", topic=OTHER) for number in range(20, 40)])
            part = Partition(OTHER, 1)
            expected = [record for record in await everything(log) if record.partition == part]
            assert expected
            assert await everything(log, {part: 0}) == expected

    @case()
    async def test_limit(self, stage: Stage[Log]) -> None:
        async with stage.open() as log:
            await log.declare({TOPIC: 1})
            await log.publish([message(number) for number in range(10)])
            page = await log.read({ONE: 0}, limit=3)
            assert ids(page.messages) == ["m0", "m1", "m2"]
            assert page.after[ONE] == page.messages[-1].position
            assert ids(await everything(log, page.after, limit=3)) == [f"m{number}" for number in range(3, 10)]

    @case()
    async def test_max_bytes_bounds_a_page_but_never_empties_it(self, stage: Stage[Log]) -> None:
        async with stage.open() as log:
            await log.declare({TOPIC: 1})
            await log.publish([message(number, size=1000) for number in range(10)])
            page = await log.read({ONE: 0}, limit=100, max_bytes=3500)
            assert 1 <= len(page.messages) <= 4
            assert page.after[ONE] == page.messages[-1].position
            page = await log.read({ONE: 0}, limit=100, max_bytes=1)
            assert ids(page.messages) == ["m0"]

    @case()
    async def test_types_by_name_and_prefix(self, stage: Stage[Log]) -> None:
        kinds = ["order.placed", "order.item.added", "ordering.done", "payment.made"]
        async with stage.open() as log:
            await log.declare({TOPIC: 2})
            await log.publish([message(number, f"key{number}", type=kinds[number % 4]) for number in range(20)])

            async def found(types: Types) -> set[str]:
                return {record.message.type for record in await everything(log, start(*partitions(2)), types=types)}

            assert await found(Types(frozenset({"payment.made", "order.placed"}))) == {"payment.made", "order.placed"}
            assert await found(Types(prefixes=frozenset({"order."}))) == {"order.placed", "order.item.added"}
            both = Types(frozenset({"payment.made"}), frozenset({"ordering."}))
            assert await found(both) == {"payment.made", "ordering.done"}
            assert await found(Types(frozenset({"order_placed", "%"}), frozenset({"order_", "%"}))) == set()

    @case()
    async def test_after_moves_past_messages_of_other_types(self, stage: Stage[Log]) -> None:
        async with stage.open() as log:
            await log.declare({TOPIC: 1})
            positions = await log.publish([message(number, type="order.noise") for number in range(10)])
            page = await log.read({ONE: 0}, limit=5, types=Types(frozenset({"order.placed"})))
            assert list(page.messages) == []
            assert page.after[ONE] >= positions[-1]
            await log.publish([message(10)])
            found = await everything(log, {ONE: page.after[ONE]}, types=Types(frozenset({"order.placed"})))
            assert ids(found) == ["m10"]

    @case()
    async def test_a_reader_at_the_end_is_told_that_nothing_moved(self, stage: Stage[Log]) -> None:
        async with stage.open() as log:
            await log.declare({TOPIC: 4})
            assert dict((await log.read(start(*partitions(4)), limit=10)).after) == {}
            await log.publish([message(number, f"key{number}") for number in range(5)])
            at = start(*partitions(4))
            for _ in range(10):
                at.update((await log.read(at, limit=10)).after)
            page = await log.read(at, limit=10)
            assert (list(page.messages), dict(page.after)) == ([], {})

    @case()
    async def test_a_reader_beside_writers_skips_nothing(self, stage: Stage[Log]) -> None:
        async def writer(number: int) -> None:
            for step in range(20):
                await log.publish([message(number * 100 + step, f"key{number}")])

        async with stage.open() as log:
            await log.declare({TOPIC: 2})
            writers = asyncio.gather(*(writer(number) for number in range(8)))
            at = start(*partitions(2))
            seen: list[str] = []
            while len(seen) < 160:
                finished = writers.done()
                page = await log.read(at, limit=13)
                for record in page.messages:
                    assert record.position > at[record.partition]
                seen += ids(page.messages)
                moved = any(position > at[part] for part, position in page.after.items())
                assert moved or not finished, f"only {len(seen)} of 160 were ever read"
                at.update(page.after)
                await asyncio.sleep(0)
            await writers
            assert sorted(seen) == sorted(f"m{number * 100 + step}" for number in range(8) for step in range(20))

    @case()
    async def test_end_is_the_last_position_of_each_partition(self, stage: Stage[Log]) -> None:
        async with stage.open() as log:
            await log.declare({TOPIC: 4})
            assert dict(await log.end()) == {}
            await log.publish([message(number, f"key{number % 3}") for number in range(12)])
            last: dict[Partition, int] = {}
            for record in await everything(log):
                last[record.partition] = record.position
            assert dict(await log.end()) == last

    @case(manual_clock=True)
    async def test_pending_counts_and_dates(self, stage: Stage[Log]) -> None:
        async with stage.open() as log:
            await log.declare({TOPIC: 1})
            began = stage.now
            positions: list[int] = []
            for number in range(6):
                kind = "order.placed" if number % 2 else "order.noise"
                positions += await log.publish([message(number, type=kind)])
                await stage.advance(10)
            everything_ = await log.pending({ONE: 0})
            assert (everything_.messages, everything_.oldest) == (6, began)
            rest = await log.pending({ONE: positions[1]})
            assert (rest.messages, rest.oldest) == (4, began + 20_000)
            placed = await log.pending({ONE: positions[1]}, Types(frozenset({"order.placed"})))
            assert (placed.messages, placed.oldest) == (2, began + 30_000)
            none = await log.pending({ONE: positions[-1]})
            assert (none.messages, none.oldest) == (0, None)

    # Waiting

    @case()
    async def test_changed_returns_at_once_for_a_newcomer(self, stage: Stage[Log]) -> None:
        async with stage.open() as log:
            assert await asyncio.wait_for(log.changed(-1, 3600), 10) >= 0

    @case()
    async def test_changed_wakes_on_publish(self, stage: Stage[Log]) -> None:
        async with stage.open() as log:
            await self._wakes(log, log)

    @case(shared=True)
    async def test_changed_wakes_on_publish_by_another(self, stage: Stage[Log]) -> None:
        async with stage.open() as log, stage.open() as other:
            await self._wakes(log, other)

    async def _wakes(self, log: Log, publisher: Log) -> None:
        """Waits as a reader does, and must meet each message without its timeout running out."""
        seen = await log.changed(-1, 3600)
        at = start(*partitions(DEFAULT_PARTITIONS))
        for number in range(3):
            publishing = asyncio.ensure_future(publisher.publish([message(number, "a")]))
            found: list[str] = []
            while not found:
                page = await log.read(at, limit=10)
                at.update(page.after)
                found = ids(page.messages)
                if not found:
                    seen = await asyncio.wait_for(log.changed(seen, 3600), 20)
            assert found == [f"m{number}"]
            await publishing

    @case()
    async def test_an_append_before_the_wait_is_not_slept_through(self, stage: Stage[Log]) -> None:
        async with stage.open() as log:
            seen = await log.changed(-1, 3600)
            await log.publish([message(1)])
            assert await asyncio.wait_for(log.changed(seen, 3600), 20) != seen

    @case(manual_clock=True)
    async def test_changed_gives_up_after_its_time(self, stage: Stage[Log]) -> None:
        async with stage.open() as log:
            seen = await log.changed(-1, 3600)
            waiting = asyncio.create_task(log.changed(seen, 0.2))
            while not waiting.done():
                # Whichever clock the backend waits by.
                await stage.advance(0.01)
                await asyncio.sleep(0.01)
            assert await waiting >= seen
