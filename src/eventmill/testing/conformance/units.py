"""Units of work: all or nothing, and nobody disturbed."""

from __future__ import annotations

import asyncio

from eventmill.core.document import ABSENT, Document
from eventmill.core.errors import ConflictError, DuplicateError, EventmillError, LeaseLostError
from eventmill.core.rows import Rows
from eventmill.testing.conformance.members import GROUP, Member
from eventmill.testing.conformance.samples import TOPIC, everything, ids, job, message, partitions
from eventmill.testing.conformance.suite import Backend, Conformance, Stage, case, refused

CREATE = "CREATE TABLE IF NOT EXISTS orders (id INTEGER PRIMARY KEY, total INTEGER NOT NULL)"
INSERT = "INSERT INTO orders (id, total) VALUES (?, ?)"
SELECT = "SELECT id, total FROM orders ORDER BY id"


class Stop(Exception):
    """Raised by a case to leave a unit badly."""


async def create(store: Backend) -> None:
    async with store.transaction() as tx:
        await tx.execute(CREATE)


async def orders(store: Backend) -> list[tuple[int, int]]:
    async with store.transaction() as tx:
        return [(row[0], row[1]) for row in await tx.execute(SELECT)]


async def document(store: Backend, key: str) -> Document | None:
    """As a transaction sees it; whoever reads outside of one must see the same."""
    async with store.transaction() as tx:
        found = await tx.get(key)
    assert await store.document(key) == found
    return found


class UnitCases(Conformance[Backend]):
    """Transactions: documents, the user's own SQL, messages, jobs and inbox marks together."""

    # The user's own SQL

    @case()
    async def test_statements_return_rows(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            await create(store)
            async with store.transaction() as tx:
                assert (await tx.execute(INSERT, (1, 10))).rowcount == 1
                await tx.execute("INSERT INTO orders (id, total) VALUES (:id, :total)", {"id": 2, "total": 20})
                assert await tx.executemany(INSERT, [(3, 30), (4, 40)]) == 2
                rows = await tx.execute(SELECT)
                assert isinstance(rows, Rows)
                assert rows == [(1, 10), (2, 20), (3, 30), (4, 40)]
                assert rows.columns == ("id", "total")
                assert (await tx.execute("UPDATE orders SET total = 0 WHERE id > ?", (2,))).rowcount == 2
            assert await orders(store) == [(1, 10), (2, 20), (3, 0), (4, 0)]

    @case()
    async def test_everything_commits_together(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            await create(store)
            async with store.transaction() as tx:
                await tx.execute(INSERT, (1, 10))
                tx.append([message(1, "a")])
                tx.send([job(2, "a")])
                tx.put("order/1", b"new", expected=ABSENT)
                tx.receive(GROUP, message(9))
                assert await everything(store) == []
            await self._expect(
                store, [(1, 10)], ["m1"], ["m2"], Document("order/1", 1, b"new"), {("m9", "conformance")}
            )

    @case()
    async def test_an_error_undoes_everything(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            await create(store)
            with refused(Stop):
                async with store.transaction() as tx:
                    await tx.execute(INSERT, (1, 10))
                    tx.append([message(1, "a")])
                    tx.send([job(2, "a")])
                    tx.put("order/1", b"new", expected=ABSENT)
                    tx.receive(GROUP, message(9))
                    raise Stop
            await self._expect(store, [], [], [], None, set())

    @case()
    async def test_a_failing_statement_undoes_everything(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            await create(store)
            with refused(Exception):
                async with store.transaction() as tx:
                    tx.append([message(1)])
                    await tx.execute(INSERT, (1, 10))
                    await tx.execute(INSERT, (1, 11))
            await self._expect(store, [], [], [], None, set())

    async def _expect(
        self,
        store: Backend,
        rows: list[tuple[int, int]],
        messages: list[str],
        jobs: list[str],
        document_: Document | None,
        received: set[tuple[str, str]],
    ) -> None:
        assert await orders(store) == rows
        assert ids(await everything(store)) == messages
        assert [found.message.id for found in await store.jobs()] == jobs
        assert await document(store, "order/1") == document_
        assert set(await store.received(GROUP, ["m9"])) == received

    @case()
    async def test_cancelling_undoes_everything(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            await create(store)
            inside = asyncio.Event()

            async def work() -> None:
                async with store.transaction() as tx:
                    await tx.execute(INSERT, (1, 10))
                    tx.append([message(1)])
                    inside.set()
                    await asyncio.sleep(3600)

            task = asyncio.create_task(work())
            await inside.wait()
            task.cancel()
            with refused(asyncio.CancelledError):
                await task
            await self._expect(store, [], [], [], None, set())

    @case(durable=True)
    async def test_a_commit_outlives_closing(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            await create(store)
            async with store.transaction() as tx:
                await tx.execute(INSERT, (1, 10))
                tx.append([message(1, "a")])
                tx.send([job(2, "a")])
                tx.put("order/1", b"new", expected=ABSENT)
                tx.receive(GROUP, message(9))
        async with stage.open() as store:
            await self._expect(
                store, [(1, 10)], ["m1"], ["m2"], Document("order/1", 1, b"new"), {("m9", "conformance")}
            )

    @case()
    async def test_statements_cannot_end_the_transaction(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            await create(store)
            for statement in ("COMMIT", "rollback", "  BEGIN IMMEDIATE", "END;"):
                with refused(EventmillError):
                    async with store.transaction() as tx:
                        await tx.execute(INSERT, (1, 10))
                        await tx.execute(statement)
            assert await orders(store) == []

    @case()
    async def test_an_ended_transaction_takes_nothing(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            await create(store)
            async with store.transaction() as tx:
                await tx.execute(INSERT, (1, 10))
            with refused(EventmillError):
                await tx.execute(INSERT, (2, 20))
            with refused(EventmillError):
                tx.append([message(1)])
            assert await orders(store) == [(1, 10)]
            assert await everything(store) == []

    @case()
    async def test_one_failure_disturbs_no_other(self, stage: Stage[Backend]) -> None:
        async def unit(number: int) -> None:
            async with store.transaction() as tx:
                tx.append([message(number, f"key{number % 4}")])
                if number % 2:
                    await tx.execute(INSERT, (number, number))
                if number % 8 == 3:
                    raise Stop
                if number % 8 == 5:
                    tx.put("taken", b"", expected=ABSENT)
                tx.put(f"order/{number}", b"new", expected=ABSENT)

        async with stage.open() as store:
            await create(store)
            async with store.transaction() as tx:
                tx.put("taken", b"", expected=ABSENT)
            results = await asyncio.gather(*(unit(number) for number in range(64)), return_exceptions=True)
            expected = {3: Stop, 5: ConflictError}
            for number, result in enumerate(results):
                assert type(result) is expected.get(number % 8, type(None)), (number, result)
            good = [number for number in range(64) if number % 8 not in expected]
            assert await orders(store) == [(number, number) for number in good if number % 2]
            found = await everything(store)
            assert sorted(ids(found)) == sorted(f"m{number}" for number in good)
            for key in range(4):
                of_key = [record.message.sequence for record in found if record.message.key == f"key{key}"]
                assert of_key == list(range(1, len(of_key) + 1))
            for number in range(64):
                assert (await document(store, f"order/{number}") is not None) == (number in good)

    @case()
    async def test_statements_that_write_what_they_read_do_not_overlap(self, stage: Stage[Backend]) -> None:
        async def increment() -> None:
            async with store.transaction() as tx:
                await tx.execute("UPDATE orders SET total = total + 1 WHERE id = ?", (1,))

        async with stage.open() as store:
            await create(store)
            async with store.transaction() as tx:
                await tx.execute(INSERT, (1, 0))
            await asyncio.gather(*(increment() for _ in range(20)))
            assert await orders(store) == [(1, 20)]

    @case(one_writer=True)
    async def test_units_that_read_then_write_do_not_overlap(self, stage: Stage[Backend]) -> None:
        async def increment() -> None:
            async with store.transaction() as tx:
                ((total,),) = await tx.execute("SELECT total FROM orders WHERE id = 1")
                await asyncio.sleep(0)
                await tx.execute("UPDATE orders SET total = ? WHERE id = 1", (total + 1,))

        async with stage.open() as store:
            await create(store)
            async with store.transaction() as tx:
                await tx.execute(INSERT, (1, 0))
            await asyncio.gather(*(increment() for _ in range(20)))
            assert await orders(store) == [(1, 20)]

    @case(shared=True)
    async def test_units_of_two_backends_do_not_overlap(self, stage: Stage[Backend]) -> None:
        async def increment(store: Backend) -> None:
            async with store.transaction() as tx:
                found = await tx.get("count")
                await asyncio.sleep(0)
                before = int(found.data) if found else 0
                tx.put("count", str(before + 1).encode(), expected=found.version if found else ABSENT)

        async with stage.open() as one, stage.open() as two:
            await asyncio.gather(*(increment(one if number % 2 else two) for number in range(20)))
            assert await document(one, "count") == Document("count", 20, b"20")
            assert await document(two, "count") == Document("count", 20, b"20")

    # Documents

    @case()
    async def test_documents_count_their_versions(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            assert await document(store, "a") is None
            for version in range(3):
                async with store.transaction() as tx:
                    tx.put("a", str(version).encode(), expected=version)
                assert await document(store, "a") == Document("a", version + 1, str(version).encode())
            async with store.transaction() as tx:
                tx.put("a", b"over", expected=None)
                tx.put("b", b"first", expected=None)
            assert await document(store, "a") == Document("a", 4, b"over")
            assert await document(store, "b") == Document("b", 1, b"first")

    @case()
    async def test_documents_are_deleted_and_begin_anew(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            async with store.transaction() as tx:
                tx.put("a", b"1", expected=ABSENT)
            with refused(ConflictError):
                async with store.transaction() as tx:
                    tx.put("a", None, expected=7)
            async with store.transaction() as tx:
                tx.put("a", None, expected=1)
            assert await document(store, "a") is None
            async with store.transaction() as tx:
                tx.put("a", b"2", expected=ABSENT)
            assert await document(store, "a") == Document("a", 1, b"2")

    @case()
    async def test_a_conflict_says_what_it_found(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            async with store.transaction() as tx:
                tx.put("a", b"1", expected=ABSENT)
            for key, expected, actual in (("a", ABSENT, 1), ("a", 2, 1), ("b", 1, None)):
                with refused(ConflictError) as caught:
                    async with store.transaction() as tx:
                        tx.put(key, b"2", expected=expected)
                assert (caught.error.expected, caught.error.actual) == (expected, actual)
                assert key in str(caught.error)
            assert await document(store, "a") == Document("a", 1, b"1")
            assert await document(store, "b") is None

    @case()
    async def test_a_conflict_undoes_its_own_unit_only(self, stage: Stage[Backend]) -> None:
        async def unit(number: int, *, conflict: bool) -> None:
            async with store.transaction() as tx:
                await tx.execute(INSERT, (number, number))
                tx.append([message(number)])
                tx.put("taken" if conflict else f"free{number}", b"", expected=ABSENT)

        async with stage.open() as store:
            await create(store)
            async with store.transaction() as tx:
                tx.put("taken", b"", expected=ABSENT)
            results = await asyncio.gather(
                unit(1, conflict=False), unit(2, conflict=True), unit(3, conflict=False), return_exceptions=True
            )
            assert [type(result) for result in results] == [type(None), ConflictError, type(None)]
            assert await orders(store) == [(1, 1), (3, 3)]
            assert sorted(ids(await everything(store))) == ["m1", "m3"]

    @case()
    async def test_a_unit_sees_its_own_documents(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            async with store.transaction() as tx:
                tx.put("a", b"1", expected=ABSENT)
                assert await tx.get("a") == Document("a", 1, b"1")
                tx.put("a", b"2", expected=1)
                assert await tx.get("a") == Document("a", 2, b"2")
                tx.put("a", None, expected=2)
                assert await tx.get("a") is None
                tx.put("a", b"3", expected=ABSENT)
            assert await document(store, "a") == Document("a", 1, b"3")

    @case()
    async def test_many_documents_at_once(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            keys = [f"many/{number}" for number in range(100)]
            async with store.transaction() as tx:
                for key in keys[:50]:
                    tx.put(key, b"1", expected=ABSENT)
            async with store.transaction() as tx:
                found = await tx.get_many([*keys, "none"])
                assert found == {key: Document(key, 1, b"1") for key in keys[:50]}
                for key in keys:
                    tx.put(key, b"2", expected=found[key].version if key in found else ABSENT)
                tx.put(keys[0], None, expected=2)
                again = await tx.get_many(keys[:2])
                assert again == {keys[1]: Document(keys[1], 2, b"2")}
            async with store.transaction() as tx:
                found = await tx.get_many(keys)
            assert {key: each.version for key, each in found.items()} == {
                key: 2 if number < 50 else 1 for number, key in enumerate(keys) if number
            }

    @case()
    async def test_one_conflict_among_many_documents_undoes_all(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            keys = [f"many/{number}" for number in range(30)]
            async with store.transaction() as tx:
                tx.put(keys[7], b"1", expected=ABSENT)
                tx.put(keys[8], b"1", expected=ABSENT)
            for wrong in ({keys[7]: 2}, {keys[9]: 1}, {keys[8]: ABSENT}):
                versions = {keys[7]: 1, keys[8]: 1} | wrong
                with refused(ConflictError) as caught:
                    async with store.transaction() as tx:
                        for key in keys:
                            tx.put(key, b"2", expected=versions.get(key, ABSENT))
                assert next(iter(wrong)) in str(caught.error)
            assert [each.key for each in await store.documents("many/")] == [keys[7], keys[8]]
            async with store.transaction() as tx:
                for key in keys:
                    tx.put(key, b"2", expected=1 if key in (keys[7], keys[8]) else ABSENT)
            assert len(await store.documents("many/")) == len(keys)

    @case()
    async def test_documents_are_listed_by_prefix_page_by_page(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            keys = ["a/1", "a/10", "a/2", "a/é", "a/\U0001f600", "a", "b/1", "A/1"]
            async with store.transaction() as tx:
                for key in keys:
                    tx.put(key, key.encode(), expected=ABSENT)
            wanted = sorted(key for key in keys if key.startswith("a/"))
            found: list[Document] = []
            while page := await store.documents("a/", after=found[-1].key if found else "", limit=2):
                assert len(page) <= 2
                found += page
            assert found == [Document(key, 1, key.encode()) for key in wanted]
            assert await store.documents("a/2") == [Document("a/2", 1, b"a/2")]
            assert await store.documents("c") == []
            assert [each.key for each in await store.documents("")] == sorted(keys)

    # Inbox

    @case()
    async def test_a_message_is_received_once_by_a_group(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            await create(store)
            for group in ("readers", "writers"):
                async with store.transaction() as tx:
                    tx.receive(group, message(1))
            with refused(DuplicateError):
                async with store.transaction() as tx:
                    await tx.execute(INSERT, (1, 10))
                    tx.append([message(2)])
                    tx.receive("readers", message(1))
            assert await orders(store) == []
            assert await everything(store) == []
            assert set(await store.received("readers", ["m1", "m2"])) == {("m1", "conformance")}
            assert set(await store.received("others", ["m1"])) == set()

    @case()
    async def test_of_two_receivers_at_once_one_wins(self, stage: Stage[Backend]) -> None:
        async def receive(number: int) -> None:
            async with store.transaction() as tx:
                tx.receive("readers", message(1))
                tx.append([message(number)])

        async with stage.open() as store:
            results = await asyncio.gather(*(receive(number) for number in range(8)), return_exceptions=True)
            assert sum(isinstance(result, DuplicateError) for result in results) == 7
            assert len(await everything(store)) == 1

    # Claims

    @case()
    async def test_a_unit_may_be_discarded(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            await create(store)
            unit = store.unit()
            await unit.execute(INSERT, (1, 10))
            unit.append([message(1)])
            await unit.discard()
            await unit.discard()
            assert await orders(store) == []
            assert await everything(store) == []

    @case()
    async def test_after_a_lost_commit_the_fence_refuses_all(self, stage: Stage[Backend]) -> None:
        async with stage.open() as store:
            await create(store)
            await store.declare({TOPIC: 1})
            member = Member(store, "a/1", partitions(1))
            await member.balance()
            member.fence.valid = False
            for claim in (None, member.cursors[partitions(1)[0]]):
                unit = store.unit(claim, member.fence)
                with refused(LeaseLostError):
                    unit.append([message(1)])
                    await unit.execute(INSERT, (1, 10))
                    await (await unit.finish())
                await unit.discard()
            assert await orders(store) == []
            assert await everything(store) == []
