"""What a projection must do on every store. A binding says where: `url(tmp_path)`."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from pathlib import Path

import pytest
from ledgers import POISON, Booked, Ignored, Noted, Reversed, Visited, bank, folded, rows, running, until

from eventmill import App, BehindError, BlockedError, MissingHistoryError, Transaction, View, fixed, on
from eventmill.patterns.projection.catch_up import feeding


def some_events(count: int, seed: int = 1) -> list[object]:
    draw = random.Random(seed)
    made: list[object] = []
    for _ in range(count):
        account = f"a{draw.randrange(20)}"
        made.append(
            draw.choice(
                [
                    Booked(account, draw.randrange(1, 100)),
                    Reversed(account, draw.randrange(1, 50)),
                    Visited(f"g{draw.randrange(9)}", account),
                    Ignored(account),
                ]
            )
        )
    return made


async def caught(view: View, generation: int) -> bool:
    return all(lag.events == 0 for lag in await view.lags() if lag.generation == generation)


class Life:
    def url(self, place: Path) -> str:
        raise NotImplementedError

    def test_rows_are_the_fold_of_the_events(self, tmp_path: Path) -> None:
        async def run() -> None:
            events = some_events(600)
            async with bank(self.url(tmp_path)) as app, running(app):
                view = app.view("balances")
                for start in range(0, 600, 150):
                    positions = await app.publish(*events[start : start + 150])
                    await view.at_least(positions)
                    assert await rows(app) == folded(events[: start + 150])
                assert (await view.lag()).events == 0

        asyncio.run(run())

    def test_one_that_never_ran_is_behind(self, tmp_path: Path) -> None:
        async def run() -> None:
            async with bank(self.url(tmp_path)) as app:
                view = app.view("balances")
                assert (await view.lag()).events == 0
                positions = await app.publish(Booked("ada", 1), Booked("bob", 2), Ignored("ada"))
                with pytest.raises(BehindError, match=r"2 events and .* behind; it was never started") as refused:
                    await view.at_least(positions, timeout=0.2)
                assert refused.value.events == 2
                lag = await view.lag()
                assert (lag.events, lag.started, lag.members) == (2, False, 0)
                async with running(app):
                    await view.at_least(positions)
                    assert (await view.lag()).started
                # What it has no method for is nothing to wait for, once the log was looked through so far.
                await view.at_least(await app.publish(Ignored("ada")))

        asyncio.run(run())

    def test_a_generation_stays_until_its_side_effects_have_left(self, tmp_path: Path) -> None:
        """However often it is built anew meanwhile."""

        async def run() -> None:
            async with bank(self.url(tmp_path), publish=True) as app:
                view = app.view("balances")
                await app.publish(*(Booked("ada", number) for number in range(1, 11)))
                assert await view.rebuild(show=False) == 2
                async with feeding(view, 2):  # ahead of the live one, which nobody has fed yet
                    await until(lambda: caught(view, 2))
                assert [await view.swap(), await view.rebuild()] == [2, 3]
                assert [lag.generation for lag in await view.lags()] == [1, 2, 3]

                async def told(upto: int) -> bool:
                    noted = [fact.event.number async for fact in app.read_all(types=[Noted])]
                    assert noted == list(range(1, len(noted) + 1))
                    return len(noted) == upto

                async with running(app):
                    await until(lambda: told(10))
                    await app.publish(Booked("ada", 11))
                    await until(lambda: told(11))
                    for lag in await view.lags():
                        await until(lambda name=lag.generation: caught(view, name))  # type: ignore[misc]
                    assert await view.rebuild() == 4
                    assert [lag.generation for lag in await view.lags()] == [3, 4]
                    assert await told(11)

        asyncio.run(run())

    def test_a_position_that_is_not_there_is_not_reached(self, tmp_path: Path) -> None:
        async def run() -> None:
            async with bank(self.url(tmp_path)) as app, running(app):
                (position,) = await app.publish(Booked("ada", 1))
                await app.view("balances").at_least(position)
                with pytest.raises(BehindError, match="up to date"):
                    await app.view("balances").at_least(position + 1, timeout=0.2)

        asyncio.run(run())

    def test_many_wait_at_once(self, tmp_path: Path) -> None:
        async def run() -> None:
            async with bank(self.url(tmp_path)) as app, running(app):
                view = app.view("balances")

                async def one(number: int) -> None:
                    positions = await app.publish(Booked(f"n{number}", number))
                    await view.at_least(positions)
                    found = await app.store.query("SELECT amount FROM balances WHERE account = ?", (f"n{number}",))
                    assert [int(amount) for (amount,) in found] == [number]

                await asyncio.gather(*(one(number) for number in range(40)))

        asyncio.run(run())

    def test_a_failing_event_holds_up_its_key_and_no_other(self, tmp_path: Path) -> None:
        async def run() -> None:
            async with bank(self.url(tmp_path)) as app, running(app):
                view = app.view("balances")
                first = await app.publish(Booked("ada", 1), Booked("ada", POISON), Booked("ada", 2), Booked("bob", 7))
                await view.at_least([first[0], first[3]])

                async def blocked() -> bool:
                    return (await view.lag()).dead == 1

                await until(blocked)
                assert await rows(app) == ([("ada", 1, 1), ("bob", 7, 1)], [])
                for held in first[1:3]:
                    with pytest.raises(BlockedError, match="unlucky amount"):
                        await view.at_least(held, timeout=20)
                lag = await view.lag()
                assert (lag.events, lag.dead, lag.parked) == (2, 1, 1)
                assert "ledger.booked of key 'ada'" in lag.blocked[0]
                # Others are not told to wait for ada's.
                await view.at_least(await app.publish(Booked("bob", 1)))
                dead = await app.store.jobs(view.ledger.group(1), state="dead")
                await app.store.skip([dead[0].id])
                await view.at_least(first[2])
                assert await rows(app) == ([("ada", 3, 2), ("bob", 8, 2)], [])

        asyncio.run(run())

    def test_a_list_with_one_bad_row_is_done_one_by_one(self, tmp_path: Path) -> None:
        async def run() -> None:
            app = App(self.url(tmp_path), name="checked")

            @app.projection("checked", tables=["checked"], retry=fixed(0.05, attempts=2))
            class Checked:
                async def create(self, tx: Transaction) -> None:
                    await tx.execute("CREATE TABLE {checked} (account TEXT, amount INTEGER CHECK (amount >= 0))")

                @on(Booked, batch=True)
                async def booked(self, events: list[Booked], tx: Transaction) -> None:
                    rows = [(event.account, event.amount) for event in events]
                    assert await tx.executemany("INSERT INTO {checked} VALUES (?, ?)", rows) == len(rows)

            async with app, running(app):
                view = app.view("checked")
                events = [Booked(f"a{number}", -1 if number == 17 else number) for number in range(40)]
                positions = await app.publish(*events)
                await view.at_least([*positions[:17], *positions[18:]])
                found = await app.store.query("SELECT account, amount FROM checked")
                assert sorted(found) == sorted((event.account, event.amount) for event in events if event.amount >= 0)

                async def dead() -> bool:
                    return (await view.lag()).dead == 1

                await until(dead)

        asyncio.run(run())

    def test_rebuilt_under_load_readers_see_whole_views(self, tmp_path: Path) -> None:
        async def run() -> None:
            url = self.url(tmp_path)
            async with bank(url) as app, bank(url) as builder:
                before = [Booked(f"a{number % 30}", 1) for number in range(3_000)]
                positions = await app.publish(*before)
                view = app.view("balances")
                async with running(app):
                    await view.at_least(positions, timeout=30)
                    over = asyncio.Event()
                    published = 0
                    looks = 0

                    async def load() -> None:
                        nonlocal published
                        while not over.is_set():
                            await app.publish(Booked(f"a{published % 30}", 1))
                            published += 1
                            await asyncio.sleep(0.002)

                    async def read() -> None:
                        nonlocal looks
                        seen = 3_000
                        while not over.is_set():
                            ((amount, bookings, accounts),) = await app.store.query(
                                "SELECT sum(amount), sum(bookings), count(*) FROM balances"
                            )
                            assert int(amount) == int(bookings), "a row of a half-written event"
                            assert int(accounts) == 30, "a view that was not whole"
                            assert int(amount) >= seen, "an older view than was shown before"
                            seen = int(amount)
                            looks += 1
                            await asyncio.sleep(0.001)

                    async def further() -> None:
                        """Wait until more was published, and read, than before."""
                        until = published + 15, looks + 15
                        while published < until[0] or looks < until[1]:
                            for task in tasks:
                                if task.done():
                                    task.result()
                            await asyncio.sleep(0.01)

                    tasks = [asyncio.create_task(load()), asyncio.create_task(read())]
                    assert await builder.view("balances").rebuild() == 2
                    await further()
                    assert await builder.view("balances").swap(back=True) == 1
                    assert await builder.view("balances").swap(back=True) == 2
                    await further()
                    assert await builder.view("balances").drop() == 1
                    over.set()
                    await asyncio.gather(*tasks)
                    # The workers have followed without a restart.
                    await view.at_least(await app.publish(Booked("zoe", 5)))
                    after = [Booked(f"a{number % 30}", 1) for number in range(published)]
                    assert await rows(app) == folded([*before, *after, Booked("zoe", 5)])
                names = {group.name for group in await app.store.groups()}
                assert names == {"bank.balances@2"}

        asyncio.run(run())

    def test_a_changed_definition_is_built_beside_the_old_one(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def run() -> None:
            url = self.url(tmp_path)
            events = some_events(200)
            async with bank(url) as old, running(old):
                await old.view("balances").at_least(await old.publish(*events))
            async with bank(url, version=2, factor=10) as new, running(new):
                assert "was changed (version 1 to 2" in caplog.text
                view = new.view("balances")
                more = Booked("ada", 3)
                late = await new.publish(more)
                with pytest.raises(BehindError, match="nobody feeds it"):
                    await view.at_least(late, timeout=0.3)
                assert await rows(new) == folded(events), "the new code must not write into the old one's tables"
                assert await view.rebuild(show=False) == 2
                assert await rows(new) == folded(events)
                assert await view.swap() == 2
                await view.at_least(late)
                assert await rows(new) == folded([*events, more], factor=10)
                with pytest.raises(BehindError, match="nobody feeds it"):
                    await view.swap(back=True)
                assert await view.swap(back=True, force=True) == 1

        asyncio.run(run())

    def test_the_difference_is_told_row_by_row(self, tmp_path: Path) -> None:
        async def run() -> None:
            url = self.url(tmp_path)
            async with bank(url) as app, running(app):
                view = app.view("balances")
                await view.at_least(await app.publish(*(Booked(f"a{number}", number) for number in range(50))))
                await view.at_least(await app.publish(Visited("gil", "a1"), Visited("gil", "a1")))
                assert await view.rebuild(show=False) == 2
                assert all(each.same for each in await view.difference())
                async with app.transaction() as tx:
                    await tx.execute("UPDATE balances__2 SET amount = 1000 WHERE account = 'a7'")
                    await tx.execute("DELETE FROM balances__2 WHERE account = 'a8'")
                    await tx.execute("INSERT INTO balances__2 VALUES ('new', 1, 1)")
                balances, visits = await view.difference()
                assert visits.same
                assert [(change.shown, change.other) for change in balances.changes] == [
                    (("a7", 7, 1), ("a7", 1000, 1)),
                    (("a8", 8, 1), None),
                    (None, ("new", 1, 1)),
                ]
                (first, _) = await view.difference(limit=1)
                assert (first.rows, len(first.changes)) == (3, 1)

        asyncio.run(run())

    def test_side_effects_leave_once_whatever_is_rebuilt(self, tmp_path: Path) -> None:
        async def run() -> None:
            url = self.url(tmp_path)
            noted: list[tuple[str, int]] = []
            app = bank(url, publish=True)

            @app.on(Noted)
            async def note(event: Noted) -> None:
                noted.append((event.about, event.number))

            async with app, running(app):
                view = app.view("balances")
                over = asyncio.Event()
                expected: list[tuple[str, int]] = []

                async def load() -> None:
                    while not over.is_set():
                        expected.append((f"a{len(expected) % 7}", len(expected)))
                        await app.publish(Booked(*expected[-1]))
                        await asyncio.sleep(0.001)

                loading = asyncio.create_task(load())
                await asyncio.sleep(0.1)
                await view.rebuild()
                await asyncio.sleep(0.05)
                await view.swap(back=True)
                await asyncio.sleep(0.05)
                await view.swap(back=True)
                over.set()
                await loading
                await view.at_least(await app.publish(Booked("last", 1)))
                expected.append(("last", 1))

                async def all_noted() -> bool:
                    return len(noted) >= len(expected)

                await until(all_noted)
                await asyncio.sleep(0.2)
                assert Counter(noted) == Counter(expected)

        asyncio.run(run())

    def test_tasks_are_sent_once_whatever_is_rebuilt(self, tmp_path: Path) -> None:
        async def run() -> None:
            ran: list[int] = []
            app = App(self.url(tmp_path), name="sending")

            @app.task()
            async def remind(number: int) -> None:
                ran.append(number)

            @app.projection("sent", tables=["sent"])
            class Sent:
                async def create(self, tx: Transaction) -> None:
                    await tx.execute("CREATE TABLE {sent} (amount INTEGER)")

                @on(Booked)
                async def booked(self, event: Booked, tx: Transaction) -> None:
                    await tx.execute("INSERT INTO {sent} VALUES (?)", (event.amount,))
                    assert tx.send(remind.job(event.amount))

            async with app, running(app):
                view = app.view("sent")
                await view.at_least(await app.publish(*(Booked("ada", number) for number in range(10))))
                await view.rebuild()
                await view.at_least(await app.publish(*(Booked("ada", number) for number in range(10, 20))))

                async def all_ran() -> bool:
                    return len(ran) >= 20

                await until(all_ran)
                await asyncio.sleep(0.3)
                assert sorted(ran) == list(range(20))

        asyncio.run(run())

    def test_history_that_is_gone_is_never_passed_over(self, tmp_path: Path) -> None:
        async def run() -> None:
            url = self.url(tmp_path)
            async with bank(url) as app:
                async with running(app):
                    await app.view("balances").at_least(await app.publish(*(Booked("ada", 1) for _ in range(9))))
                    await app.view("balances").at_least(await app.publish(Visited("gil", "ada")))
                await asyncio.sleep(0.01)
                assert (await app.store.trim("ledger", older_than=0.001, force=True)).messages == 9
                with pytest.raises(MissingHistoryError, match="ledger up to position"):
                    await app.view("balances").rebuild()
                assert {group.name for group in await app.store.groups()} == {"bank.balances@1"}
                async with running(app):
                    assert await app.view("balances").rebuild(partial=True) == 2
                assert (await app.view("balances").lag()).partial
                assert await rows(app) == ([], [("gil", "ada")])
            for partial in (False, True):
                newcomer = App(url, name=f"newcomer{partial}")
                _declare_count(newcomer, partial=partial)
                if partial:
                    async with newcomer:
                        pass
                else:
                    with pytest.raises(MissingHistoryError, match="partial=True"):
                        await newcomer.open()

        asyncio.run(run())

    def test_a_rebuild_that_was_interrupted_goes_on(self, tmp_path: Path) -> None:
        async def run() -> None:
            url = self.url(tmp_path)
            events = [Booked(f"a{number % 50}", number % 11) for number in range(6_000)]
            async with bank(url) as app:
                async with running(app):
                    await app.view("balances").at_least(await app.publish(*events), timeout=60)
                view = app.view("balances")
                begun = asyncio.create_task(view.rebuild())

                async def somewhere() -> bool:
                    state = await view.state()
                    return 2 in state.generations and any((await app.store.cursors("bank.balances@2")).values())

                await until(somewhere)
                begun.cancel()
                await asyncio.wait({begun})
                assert await rows(app) == folded(events)
                assert await view.rebuild() == 2
                assert await rows(app) == folded(events)
                assert len((await view.state()).generations) == 2

        asyncio.run(run())

    def test_two_workers_share_the_partitions(self, tmp_path: Path) -> None:
        async def run() -> None:
            url = self.url(tmp_path)
            events = some_events(400, seed=3)
            async with bank(url) as one, bank(url) as two, running(one, two):
                view = one.view("balances")
                for start in range(0, 400, 50):
                    await view.at_least(await two.publish(*events[start : start + 50]))

                async def shared() -> bool:
                    (group,) = await one.store.groups()
                    return len([held for held in group.members.values() if held]) == 2

                await until(shared)
                assert await rows(one) == folded(events)

        asyncio.run(run())


def _declare_count(app: App, *, partial: bool) -> None:
    @app.projection("count", tables=["counted"], partial=partial)
    class Count:
        async def create(self, tx: Transaction) -> None:
            await tx.execute("CREATE TABLE {counted} (account TEXT PRIMARY KEY)")

        @on(Booked)
        async def booked(self, event: Booked, tx: Transaction) -> None:
            await tx.execute("INSERT INTO {counted} VALUES (?) ON CONFLICT DO NOTHING", (event.account,))
