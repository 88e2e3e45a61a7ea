"""Tables as legacy databases have them: odd names, keys and types, parents and partitions."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from cdc_watching import declared, run, watched

from eventmill import ConfigurationError
from eventmill.core.clock import Ids
from eventmill.patterns.cdc.report import report
from eventmill.patterns.cdc.setup import initialise


def few_rows_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eventmill.patterns.cdc.copier.FIRST", 7)
    monkeypatch.setattr("eventmill.patterns.cdc.copier.LEAST", 7)
    monkeypatch.setattr("eventmill.patterns.cdc.copier.MOST", 7)


@pytest.mark.parametrize(
    ("table", "key"),
    [
        ("CREATE TABLE t (c char(5) PRIMARY KEY)", "to_char(i, 'FM00000')"),
        ("CREATE TABLE t (c bit(6) PRIMARY KEY)", "i::bit(6)"),
        ("CREATE TABLE t (c citext PRIMARY KEY)", "(CASE WHEN i % 2 = 0 THEN 'a' ELSE 'B' END) || i"),
        ('CREATE TABLE t (c text COLLATE "C" PRIMARY KEY)', "chr(i + 32) || 'x'"),
        ("CREATE TABLE t (c bytea PRIMARY KEY)", "decode(to_char(i, 'FM0000'), 'hex')"),
        ("CREATE TABLE t (c interval PRIMARY KEY)", "i * interval '1 month'"),
        (
            "CREATE DOMAIN code AS char(3) CHECK (VALUE <> ''); CREATE TABLE t (c code PRIMARY KEY)",
            "to_char(i, 'FM000')",
        ),
    ],
    ids=["char", "bit", "citext", "collated", "bytea", "interval", "domain"],
)
def test_a_snapshot_goes_on_from_any_key(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str, key: str
) -> None:
    few_rows_a_chunk(monkeypatch)
    run(
        postgres_url,
        "CREATE EXTENSION citext",
        *table.split("; "),
        f"INSERT INTO t SELECT {key} FROM generate_series(1, 40) i",
    )

    async def main() -> None:
        async with watched(f"sqlite:///{tmp_path}/w.db", postgres_url, ["t"]) as found:
            await found.count(40)
            run(postgres_url, "DELETE FROM t")
            await found.count(80)
            deleted = {message.key for message in found.seen if b'"delete"' in message.data}
            assert len(found.seen) == 80
            assert deleted == {message.key for message in found.seen if b'"snapshot"' in message.data}

    asyncio.run(main())


def test_names_of_any_kind(postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few_rows_a_chunk(monkeypatch)
    odd = '"Straße ""x%s"'

    async def main() -> None:
        run(
            postgres_url, 'CREATE SCHEMA "Über"', f'CREATE TABLE "Über".{odd} ("Schlüssel 100%" integer PRIMARY KEY, "a""b" text)',
            f'ALTER TABLE "Über".{odd} ALTER "a""b" SET STORAGE EXTERNAL',
            f"INSERT INTO \"Über\".{odd} SELECT i, repeat('x', 3000) FROM generate_series(1, 10) i",
        )  # fmt: skip
        async with watched(f"sqlite:///{tmp_path}/w.db", postgres_url, ['Über.Straße "x%s']) as found:
            await found.count(10)
            run(postgres_url, f'UPDATE "Über".{odd} SET "Schlüssel 100%" = 11 WHERE "Schlüssel 100%" = 1')
            await found.count(12)
        assert {message.type for message in found.seen} == {"watch._ber.stra_e_x_s"}
        assert found.data()[-1]["after"] == {"Schlüssel 100%": 11, 'a"b': "x" * 3000}

    asyncio.run(main())


def test_types_that_somebody_has_made(postgres_url: str, tmp_path: Path) -> None:
    """Also while it streams: what they are called, and what arrays and domains of them hold."""

    async def main() -> None:
        run(
            postgres_url, "CREATE TYPE mood AS ENUM ('glad', 'sad')", "CREATE DOMAIN amount AS integer",
            "CREATE TABLE t (id amount PRIMARY KEY, moods mood[], amounts amount[], boxes box[])",
            "INSERT INTO t VALUES (1, '{glad,NULL}', '{{1},{2}}', '{(1,1),(0,0)}')",
        )  # fmt: skip
        async with watched(f"sqlite:///{tmp_path}/w.db", postgres_url, ["t"], order="table") as found:
            await found.count(1)
            run(
                postgres_url, "CREATE TYPE hue AS ENUM ('red')", "ALTER TABLE t ADD COLUMN hue hue, ADD COLUMN hues hue[]",
                "UPDATE t SET hue = 'red', hues = '{red}'",
            )  # fmt: skip
            await found.count(3)
        snapshot, schema, update = found.data()
        made = {"id": 1, "moods": ["glad", None], "amounts": [[1], [2]], "boxes": "{(1,1),(0,0)}"}
        assert snapshot["after"] == made
        assert schema["columns"][-2:] == [
            {"name": "hue", "type": "public.hue"},
            {"name": "hues", "type": "public.hue[]"},
        ]
        assert update["after"] == {**made, "hue": "red", "hues": ["red"]}

    asyncio.run(main())


def test_a_key_that_is_renamed_under_a_full_identity(postgres_url: str, tmp_path: Path) -> None:
    async def main() -> None:
        run(postgres_url, "CREATE TABLE t (id integer PRIMARY KEY, name text)", "ALTER TABLE t REPLICA IDENTITY FULL")
        async with watched(f"sqlite:///{tmp_path}/w.db", postgres_url, ["t"], order="table") as found:
            run(
                postgres_url,
                "INSERT INTO t VALUES (1, 'one')",
                "ALTER TABLE t RENAME id TO ident",
                "UPDATE t SET name = 'ONE'",
            )
            await found.count(3)
        assert found.data()[-1]["key"] == {"ident": 1}

    asyncio.run(main())


def test_partitions_are_told_as_their_table(postgres_url: str, tmp_path: Path) -> None:
    async def main() -> None:
        run(
            postgres_url, "CREATE TABLE p (id integer, part integer, PRIMARY KEY (id, part)) PARTITION BY RANGE (part)",
            "CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10)", "INSERT INTO p VALUES (1, 1)",
        )  # fmt: skip
        async with watched(f"sqlite:///{tmp_path}/w.db", postgres_url, ["p"], order="table") as found:
            await found.count(1)
            run(
                postgres_url, "CREATE TABLE p2 (part integer NOT NULL, gone text, id integer NOT NULL)",
                "ALTER TABLE p2 DROP COLUMN gone", "ALTER TABLE p ATTACH PARTITION p2 FOR VALUES FROM (10) TO (20)",
                "UPDATE p SET part = 12", "INSERT INTO p2 (id, part) VALUES (2, 13)", "TRUNCATE p",
            )  # fmt: skip
            await found.count(5)
        told = [(change["op"], change.get("key")) for change in found.data()]
        assert told == [
            ("snapshot", {"id": 1, "part": 1}), ("delete", {"id": 1, "part": 1}), ("insert", {"id": 1, "part": 12}),
            ("insert", {"id": 2, "part": 13}), ("truncate", None),
        ]  # fmt: skip

    asyncio.run(main())


def test_tables_that_inherit_are_tables_of_their_own(postgres_url: str, tmp_path: Path) -> None:
    async def main() -> None:
        run(
            postgres_url, "CREATE TABLE a (id integer PRIMARY KEY)", "CREATE TABLE b (PRIMARY KEY (id)) INHERITS (a)",
            "INSERT INTO b VALUES (1)", "INSERT INTO a VALUES (2)",
        )  # fmt: skip
        app, capture = declared(f"sqlite:///{tmp_path}/w.db", postgres_url, ["a"])
        async with app:
            with pytest.raises(
                ConfigurationError, match=r"b inherits from public.a, .* name public.b among the captured tables"
            ):
                await initialise(app.store, capture, app.clock, Ids(app.clock))
            await capture.source.close()
        async with watched(f"sqlite:///{tmp_path}/w.db", postgres_url, ["a", "b"]) as found:
            run(postgres_url, "DELETE FROM a")
            await found.count(4)
        assert (
            sorted((message.type, message.key) for message in found.seen)
            == [("watch.a", "2")] * 2 + [("watch.b", "1")] * 2
        )

    asyncio.run(main())


@pytest.mark.parametrize("kind", ["integer[]", "jsonb"])
def test_a_key_by_which_rows_cannot_be_told_is_refused(postgres_url: str, tmp_path: Path, kind: str) -> None:
    async def main() -> None:
        run(postgres_url, f"CREATE TABLE t (id {kind} PRIMARY KEY)")
        app, capture = declared(f"sqlite:///{tmp_path}/w.db", postgres_url, ["t"])
        async with app:
            with pytest.raises(ConfigurationError, match=r"public.t: column id, .*REPLICA IDENTITY USING INDEX"):
                await initialise(app.store, capture, app.clock, Ids(app.clock))
            await capture.source.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("statements", "said"),
    [
        (["DROP TABLE t", "CREATE TABLE t (id integer PRIMARY KEY)"], "table public.t was dropped"),
        (["DROP PUBLICATION eventmill_watch"], "publication eventmill_watch is gone"),
        (["ALTER PUBLICATION eventmill_watch SET TABLE o"], "public.t was taken out of publication eventmill_watch"),
        (["ALTER PUBLICATION eventmill_watch SET (publish = 'insert')"], "publication eventmill_watch was altered"),
        (["ALTER PUBLICATION eventmill_watch SET TABLE t WHERE (id > 1)"], "it has a filter or a list of columns for"),
        (
            ["DROP PUBLICATION eventmill_watch", "INSERT INTO t VALUES (2)",
             "CREATE PUBLICATION eventmill_watch FOR TABLE t WITH (publish_via_partition_root)"],
            'publication "eventmill_watch" does not exist, or did not when something was changed',
        ),
    ],
    ids=["dropped", "no publication", "taken out", "narrowed", "filtered", "made again"],
)  # fmt: skip
def test_changes_that_are_not_sent_any_more_stop_it(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, statements: list[str], said: str
) -> None:
    """While it runs, and when it begins again; and `init` does not paper over it."""
    monkeypatch.setattr("eventmill.patterns.cdc.capturing.WATCH", 0.1)
    store = f"sqlite:///{tmp_path}/w.db"

    async def main() -> None:
        run(postgres_url, "CREATE TABLE t (id integer PRIMARY KEY)", "CREATE TABLE o (id integer PRIMARY KEY)")
        async with watched(store, postgres_url, ["t"]) as found:
            run(postgres_url, "INSERT INTO t VALUES (1)")
            await found.count(1)
            run(postgres_url, *statements)
            with pytest.raises(ConfigurationError, match=f"{said}.*--anew"):
                await found.count(99)
        for _ in range(2):
            app, capture = declared(store, postgres_url, ["t"])
            async with app:
                with pytest.raises(ConfigurationError, match="--anew"):
                    await app.run()
                if "made again" not in said and "or did not" not in said:
                    with pytest.raises(ConfigurationError, match="--anew"):
                        await initialise(app.store, capture, app.clock, Ids(app.clock))
                await capture.source.close()
        async with watched(store, postgres_url, ["t"], anew=True) as found:
            run(postgres_url, "INSERT INTO t VALUES (7)")
            await found.until(lambda seen: any(message.key == "7" for message in seen))

    asyncio.run(main())


def test_a_large_value_is_told_though_its_row_changed_while_it_was_copied(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The chunk's row is left out for the newer change, which does not have the value that was left alone."""
    after_first_chunk(monkeypatch, postgres_url, "UPDATE t SET name = 'new'")

    async def main() -> None:
        run(
            postgres_url, "CREATE TABLE t (id integer PRIMARY KEY, name text, big text)",
            "ALTER TABLE t ALTER big SET STORAGE EXTERNAL", "INSERT INTO t VALUES (1, 'old', repeat('x', 5000))",
        )  # fmt: skip
        async with watched(f"sqlite:///{tmp_path}/w.db", postgres_url, ["t"]) as found:
            await found.count(1)
            (change,) = found.data()
        assert change["op"] == "update"
        assert change["after"] == {"id": 1, "name": "new", "big": "x" * 5000}
        assert "unchanged" not in change

    asyncio.run(main())


def after_first_chunk(monkeypatch: pytest.MonkeyPatch, url: str, *statements: str, before: bool = False) -> None:
    """Run statements just after (or before) the first chunk is read."""
    from eventmill.backends.postgres.replication.source import PostgresSource

    read = PostgresSource.chunk
    pending = list(statements)

    async def chunk(self: PostgresSource, *arguments: Any) -> Any:
        if before:
            await asyncio.to_thread(run, url, *pending)
            pending.clear()
        found = await read(self, *arguments)
        if pending:
            await asyncio.to_thread(run, url, *pending)
            pending.clear()
        return found

    monkeypatch.setattr(PostgresSource, "chunk", chunk)


@pytest.mark.parametrize("before", [True, False])
def test_a_column_that_comes_while_rows_are_copied(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: bool
) -> None:
    """It is told before the first row that has it; no row is told by columns that are gone."""
    after_first_chunk(
        monkeypatch, postgres_url, "ALTER TABLE t ADD COLUMN more integer DEFAULT 7", "INSERT INTO t VALUES (2, 8)",
        before=before,
    )  # fmt: skip

    async def main() -> None:
        run(postgres_url, "CREATE TABLE t (id integer PRIMARY KEY)", "INSERT INTO t VALUES (1)")
        async with watched(f"sqlite:///{tmp_path}/w.db", postgres_url, ["t"], order="table") as found:
            await found.until(
                lambda seen: any(message.key == "t" and b'"snapshot"' in message.data for message in seen)
            )
            schema, *rows = found.data()
        assert schema["added"] == ["more"]
        assert {"id": 1, "more": 7} in [row["after"] for row in rows]
        assert all("more" in row["after"] for row in rows)

    asyncio.run(main())


def test_a_snapshot_that_waits_does_not_gather_what_it_has_told(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few_rows_a_chunk(monkeypatch)
    monkeypatch.setattr("eventmill.patterns.cdc.copier.LOOK", 0.05)

    async def main() -> None:
        run(postgres_url, "CREATE TABLE t (id integer PRIMARY KEY)", "INSERT INTO t SELECT generate_series(1, 300)")
        async with watched(f"sqlite:///{tmp_path}/w.db", postgres_url, ["t"], copied=False) as found:
            await found.until(lambda _: found.app.captures.running and found.app.captures.running[0].session)
            session = found.app.captures.running[0].session
            assert session is not None
            session.copier.may_go_on.clear()
            await found.count(1)
            for number in range(60):
                run(postgres_url, f"INSERT INTO t VALUES ({5000 + number})")
            await found.until(lambda seen: any(json.loads(message.data)["key"] == {"id": 5059} for message in seen))
            assert session.progress.copying
            await found.until(lambda _: len(session._teller.recent.transactions) < 10)
            session.copier.may_go_on.set()
            await found.count(360)

    asyncio.run(main())


def test_a_snapshot_that_ends_with_an_empty_chunk_is_noted_as_done(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although nothing is told with it, nor afterwards."""
    few_rows_a_chunk(monkeypatch)

    async def main() -> None:
        run(postgres_url, "CREATE TABLE t (id integer PRIMARY KEY)", "INSERT INTO t SELECT generate_series(1, 7)")
        async with watched(f"sqlite:///{tmp_path}/w.db", postgres_url, ["t"]) as found:
            await found.count(7)
        app, capture = declared(f"sqlite:///{tmp_path}/w.db", postgres_url, ["t"])
        async with app:
            progress = (await report(app.store, capture)).progress
            assert progress is not None
            assert not progress.copying
            await capture.source.close()

    asyncio.run(main())


def test_about_how_many_rows_a_table_has_before_anybody_has_counted(postgres_url: str, tmp_path: Path) -> None:
    async def main() -> None:
        run(postgres_url, "CREATE TABLE t (id integer PRIMARY KEY)", "INSERT INTO t SELECT generate_series(1, 20000)")
        app, capture = declared(f"sqlite:///{tmp_path}/w.db", postgres_url, ["t"])
        async with app:
            await initialise(app.store, capture, app.clock, Ids(app.clock))
            (shape,) = await capture.source.inspect(["t"])
            assert 10_000 < await capture.source.estimate(shape) < 40_000
            await capture.source.close()

    asyncio.run(main())
