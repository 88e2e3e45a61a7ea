"""Event sourcing on every store: commands, races, repeats, snapshots, time, closed streams."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from purses import (
    COINS,
    SNAPPED_COINS,
    Coins,
    Purse,
    PurseEmptied,
    PurseFilled,
    PurseOpened,
    Refused,
    SeatTaken,
    SnappedPurse,
    book,
    check_every_version,
    seated,
)

from eventmill import (
    ABSENT,
    NO_RETRY,
    Aggregate,
    App,
    ConfigurationError,
    DecodeError,
    Event,
    Executed,
    Query,
    StreamClosedError,
    StreamIncompleteError,
    SyncApp,
    TagConflictError,
    Transaction,
    WrongExpectedVersionError,
    named,
)
from eventmill.core.clock import ManualClock
from eventmill.core.errors import BackendUnavailableError, EncodeError

Open = Callable[..., Any]


class Sourcing:
    """The cases; each store binds them below."""

    @pytest.fixture
    def url(self) -> str:
        raise NotImplementedError

    def run(self, url: str, case: Callable[[App], Awaitable[None]], **options: Any) -> None:
        async def whole() -> None:
            async with App(url, name="bank", **options) as app:
                await asyncio.wait_for(case(app), 60)

        asyncio.run(whole())

    # Commands

    def test_commands_decide_on_what_was(self, url: str) -> None:
        async def case(app: App) -> None:
            first = await app.execute(Purse, "a", Purse.open, "ada")
            assert (first.version, first.value, first.events) == (1, None, [PurseOpened("ada")])
            filled = await app.execute(Purse, "a", Purse.fill, amount=10)
            assert (filled.version, filled.value, filled.repeated) == (2, 10, False)
            drained = await app.execute(Purse, "a", Purse.drain, 3)
            assert (drained.version, drained.value, len(drained.positions)) == (5, 1, 3)
            assert drained.position > filled.position > first.position
            with pytest.raises(Refused, match="20 of 1"):
                await app.execute(Purse, "a", Purse.empty, 20)
            nothing = await app.execute(Purse, "a", Purse.drain, 3)
            assert (nothing.version, nothing.positions, nothing.position) == (5, [], 0)
            purse = await app.load(Purse, "a")
            assert (purse.id, purse.version, purse.owner, purse.balance) == ("a", 5, "ada", 1)
            assert (await app.load(Purse, "b")).version == 0

        self.run(url, case)

    def test_a_decider_is_the_same_as_functions(self, url: str) -> None:
        async def case(app: App) -> None:
            assert (await app.execute(COINS, "a", PurseFilled(5))).value == 0
            for kind in (COINS, SNAPPED_COINS):
                for _ in range(4):
                    await app.execute(kind, "a", PurseFilled(1))
                with pytest.raises(Refused):
                    await app.execute(kind, "a", PurseEmptied(100))
            assert await app.load(COINS, "a") == (Coins(balance=13), 9)
            assert await app.load(SNAPPED_COINS, "a") == (Coins(balance=13), 9)
            assert await app.load(SNAPPED_COINS, "a", version=1) == (Coins(balance=5), 1)
            assert await app.store.document("snapshot snapped-coins purse/a") is not None

        self.run(url, case)

    def test_a_command_that_refuses_after_a_fact_appends_nothing(self, url: str) -> None:
        class Halting(Purse, name="halting-purse", topic="purse"):
            def halt(self) -> Iterator[Event]:
                yield PurseFilled(1)
                raise Refused("after all")

            def mistyped(self) -> Iterator[Event]:
                yield PurseFilled("ten")  # type: ignore[arg-type]

            def foreign(self) -> Iterator[Event]:
                yield named("purse.unheard", {})  # type: ignore[misc]

        async def case(app: App) -> None:
            with pytest.raises(Refused):
                await app.execute(Halting, "a", Halting.halt)
            with pytest.raises((EncodeError, TypeError)):
                await app.execute(Halting, "a", Halting.mistyped)
            with pytest.raises(ConfigurationError):
                await app.execute(Halting, "a", Halting.foreign)
            with pytest.raises(ConfigurationError, match="no command"):
                await app.execute(Halting, "a", Halting.evolve, PurseFilled(1))
            with pytest.raises(ConfigurationError, match="id"):
                await app.execute(Halting, "", Halting.halt)
            with pytest.raises(EncodeError, match="read again"):
                await app.append("purse/a", PurseFilled("ten"))  # type: ignore[arg-type]
            assert await app.read("purse/a") == []

        self.run(url, case)

    def test_one_after_another_within_a_transaction(self, url: str) -> None:
        async def case(app: App) -> None:
            async with app.transaction() as tx:
                tx.append("purse/a", PurseOpened("ada"), expected=ABSENT)
                await app.execute(Purse, "a", Purse.fill, 10)
                executed = await app.execute(Purse, "a", Purse.empty, 4)
                assert executed.positions == []
                assert (await app.load(Purse, "a")).balance == 6
                await app.execute(Purse, "b", Purse.fill, 4)
            assert (executed.version, len(executed.positions)) == (3, 1)
            assert (await app.load(Purse, "a")).balance == 6
            with pytest.raises(WrongExpectedVersionError) as caught:  # noqa: PT012
                async with app.transaction() as tx:
                    await app.execute(Purse, "a", Purse.empty, 1)
                    tx.append("purse/b", PurseFilled(1), expected=9)
            assert (caught.value.expected, caught.value.actual) == (9, 1)
            assert (await app.load(Purse, "a")).balance == 6

        self.run(url, case)

    def test_a_hundred_tasks_empty_one_purse(self, url: str) -> None:
        async def case(app: App) -> None:
            await app.execute(Purse, "a", Purse.fill, 10)
            results = await asyncio.gather(
                *(app.execute(Purse, "a", Purse.empty, 1) for _ in range(100)), return_exceptions=True
            )
            assert sum(isinstance(each, Executed) for each in results) == 10
            assert sum(isinstance(each, Refused) for each in results) == 90
            assert (await app.load(Purse, "a")).balance == 0

        self.run(url, case)

    def test_apps_that_race_decide_again(self, url: str) -> None:
        """Two Apps do not queue for each other: what they lose at the store they decide anew."""

        async def case(app: App) -> None:
            async with App(url, name="other") as other:
                await app.execute(Purse, "a", Purse.fill, 40)
                results = await asyncio.gather(
                    *(each.execute(Purse, "a", Purse.empty, 1) for each in (app, other) for _ in range(30)),
                    return_exceptions=True,
                )
                done = [each for each in results if isinstance(each, Executed)]
                assert all(isinstance(each, Executed | Refused) for each in results), results
                assert len(done) == 40
                assert sorted(each.version for each in done) == list(range(2, 42))
                assert (await other.load(Purse, "a")).balance == 0

        self.run(url, case)

    def test_without_retry_a_conflict_is_told(self, url: str) -> None:
        class Slow(Purse, name="slow-purse", topic="purse"):
            def wait(self) -> Iterator[Event]:
                yield PurseFilled(1)

        async def case(app: App) -> None:
            await app.append("purse/a", PurseFilled(1))
            read = app.store.events

            async def overtaken(*arguments: Any, **options: Any) -> Any:
                found = await read(*arguments, **options)
                await app.append("purse/a", PurseFilled(100))
                return found

            app.store.events = overtaken  # type: ignore[method-assign]
            try:
                with pytest.raises(WrongExpectedVersionError):
                    await app.execute(Slow, "a", Slow.wait, retry=NO_RETRY)
            finally:
                app.store.events = read  # type: ignore[method-assign]
            assert (await app.load(Purse, "a")).balance == 101

        self.run(url, case)

    def test_ten_seats(self, url: str) -> None:
        async def case(app: App) -> None:
            async with App(url, name="other") as other:
                course = [Query(tags=frozenset({"course:c1"}))]
                results = await asyncio.gather(
                    *(
                        (app, other)[number % 2].decide(
                            course, book, "c1", f"s{number}", 10, initial=frozenset(), evolve=seated
                        )
                        for number in range(100)
                    ),
                    return_exceptions=True,
                )
                assert all(isinstance(each, Executed | Refused) for each in results), results
                assert sum(isinstance(each, Executed) for each in results) == 10
                decision = await app.decision(*course, initial=frozenset(), evolve=seated)
                assert len(decision.state) == 10
                await app.publish(SeatTaken("c1", "late"))
                with pytest.raises(TagConflictError):  # noqa: PT012
                    async with app.transaction() as tx:
                        tx.append("hall/late", SeatTaken("c1", "late"))
                        tx.require(*decision.queries, after=decision.position)

        self.run(url, case)

    # Repeats

    def test_a_command_with_an_id_is_stored_once(self, url: str) -> None:
        async def case(app: App) -> None:
            await app.execute(Purse, "a", Purse.fill, 10)
            first = await app.execute(Purse, "a", Purse.drain, 3, command_id="c1")
            await app.execute(Purse, "a", Purse.fill, 100)
            for kind in (Purse, SnappedPurse):
                again = await app.execute(kind, "a", Purse.drain, 3, command_id="c1")
                assert again.repeated
                assert (again.positions, again.version, again.value, again.events) == (
                    first.positions, first.version, first.value, first.events,
                )  # fmt: skip
            async with app.transaction():
                again = await app.execute(Purse, "a", Purse.drain, 3, command_id="c1")
                assert again.positions == first.positions
            other = await app.execute(Purse, "a", Purse.drain, 50, command_id="c2")
            assert not other.repeated
            assert (await app.load(Purse, "a")).balance == 1

        self.run(url, case)

    def test_a_lost_answer(self, url: str) -> None:
        async def case(app: App) -> None:
            unit = app.store.unit

            def lost(*arguments: Any) -> Any:
                made = unit(*arguments)

                class Lost:
                    append_to = staticmethod(made.append_to)
                    discard = staticmethod(made.discard)

                    async def finish(self) -> Any:
                        await (await made.finish())
                        raise BackendUnavailableError("the connection broke before the answer came")

                return Lost()

            app.store.unit = lost  # type: ignore[method-assign]
            with pytest.raises(BackendUnavailableError):
                await app.execute(Purse, "a", Purse.fill, 10, command_id="once")
            app.store.unit = unit  # type: ignore[method-assign]
            again = await app.execute(Purse, "a", Purse.fill, 10, command_id="once")
            assert (again.repeated, again.version, again.value) == (True, 1, 10)
            assert (await app.load(Purse, "a")).balance == 10

        self.run(url, case)

    # Handlers

    def test_handlers_execute_in_their_commit(self, url: str) -> None:
        async def case(app: App) -> None:
            count = 30
            await app.publish(*(PaymentNoted("a", number) for number in range(count)))
            running = asyncio.create_task(app.run())
            while (await app.load(Purse, "a")).balance < sum(range(count)):
                await asyncio.sleep(0.01)
                assert not running.done()
            app.stop()
            await running
            assert (await app.load(Purse, "a")).version == count
            facts = await app.history(Purse, "a")
            notes = [fact async for fact in app.read_all(types=[PaymentNoted])]
            assert [fact.message.causationid for fact in facts] == [fact.message.id for fact in notes]
            assert [fact.message.correlationid for fact in facts] == [fact.message.id for fact in notes]
            for group in await app.store.groups():
                assert (group.retrying, group.dead) == (0, 0)

        async def whole() -> None:
            app = App(url, name="bank")

            @app.on(PaymentNoted, concurrency=4)
            async def pay(event: PaymentNoted, tx: Transaction) -> None:
                await app.execute(Purse, event.purse, Purse.fill, event.amount)

            async with app:
                await asyncio.wait_for(case(app), 60)

        asyncio.run(whole())

    # Snapshots

    def test_snapshots_spare_reading_and_change_nothing(self, url: str) -> None:
        async def case(app: App) -> None:
            for amount in range(12):
                await app.execute(SnappedPurse, "a", Purse.fill, amount)
            seen: list[int] = []
            read = app.store.events

            async def counted(*arguments: Any, **options: Any) -> Any:
                found = await read(*arguments, **options)
                seen.append(len(found))
                return found

            app.store.events = counted  # type: ignore[method-assign]
            assert (await app.load(SnappedPurse, "a")).balance == sum(range(12))
            assert sum(seen) <= 6, "the snapshot was not used"
            app.store.events = read  # type: ignore[method-assign]
            await check_every_version(app, "a")
            assert await app.snapshot(SnappedPurse, "a") == 12
            await app.append("purse/a", PurseFilled(1))
            await check_every_version(app, "a")
            with pytest.raises(ConfigurationError, match="snapshot_every"):
                await app.snapshot(Purse, "a")

        self.run(url, case)

    @pytest.mark.parametrize("damage", ["fingerprint", "state", "event", "version", "garbage", "type"])
    def test_a_snapshot_is_never_trusted(self, url: str, damage: str, caplog: pytest.LogCaptureFixture) -> None:
        async def case(app: App) -> None:
            for amount in range(12):
                await app.execute(SnappedPurse, "a", Purse.fill, amount)
            key = "snapshot snapped-purse purse/a"
            document = await app.store.document(key)
            assert document is not None
            snapshot = msgspec.json.decode(document.data)
            snapshot["state"]["balance"] = 1_000_000
            if damage == "state":
                snapshot["state"]["version"] += 1
            elif damage == "type":
                snapshot["state"]["balance"] = "much"
            elif damage == "version":
                snapshot["version"] = snapshot["state"]["version"] = 500
            elif damage != "garbage":
                snapshot[damage] = "another"
            async with app.transaction() as tx:
                tx.put(key, b"{" if damage == "garbage" else msgspec.json.encode(snapshot))
            caplog.clear()
            assert (await app.load(SnappedPurse, "a")).balance == sum(range(12))
            if damage != "fingerprint":
                assert "replaying" in caplog.text
            await app.execute(SnappedPurse, "a", Purse.fill, 1)
            caplog.clear()
            assert (await app.load(SnappedPurse, "a")).balance == sum(range(12)) + 1
            assert "replaying" not in caplog.text, "a good one has not taken its place"

        self.run(url, case)

    # Evolution

    def test_a_class_that_was_renamed_reads_what_the_former_wrote(self, url: str) -> None:
        async def case(app: App) -> None:
            await app.append("tram/1", named("tram.departed", {"stop": "Alt"}), named("tram.departed", {"stop": "Neu"}))

            class Departure(Event, name="tram.departed", topic="tram"):
                """Was called something else when those were written."""

                stop: str
                late: int = 0

            class Tram(Aggregate, name="tram"):
                stops: list[str] = msgspec.field(default_factory=list)

                def evolve(self, event: Any) -> None:
                    match event:
                        case Departure(stop=stop):
                            self.stops.append(stop)

            assert (await app.load(Tram, "1")).stops == ["Alt", "Neu"]
            await app.append("tram/1", named("tram.derailed", {}))
            with pytest.raises(DecodeError, match="no event type of this name"):
                await app.load(Tram, "1")
            assert [fact.event.name for fact in (await app.read("tram/1"))[2:]] == ["tram.derailed"]

        self.run(url, case)

    def test_a_stream_that_was_trimmed_is_no_state(self, url: str) -> None:
        async def case(app: App) -> None:
            for amount in range(4):
                await app.execute(Purse, "a", Purse.fill, amount)
            # Backends count more or less of an envelope: in one of these steps a part goes, in the last one all.
            for size in (30, 0):
                await app.store.trim("purse", max_bytes=size, force=True)
                with pytest.raises(StreamIncompleteError, match="events 1 to"):
                    await app.load(Purse, "a")

        self.run(url, case)

    # Time

    def test_the_past(self, url: str) -> None:
        clock = ManualClock(1_700_000_000)
        start = datetime.fromtimestamp(1_700_000_000, UTC)

        async def case(app: App) -> None:
            for amount in (1, 10, 100):
                await app.execute(Purse, "a", Purse.fill, amount)
                await clock.advance(60)
            for seconds, balance in ((-1, 0), (0, 1), (59, 1), (60, 11), (119.999, 11), (120, 111), (9_999, 111)):
                at = start + timedelta(seconds=seconds)
                assert (await app.load(Purse, "a", at=at)).balance == balance, seconds
            with pytest.raises(ConfigurationError, match="time zone"):
                await app.load(Purse, "a", at=datetime(2024, 1, 1))
            with pytest.raises(ConfigurationError, match="not both"):
                await app.load(Purse, "a", at=start, version=1)
            for version in (-1, 4):
                with pytest.raises(ConfigurationError, match=f"version.*{version}"):
                    await app.load(Purse, "a", version=version)
            facts = await app.history(Purse, "a")
            assert [fact.at for fact in facts] == [start + timedelta(minutes=minutes) for minutes in range(3)]
            assert [fact.version for fact in await app.history(Purse, "a", after=1, upto=2)] == [2]

        self.run(url, case, clock=clock)

    def test_diff_says_who_it_was(self, url: str) -> None:
        async def case(app: App) -> None:
            await app.execute(Purse, "a", Purse.open, "ada")
            await app.execute(Purse, "a", Purse.fill, 10)
            await app.execute(Purse, "a", Purse.empty, 3, "bread")
            await app.execute(Purse, "a", Purse.empty, 3)
            changes = await app.diff(Purse, "a", 1, 4)
            assert set(changes) == {"balance", "notes"}
            balance, notes = changes["balance"], changes["notes"]
            assert (balance.before, balance.after, balance.by.version, balance.times) == (0, 4, 4, 3)
            assert (notes.before, notes.after, notes.by.version) == ([], ["bread"], 3)
            assert notes.by.event == PurseEmptied(3, "bread")
            assert set(await app.diff(Purse, "a", 0, 1)) == {"owner"}
            assert set(await app.diff(COINS, "a", 0, 2)) == {"owner", "balance"}
            assert await app.diff(Purse, "a", 2, 2) == {}
            for wrong in ((2, 1), (0, 5), (-1, 1)):
                with pytest.raises(ConfigurationError):
                    await app.diff(Purse, "a", *wrong)

        self.run(url, case)

    def test_revert_appends_and_the_history_shows_all(self, url: str) -> None:
        async def case(app: App) -> None:
            await app.execute(Purse, "a", Purse.open, "ada")
            await app.execute(Purse, "a", Purse.fill, 10)
            await app.execute(Purse, "a", Purse.fill, 90)
            executed = await app.revert(Purse, "a", to=2)
            assert executed.version == 4
            purse = await app.load(Purse, "a")
            assert (purse.owner, purse.balance, purse.version) == ("ada", 10, 4)
            facts = await app.history(Purse, "a")
            assert [fact.type for fact in facts] == ["purse.opened", "purse.filled", "purse.filled", "purse.corrected"]
            assert facts[3].message.extensions == {"revertedto": "2"}
            assert (await app.load(Purse, "a", version=3)).balance == 100
            assert (await app.revert(Purse, "a", to=2)).positions == []
            await app.execute(Purse, "a", Purse.empty, 1, "bread")
            with pytest.raises(ConfigurationError, match="notes would differ"):
                await app.revert(Purse, "a", to=2)
            assert (await app.revert(Purse, "a", to=2, keep=["notes"])).version == 6
            with pytest.raises(ConfigurationError, match="restore="):
                await app.revert(COINS, "a", to=1)
            with pytest.raises(ConfigurationError, match="keep="):
                await app.revert(Purse, "a", to=1, keep=["note"])
            await check_every_version(app, "a")

        self.run(url, case)

    def test_every_version_is_the_naive_fold(self, url: str, tmp_path: Path) -> None:
        amounts = st.integers(0, 20)
        commands = st.one_of(
            st.tuples(st.just(Purse.fill), amounts),
            st.tuples(st.just(Purse.empty), amounts, st.sampled_from(["", "bread"])),
            st.tuples(st.just(Purse.drain), st.integers(1, 5)),
            st.tuples(st.just(Purse.open), st.just("ada")),
        )
        places = iter(range(1_000))

        @settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
        @given(st.lists(commands, max_size=15))
        def check(sequence: list[tuple[Any, ...]]) -> None:
            id_ = f"p{next(places)}"

            async def case(app: App) -> None:
                for number, command in enumerate(sequence):
                    with suppress(Refused):
                        await app.execute((Purse, SnappedPurse)[number % 2], id_, *command)
                await check_every_version(app, id_)

            self.run(url, case)

        check()

    # Streams

    def test_reading(self, url: str) -> None:
        async def case(app: App) -> None:
            appended = await app.append("purse/a", *(PurseFilled(number) for number in range(1, 2_501)))
            assert appended.version == 2_500
            facts = await app.read("purse/a")
            assert [fact.event.amount for fact in facts] == list(range(1, 2_501))
            assert [fact.version for fact in await app.read("purse/a", backward=True)] == list(range(2_500, 0, -1))
            assert [fact.version for fact in await app.read("purse/a", after=5, upto=9, limit=2)] == [6, 7]
            assert [fact.version for fact in await app.read("purse/a", limit=1_500)][-1] == 1_500
            assert [fact.version for fact in await app.read("purse/a", upto=9, limit=2, backward=True)] == [9, 8]
            assert (await app.load(Purse, "a")).balance == sum(range(2_501))
            await app.publish(SeatTaken("c1", "s1"))
            everything = [fact async for fact in app.read_all()]
            assert [fact.position for fact in everything] == sorted(fact.position for fact in everything)
            assert len(everything) == 2_501
            assert len([fact async for fact in app.read_all(limit=7)]) == 7
            assert len([fact async for fact in app.read_all(topics=["hall"])]) == 1
            assert len([fact async for fact in app.read_all(types=["hall.*"])]) == 1
            assert len([fact async for fact in app.read_all(types=[PurseFilled], after=facts[-2].position)]) == 1
            student = [Query(tags=frozenset({"student:s1"}))]
            assert [fact.event async for fact in app.read_all(queries=student)] == [SeatTaken("c1", "s1")]

        self.run(url, case)

    def test_an_append_with_ids_is_stored_once(self, url: str) -> None:
        async def case(app: App) -> None:
            first = await app.append("purse/a", PurseFilled(1), PurseFilled(2), ids=["x", "y"], expected=ABSENT)
            again = await app.append("purse/a", PurseFilled(1), PurseFilled(2), ids=["x", "y"], expected=ABSENT)
            assert (again.repeated, again.positions, again.version) == (True, first.positions, 2)
            with pytest.raises(ConfigurationError, match="ids"):
                await app.append("purse/a", PurseFilled(1), ids=["x", "y"])
            with pytest.raises(ConfigurationError, match="topic/key"):
                await app.append("purse", PurseFilled(1))
            with pytest.raises(EncodeError, match="topic"):
                await app.append("hall/a", PurseFilled(1))

        self.run(url, case)

    def test_metadata(self, url: str) -> None:
        async def case(app: App) -> None:
            assert await app.metadata("purse/a") == {}
            await app.describe("purse/a", {"keeper": "ada", "rank": 3})
            assert await app.metadata("purse/a") == {"keeper": "ada", "rank": 3}
            await app.describe("purse/a", None)
            assert await app.metadata("purse/a") == {}

        self.run(url, case)

    def test_archived_restored_ended(self, url: str) -> None:
        async def case(app: App) -> None:
            await app.execute(Purse, "a", Purse.fill, 10)
            await app.archive("purse/a", reason="moved")
            await app.archive("purse/a")
            for attempt in (
                lambda: app.execute(Purse, "a", Purse.fill, 1),
                lambda: app.append("purse/a", PurseFilled(1)),
            ):
                with pytest.raises(StreamClosedError, match="archived"):
                    await attempt()
            assert (await app.load(Purse, "a")).balance == 10
            await app.restore("purse/a")
            await app.restore("purse/a")
            assert (await app.execute(Purse, "a", Purse.fill, 1)).version == 4
            await app.tombstone("purse/a", reason="lost")
            for closed in (app.restore("purse/a"), app.archive("purse/a"), app.execute(Purse, "a", Purse.fill, 1)):
                with pytest.raises(StreamClosedError, match="tombstoned"):
                    await closed
            facts = await app.history(Purse, "a")
            assert [fact.type for fact in facts] == [
                "purse.filled", "eventmill.stream.archived", "eventmill.stream.restored", "purse.filled",
                "eventmill.stream.tombstoned",
            ]  # fmt: skip
            assert facts[1].event.reason == "moved"
            assert len([fact async for fact in app.read_all(topics=["purse"])]) == 5
            assert (await app.load(Purse, "a")).balance == 11

        self.run(url, case)

    def test_without_await(self, url: str) -> None:
        if url.startswith("memory"):
            pytest.skip("what is in memory belongs to one event loop")
        with SyncApp(App(url, name="bank")) as client:
            client.append("purse/a", PurseOpened("ada"), expected=ABSENT)
            assert client.execute(Purse, "a", Purse.fill, 10).value == 10
            assert client.load(Purse, "a").balance == 10
            assert client.load(COINS, "a", version=1) == (Coins("ada"), 1)


class PaymentNoted(Event, name="payment.noted", key="purse"):
    purse: str
    amount: int


class TestMemory(Sourcing):
    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return f"memory://{tmp_path.name}"


class TestSqlite(Sourcing):
    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path / 'bank.db'}"


class TestPostgres(Sourcing):
    @pytest.fixture
    def url(self, postgres_url: str) -> str:
        return postgres_url
