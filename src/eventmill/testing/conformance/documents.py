"""Documents: compared before they are set, one or many at a time, and listed."""

from __future__ import annotations

import asyncio

from eventmill.core.document import ABSENT, Document
from eventmill.core.errors import ConflictError
from eventmill.testing.conformance.samples import everything, ids, message
from eventmill.testing.conformance.suite import Backend, Conformance, Stage, case, refused
from eventmill.testing.conformance.units import INSERT, create, document, orders


class DocumentCases(Conformance[Backend]):
    """Keyed values with versions."""

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
