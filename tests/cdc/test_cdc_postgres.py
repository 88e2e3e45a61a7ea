"""What is captured from PostgreSQL, statement by statement."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path
from typing import Any

import psycopg
import pytest
from cdc_watching import declared, run, watched

from eventmill import ConfigurationError
from eventmill.core.clock import Ids
from eventmill.patterns.cdc.policy import RetentionPolicy
from eventmill.patterns.cdc.report import report
from eventmill.patterns.cdc.setup import drop, initialise

TABLE = "CREATE TABLE things (id integer PRIMARY KEY, name text, big text)"
LARGE = "ALTER TABLE things ALTER COLUMN big SET STORAGE EXTERNAL"
NOTHING = {"position", "transaction", "at"}


@pytest.fixture(params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgres":
        return str(request.getfixturevalue("second_database"))
    return f"sqlite:///{tmp_path}/watch.db"


@pytest.fixture
def second_database(postgres_server: str) -> Any:
    import rooms

    with rooms.database(postgres_server) as url:
        yield url


def plain(changes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without what is different each time."""
    return [{name: value for name, value in change.items() if name not in NOTHING} for change in changes]


def test_each_statement_is_told_with_its_images(postgres_url: str, store: str) -> None:
    async def main() -> None:
        run(postgres_url, TABLE, "INSERT INTO things VALUES (1, 'one', NULL)")
        async with watched(store, postgres_url, ["things"], order="table") as found:
            await found.count(1)
            run(
                postgres_url,
                "INSERT INTO things VALUES (2, 'two', 'b'), (3, 'three', 'c')",
                "UPDATE things SET name = 'ONE' WHERE id = 1",
                "DELETE FROM things WHERE id = 2",
                "UPDATE things SET id = 4 WHERE id = 3",
                "TRUNCATE things",
                "INSERT INTO things VALUES (5, 'five', NULL)",
            )
            await found.count(9)
            assert plain(found.data()) == [
                {"op": "snapshot", "table": "things", "key": {"id": 1}, "after": {"id": 1, "name": "one", "big": None}},
                {"op": "insert", "table": "things", "key": {"id": 2}, "after": {"id": 2, "name": "two", "big": "b"}, "number": 1},
                {
                    "op": "insert", "table": "things", "key": {"id": 3}, "after": {"id": 3, "name": "three", "big": "c"},
                    "number": 2, "last": True,
                },
                {
                    "op": "update", "table": "things", "key": {"id": 1}, "after": {"id": 1, "name": "ONE", "big": None},
                    "number": 1, "last": True,
                },
                {"op": "delete", "table": "things", "key": {"id": 2}, "before": {"id": 2}, "number": 1, "last": True},
                {"op": "delete", "table": "things", "key": {"id": 3}, "before": {"id": 3}, "moved": {"id": 4}, "number": 1},
                {
                    "op": "insert", "table": "things", "key": {"id": 4}, "after": {"id": 4, "name": "three", "big": "c"},
                    "moved": {"id": 3}, "number": 1, "last": True,
                },
                {"op": "truncate", "table": "things", "number": 1, "last": True},
                {
                    "op": "insert", "table": "things", "key": {"id": 5}, "after": {"id": 5, "name": "five", "big": None},
                    "number": 1, "last": True,
                },
            ]  # fmt: skip
            assert {message.source for message in found.seen} == {"watch"}
            assert len({message.id for message in found.seen}) == 9
            transactions = [message.correlationid for message in found.seen]
            assert transactions[1] == transactions[2] != transactions[3]

    asyncio.run(main())


def test_whole_before_images_where_the_identity_is_full(postgres_url: str, tmp_path: Path) -> None:
    async def main() -> None:
        run(postgres_url, TABLE, LARGE, "ALTER TABLE things REPLICA IDENTITY FULL")
        async with watched(f"sqlite:///{tmp_path}/w.db", postgres_url, ["things"]) as found:
            large = "x" * 5_000
            run(postgres_url, f"INSERT INTO things VALUES (1, 'one', '{large}')", "UPDATE things SET name = 'ONE'",
                "DELETE FROM things")  # fmt: skip
            await found.count(3)
            _, update, delete = found.data()
            assert update["before"] == {"id": 1, "name": "one", "big": large}
            assert update["after"] == {"id": 1, "name": "ONE", "big": large}
            assert "unchanged" not in update
            assert delete["before"] == {"id": 1, "name": "ONE", "big": large}

    asyncio.run(main())


def test_a_large_value_that_is_left_alone_is_kept_and_never_a_placeholder(postgres_url: str, tmp_path: Path) -> None:
    async def main() -> None:
        run(postgres_url, TABLE, LARGE)
        large = "".join(random.choices("abcdefgh", k=1_000_000))
        async with watched(f"sqlite:///{tmp_path}/w.db", postgres_url, ["things"]) as found:
            run(
                postgres_url,
                f"INSERT INTO things VALUES (1, 'one', '{large}')",
                "UPDATE things SET name = 'ONE'",
                "UPDATE things SET id = 2",  # the row under its new key must be whole
                "UPDATE things SET big = NULL",
            )
            await found.count(5)
            insert, update, gone, come, emptied = found.data()
            assert insert["after"]["big"] == large
            assert update["after"] == {"id": 1, "name": "ONE"}
            assert update["unchanged"] == ["big"]
            assert (gone["op"], gone["key"]) == ("delete", {"id": 1})
            # The value as it is at the moment of asking: the later change tells the rest.
            assert come["after"]["big"] in (large, None)
            assert emptied["after"]["big"] is None

    asyncio.run(main())


def test_values_are_exact(postgres_url: str, tmp_path: Path) -> None:
    run(
        postgres_url,
        "CREATE TYPE mood AS ENUM ('glad', 'sad')",
        "CREATE TABLE kinds (id bigint PRIMARY KEY, b boolean, f double precision, n numeric, t timestamp, z timestamptz,"
        " d date, x bytea, j jsonb, a integer[], m mood, u uuid, i interval, ts text[])",
        "INSERT INTO kinds VALUES (9007199254740993, true, 0.1, 1234567890123456789.10, '2026-01-31 12:00', "
        "'2026-01-31 12:00:00.5+02', '2026-02-28', '\\x00ff', '{\"a\": [1, null]}', '{{1,2},{3,NULL}}', 'sad', "
        "'6b6bf4a5-8f3b-4b6c-9d1f-0e5a1f2b3c4d', '1 day 2 hours', ARRAY['a,b', '{', '\"q\"', '', 'NULL'])",
        "INSERT INTO kinds (id, f, n, t) VALUES (2, 'NaN', 'NaN', 'infinity')",
    )

    async def main() -> None:
        async with watched(f"sqlite:///{tmp_path}/w.db", postgres_url, ["kinds"]) as found:
            await found.count(2)
            run(postgres_url, "UPDATE kinds SET b = NOT b WHERE id > 2", "INSERT INTO kinds SELECT -1")
            await found.count(4)
            rows = {row["key"]["id"]: row["after"] for row in found.data() if row["op"] == "snapshot"}
            first = rows[9007199254740993]
            assert first == {
                "id": 9007199254740993, "b": True, "f": 0.1, "n": "1234567890123456789.10", "t": "2026-01-31T12:00:00",
                "z": "2026-01-31T10:00:00.5Z", "d": "2026-02-28", "x": "AP8=", "j": {"a": [1, None]},
                "a": [[1, 2], [3, None]], "m": "sad", "u": "6b6bf4a5-8f3b-4b6c-9d1f-0e5a1f2b3c4d", "i": "P1DT2H",
                "ts": ["a,b", "{", '"q"', "", "NULL"],
            }  # fmt: skip
            assert (rows[2]["f"], rows[2]["n"], rows[2]["t"]) == ("NaN", "NaN", "infinity")
            (update,) = [row for row in found.data() if row["op"] == "update"]
            assert update["after"] == {**first, "b": False}  # the stream's texts are those of the snapshot

    asyncio.run(main())


def test_columns_come_and_go_while_it_streams(postgres_url: str, store: str) -> None:
    async def main() -> None:
        run(postgres_url, TABLE)
        async with watched(store, postgres_url, ["things"], order="table") as found:
            run(
                postgres_url,
                "INSERT INTO things VALUES (1, 'one', NULL)",
                "ALTER TABLE things ADD COLUMN more integer DEFAULT 7",
                "INSERT INTO things VALUES (2, 'two', NULL, 8)",
                "ALTER TABLE things DROP COLUMN big",
                "UPDATE things SET name = 'ONE' WHERE id = 1",
                "ALTER TABLE things RENAME COLUMN more TO less",
                "ALTER TABLE things ALTER COLUMN less TYPE bigint",
                "INSERT INTO things VALUES (3, 'three', 9)",
                "ALTER TABLE things RENAME TO stuff",
                "INSERT INTO stuff VALUES (4, 'four', 10)",
            )
            await found.until(lambda seen: seen and b'"four"' in seen[-1].data)
        changes = found.data("watch.things")
        assert [change["after"] for change in changes] == [
            {"id": 1, "name": "one", "big": None},
            {"id": 2, "name": "two", "big": None, "more": 8},
            {"id": 1, "name": "ONE", "more": 7},
            {"id": 3, "name": "three", "less": 9},
            {"id": 4, "name": "four", "less": 10},
        ]
        schemas = found.data("watch.things.schema")
        assert [schema.get("added", []) for schema in schemas] == [["more"], [], ["less"], []]
        assert [schema.get("dropped", []) for schema in schemas] == [[], ["big"], ["more"], []]
        assert [schema["name"] for schema in schemas] == ["public.things"] * 3 + ["public.stuff"]

    asyncio.run(main())


def test_a_renamed_column_is_said_to_be_one(postgres_url: str, tmp_path: Path) -> None:
    async def main() -> None:
        run(postgres_url, TABLE)
        store = f"sqlite:///{tmp_path}/w.db"
        async with watched(store, postgres_url, ["things"]) as found:
            run(postgres_url, "ALTER TABLE things RENAME id TO ident", "ALTER TABLE things RENAME name TO label",
                "INSERT INTO things VALUES (1, 'one', NULL)")  # fmt: skip
            await found.count(2)
        (schema,) = found.data("watch.things.schema")
        assert schema["renamed"] == [["id", "ident"], ["name", "label"]]
        assert found.data("watch.things")[0]["key"] == {"ident": 1}
        # The shape is remembered: told once, whoever goes on.
        async with watched(store, postgres_url, ["things"], init=False) as again:
            run(postgres_url, "INSERT INTO things VALUES (2, 'two', NULL)")
            await again.until(lambda seen: any(b'"two"' in message.data for message in seen))
            assert again.data("watch.things.schema") == []

    asyncio.run(main())


@pytest.mark.parametrize(
    ("statement", "column"),
    [
        ("ALTER TABLE things ALTER COLUMN id TYPE bigint", "column id.* was integer and is bigint"),
        (
            "ALTER TABLE things DROP CONSTRAINT things_pkey, ADD PRIMARY KEY (id, name)",
            "its key was id and is id, name",
        ),
        ("ALTER TABLE things DROP COLUMN id, ADD PRIMARY KEY (name)", "its key was id and is name"),
    ],
)
def test_another_key_stops_it_with_table_and_column_named(
    postgres_url: str, tmp_path: Path, statement: str, column: str
) -> None:
    async def main() -> None:
        run(postgres_url, TABLE)
        async with watched(f"sqlite:///{tmp_path}/w.db", postgres_url, ["things"]) as found:
            run(postgres_url, "INSERT INTO things VALUES (1, 'one', NULL)")
            await found.count(1)
            run(postgres_url, statement, "INSERT INTO things (name) VALUES ('x')" if "DROP COLUMN" in statement
                else "INSERT INTO things VALUES (2, 'two', NULL)")  # fmt: skip
            with pytest.raises(ConfigurationError, match=f"public.things: .*{column}"):
                await found.count(99)

    asyncio.run(main())


def test_a_transaction_of_a_hundred_thousand_rows(postgres_url: str, tmp_path: Path) -> None:
    async def main() -> None:
        run(postgres_url, TABLE)
        async with watched(f"sqlite:///{tmp_path}/w.db", postgres_url, ["things"]) as found:
            run(postgres_url, "INSERT INTO things SELECT i, 'n' || i, NULL FROM generate_series(1, 100000) i")
            await found.count(100_000, 100)
            changes = found.data()
            assert sorted(change["number"] for change in changes) == list(range(1, 100_001))
            assert {change["position"] for change in changes} == {changes[0]["position"]}
            assert [change["number"] for change in changes if change.get("last")] == [100_000]

    asyncio.run(main())


def test_messages_without_a_table(postgres_url: str, tmp_path: Path) -> None:
    async def main() -> None:
        run(postgres_url, TABLE)
        async with watched(f"sqlite:///{tmp_path}/w.db", postgres_url, ["things"], messages=["outbox"]) as found:
            event = {"type": "watch.greeted", "partitionkey": "g1", "data": {"hello": 1}}
            with psycopg.connect(postgres_url) as connection:
                connection.execute("INSERT INTO things VALUES (1, 'one', NULL)")
                connection.execute("SELECT pg_logical_emit_message(true, 'outbox', %s)", (json.dumps(event),))
                connection.execute("SELECT pg_logical_emit_message(true, 'others', 'not ours')")
                connection.execute("SELECT pg_logical_emit_message(true, 'outbox', 'plain words')")
            with psycopg.connect(postgres_url) as connection:
                connection.execute("SELECT pg_logical_emit_message(true, 'outbox', %s)", (json.dumps(event),))
                connection.rollback()
            run(postgres_url, "SELECT pg_logical_emit_message(false, 'outbox', 'at once')",
                "INSERT INTO things VALUES (2, 'two', NULL)")  # fmt: skip
            log = await log_of(found.app.store, ["watch.things", "watch.messages", "watch"], 5)
        assert [message.type for message in log] == [
            "watch.things", "watch.greeted", "watch.messages", "watch.messages", "watch.things",
        ]  # fmt: skip
        greeted = log[1]
        assert (greeted.key, json.loads(greeted.data), greeted.source) == ("g1", {"hello": 1}, "watch")
        assert [json.loads(log[n].data)["text"] for n in (2, 3)] == ["plain words", "at once"]
        assert json.loads(log[0].data)["number"] == 1
        assert not json.loads(log[0].data).get("last")

    asyncio.run(main())


async def log_of(store: Any, topics: list[str], number: int) -> list[Any]:
    """Messages of these topics, in the order of the log, as soon as there are so many."""
    from eventmill.core.message import Partition

    while True:
        present = await store.topics()
        places = {Partition(topic, part): 0 for topic in topics for part in range(present.get(topic, 0))}
        page = await store.read(places, limit=1_000)
        if len(page.messages) >= number:
            return [recorded.message for recorded in sorted(page.messages, key=lambda recorded: recorded.position)]
        await asyncio.sleep(0.05)


def test_an_idle_table_beside_a_busy_one_keeps_no_log(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The captured table never changes; what the other one writes must be let go of."""
    monkeypatch.setattr("eventmill.patterns.cdc.session.QUIET", 0.5)
    monkeypatch.setattr("eventmill.backends.postgres.replication.stream.FEEDBACK", 0.3)

    async def main() -> None:
        run(postgres_url, TABLE, "CREATE TABLE busy (data text)")
        async with watched(f"sqlite:///{tmp_path}/w.db", postgres_url, ["things"]) as found:
            kept = []
            for _ in range(6):
                run(
                    postgres_url,
                    "INSERT INTO busy SELECT repeat(md5(i::text), 100) FROM generate_series(1, 1500) i",
                    "CHECKPOINT",
                )
                await asyncio.sleep(1.5)
                kept.append((await found.capture.source.health("watch")).retained)
            wrote = 5_000_000 * 6
            assert kept[-1] < wrote / 3, kept
            health = await found.capture.source.health("watch")
            assert health.head - health.confirmed < 1_000_000

    asyncio.run(main())


def test_what_cannot_be_captured_is_refused_with_a_remedy(postgres_url: str, tmp_path: Path) -> None:
    run(
        postgres_url, TABLE, "CREATE VIEW seen AS SELECT 1", "CREATE TABLE keyless (a integer)",
        "CREATE UNLOGGED TABLE unlogged (id integer PRIMARY KEY)", "CREATE TABLE silent (id integer PRIMARY KEY)",
        "ALTER TABLE silent REPLICA IDENTITY NOTHING",
    )  # fmt: skip

    async def refused(table: str) -> str:
        app, capture = declared(f"sqlite:///{tmp_path}/w.db", postgres_url, [table])
        async with app:
            with pytest.raises(ConfigurationError) as error:
                await initialise(app.store, capture, app.clock, Ids(app.clock))
            await capture.source.close()
        return str(error.value)

    async def main() -> None:
        assert "does not exist" in await refused("nowhere")
        assert "no table" in await refused("seen")
        assert "no primary key" in await refused("keyless")
        assert "unlogged" in await refused("unlogged")
        assert "ALTER TABLE public.silent REPLICA IDENTITY DEFAULT" in await refused("silent")
        app, _ = declared(f"sqlite:///{tmp_path}/w.db", postgres_url, ["things"])
        async with app:
            with pytest.raises(ConfigurationError, match="was not initialised; run: eventmill cdc init"):
                await app.run()
        with psycopg.connect(postgres_url, autocommit=True) as connection:
            assert connection.execute(
                "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()"
            ).fetchone() == (0,)

    asyncio.run(main())


def test_tables_are_added_and_left_out(postgres_url: str, tmp_path: Path) -> None:
    async def main() -> None:
        store = f"sqlite:///{tmp_path}/w.db"
        run(postgres_url, TABLE, "CREATE TABLE others (id text PRIMARY KEY)", "INSERT INTO others VALUES ('o1')",
            "INSERT INTO things VALUES (1, 'one', NULL)")  # fmt: skip
        async with watched(store, postgres_url, ["things"]) as found:
            await found.count(1)
        run(postgres_url, "INSERT INTO things VALUES (2, 'two', NULL)", "INSERT INTO others VALUES ('o2')")
        app, _ = declared(store, postgres_url, ["things", "others"])
        async with app:
            with pytest.raises(ConfigurationError, match="initialised for things, and is declared for others, things"):
                await app.run()
        async with watched(store, postgres_url, ["things", "others"]) as found:
            await found.count(3)
            run(postgres_url, "INSERT INTO others VALUES ('o3')")
            await found.count(4)
            assert sorted(json.loads(message.data)["op"] + message.key for message in found.seen) == [
                "insert2", "inserto3", "snapshoto1", "snapshoto2",
            ]  # fmt: skip
        async with watched(store, postgres_url, ["others"]) as found:
            run(postgres_url, "INSERT INTO things VALUES (3, 'three', NULL)", "INSERT INTO others VALUES ('o4')")
            await found.count(1)
            assert [message.key for message in found.seen] == ["o4"]

    asyncio.run(main())


def test_without_a_snapshot_only_what_changes_is_told(postgres_url: str, tmp_path: Path) -> None:
    async def main() -> None:
        run(postgres_url, TABLE, "INSERT INTO things VALUES (1, 'one', NULL)")
        app, capture = declared(f"sqlite:///{tmp_path}/w.db", postgres_url, ["things"])
        async with app:
            await initialise(app.store, capture, app.clock, Ids(app.clock), snapshot=False)
            await capture.source.close()
        async with watched(f"sqlite:///{tmp_path}/w.db", postgres_url, ["things"], init=False) as found:
            run(postgres_url, "INSERT INTO things VALUES (2, 'two', NULL)")
            await found.count(1)
            await asyncio.sleep(0.3)
            assert [change["key"]["id"] for change in found.data()] == [2]

    asyncio.run(main())


def test_a_slot_that_is_gone_or_was_made_anew_stops_it(postgres_url: str, tmp_path: Path) -> None:
    async def main() -> None:
        store = f"sqlite:///{tmp_path}/w.db"
        run(postgres_url, TABLE)
        async with watched(store, postgres_url, ["things"]) as found:
            run(postgres_url, "INSERT INTO things VALUES (1, 'one', NULL)")
            await found.count(1)
        run(postgres_url, "SELECT pg_drop_replication_slot('eventmill_watch')")
        app, capture = declared(store, postgres_url, ["things"])
        async with app:
            with pytest.raises(ConfigurationError, match=r"slot eventmill_watch is gone; .*--anew"):
                await app.run()
            trouble = (await report(app.store, capture)).trouble
            assert trouble is not None
            assert "keeps nothing" in trouble
            await capture.source.close()
        run(
            postgres_url,
            "INSERT INTO things VALUES (2, 'two', NULL)",
            "SELECT pg_create_logical_replication_slot('eventmill_watch', 'pgoutput')",
        )
        app, _ = declared(store, postgres_url, ["things"])
        async with app:
            with pytest.raises(ConfigurationError, match="was read by somebody else, or made again"):
                await app.run()
        async with watched(store, postgres_url, ["things"], anew=True) as found:
            await found.until(lambda seen: {"1", "2"} <= {message.key for message in seen})

    asyncio.run(main())


def test_dropping_leaves_nothing_on_the_server(postgres_url: str, tmp_path: Path) -> None:
    async def main() -> None:
        store = f"sqlite:///{tmp_path}/w.db"
        run(postgres_url, TABLE)
        async with watched(store, postgres_url, ["things"]) as found:
            run(postgres_url, "INSERT INTO things VALUES (1, 'one', NULL)")
            await found.count(1)
        app, capture = declared(store, postgres_url, ["things"])
        async with app:
            for _ in range(2):
                await drop(app.store, capture)
            assert (await report(app.store, capture)).progress is None
            await capture.source.close()
        with psycopg.connect(postgres_url) as connection:
            left = connection.execute(
                "SELECT (SELECT count(*) FROM pg_publication), (SELECT count(*) FROM pg_replication_slots"
                " WHERE database = current_database())"
            ).fetchone()
        assert left == (0, 0)

    asyncio.run(main())


@pytest.mark.parametrize("act", ["refuse", "drop"])
def test_a_source_that_keeps_too_much(postgres_url: str, tmp_path: Path, act: Any) -> None:
    async def main() -> None:
        store = f"sqlite:///{tmp_path}/w.db"
        run(postgres_url, TABLE)
        policy = RetentionPolicy(limit=1_000_000, act=act)
        async with watched(store, postgres_url, ["things"], retention=policy) as found:
            run(postgres_url, "INSERT INTO things VALUES (1, 'one', NULL)")
            await found.count(1)
        run(postgres_url, "INSERT INTO things SELECT i, repeat('x', 500), NULL FROM generate_series(2, 5000) i")
        app, capture = declared(store, postgres_url, ["things"], retention=policy)
        async with app:
            trouble = (await report(app.store, capture)).trouble
            assert trouble is not None
            assert "over the limit of 1,000,000" in trouble
            with pytest.raises(ConfigurationError, match="over the limit"):
                await app.run()
            assert (await capture.source.health("watch")).present == (act == "refuse")
            await capture.source.close()

    asyncio.run(main())


def test_a_snapshot_pauses_while_the_source_keeps_too_much(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eventmill.patterns.cdc.capturing.WATCH", 0.02)
    monkeypatch.setattr("eventmill.patterns.cdc.copier.MOST", 200)

    async def main() -> None:
        run(postgres_url, TABLE, "INSERT INTO things SELECT i, 'x', NULL FROM generate_series(1, 5000) i")
        policy = RetentionPolicy(limit=1)
        async with watched(
            f"sqlite:///{tmp_path}/w.db", postgres_url, ["things"], retention=policy, copied=False
        ) as found:
            await found.until(lambda _: found.app.captures.running and found.app.captures.running[0].session)
            session = found.app.captures.running[0].session
            assert session is not None
            await found.until(lambda _: not session.copier.may_go_on.is_set())
            await asyncio.sleep(0.5)
            paused = len(found.seen)
            run(postgres_url, "INSERT INTO things VALUES (0, 'streams on', NULL)")
            await found.until(lambda seen: any(message.key == "0" for message in seen))
            await asyncio.sleep(0.3)
            assert len(found.seen) <= paused + 401  # two chunks that were under way
            assert len(found.seen) < 5_001
            object.__setattr__(policy, "limit", 1 << 40)
            await found.count(5_001)

    asyncio.run(main())
