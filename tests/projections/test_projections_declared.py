"""What is refused when a projection is declared, and what its SQL may say."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from ledgers import Booked, Ignored, Reversed, bank

from eventmill import App, CapabilityError, ConfigurationError, Message, Transaction, on
from eventmill.patterns.projection.tables import Tables
from eventmill.testing.projection_spec import ProjectionSpec


class Whole:
    async def create(self, tx: Transaction) -> None:
        await tx.execute("CREATE TABLE {rows} (id TEXT)")

    @on(Booked)
    async def booked(self, event: Booked, tx: Transaction) -> None: ...


class TwoForOne(Whole):
    @on(Booked, Reversed)
    async def again(self, event: object, tx: Transaction) -> None: ...


class PatternToo(Whole):
    @on("ledger.*")
    async def any_of_them(self, message: Message, tx: Transaction) -> None: ...


class NoMethods:
    async def create(self, tx: Transaction) -> None: ...


class NoCreate:
    @on(Booked)
    async def booked(self, event: Booked, tx: Transaction) -> None: ...


class PlainDef(NoMethods):
    @on(Booked)
    def booked(self, event: Booked, tx: Transaction) -> None: ...


class NoTransaction(NoMethods):
    @on(Booked)
    async def booked(self, event: Booked) -> None: ...


class NoList(NoMethods):
    @on(Booked, batch=True)
    async def booked(self, event: Booked, tx: Transaction) -> None: ...


class NotAnEvent(NoMethods):
    @on(int)
    async def booked(self, event: int, tx: Transaction) -> None: ...


class Arguments(Whole):
    def __init__(self, needed: int) -> None: ...


@pytest.mark.parametrize(
    ("cls", "options", "words"),
    [
        (TwoForOne, {}, "again and booked both take ledger.booked"),
        (PatternToo, {}, "both take ledger.booked"),
        (NoMethods, {}, "no method for any event"),
        (NoCreate, {}, "async def create"),
        (PlainDef, {}, "write `async def booked"),
        (NoTransaction, {}, "add a parameter `tx: Transaction`"),
        (NoList, {}, "takes list"),
        (NotAnEvent, {}, "has no name on the wire"),
        (Arguments, {}, "made without arguments"),
        (Whole, {"tables": []}, "name its tables"),
        (Whole, {"tables": "rows"}, "name its tables"),
        (Whole, {"tables": ["Rows"]}, "small letters"),
        (Whole, {"tables": ["rows__2"]}, "small letters"),
        (Whole, {"tables": ["eventmill_rows"]}, "small letters"),
        (Whole, {"tables": ["rows", "rows"]}, "twice"),
        (Whole, {"batch": 0}, "batch=0"),
        (Whole, {"name": "no@name"}, "write a name"),
    ],
)
def test_refused_at_declaration(cls: type, options: dict[str, Any], words: str) -> None:
    app = App("memory://")
    with pytest.raises(ConfigurationError, match=words):
        app.projection(**{"name": "rows", "tables": ["rows"], **options})(cls)


def test_names_and_tables_are_one_projections() -> None:
    app = App("memory://")
    app.projection("rows", tables=["rows"])(Whole)
    with pytest.raises(ConfigurationError, match="is there already"):
        app.projection("rows", tables=["others"])(Whole)
    with pytest.raises(ConfigurationError, match="both have a table 'rows'"):
        app.projection("more", tables=["others", "rows"])(Whole)
    with pytest.raises(ConfigurationError, match="there are: rows"):
        app.view("row")


def test_tables_must_be_what_create_makes() -> None:
    app = App("memory://")
    app.projection("rows", tables=["rows", "others"])(Whole)
    with pytest.raises(ConfigurationError, match=r"create\(\) must make \{rows\}, \{others\}"):
        asyncio.run(app.open())


def test_a_table_of_somebody_else_is_left_alone() -> None:
    app = App("memory://")

    @app.setup
    async def before(tx: Transaction) -> None:
        await tx.execute("CREATE TABLE rows (mine TEXT)")

    app.projection("rows", tables=["rows"])(Whole)
    with pytest.raises(ConfigurationError, match="must be renamed or dropped"):
        asyncio.run(app.open())


def test_a_queue_keeps_no_history() -> None:
    app = bank("memory://", broker="amqp://nowhere.invalid/")
    with pytest.raises(CapabilityError, match="needs a log"):
        asyncio.run(app.open())


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO rows VALUES (1)",
        "update rows set id = 1",
        'DELETE FROM "rows"',
        "SELECT * FROM {others} JOIN rows ON true",
        "CREATE INDEX x ON rows (id)",
        "CREATE TABLE IF NOT EXISTS rows (id)",
    ],
)
def test_a_plain_name_is_refused(sql: str) -> None:
    """It would be the view, which readers see, whichever generation is being written."""
    with pytest.raises(ConfigurationError, match=r"writes \{rows\}"):
        Tables(["rows", "others"], 3).resolve(sql)


def test_placeholders_become_the_generations_tables() -> None:
    resolve: Callable[[str], str] = Tables(["rows", "rows_more"], 3).resolve
    assert resolve("INSERT INTO {rows} AS rows SELECT '{a}', '{}' FROM {rows_more} WHERE rows_x = rows.id") == (
        "INSERT INTO rows__3 AS rows SELECT '{a}', '{}' FROM rows_more__3 WHERE rows_x = rows.id"
    )
    assert resolve("CREATE INDEX {rows}_id ON {rows} (id)") == "CREATE INDEX rows__3_id ON rows__3 (id)"
    assert Tables(["rows"], None).resolve("SELECT * FROM {rows}") == "SELECT * FROM rows"


def test_a_spec_compares_rows() -> None:
    spec = ProjectionSpec(bank("memory://"), "balances").given(Booked("ada", 3), Reversed("ada", 1), Booked("bob", 1))
    spec.then(balances=[("bob", 1, 1), {"account": "ada", "amount": 2, "bookings": 2}], visits=[])
    with pytest.raises(AssertionError, match=r"missing \('ada', 3, 1\); too much \('ada', 2, 2\)"):
        spec.then(balances=[("ada", 3, 1), ("bob", 1, 1)])
    with pytest.raises(AssertionError, match=r"no method for ledger\.ignored"):
        spec.given(Ignored("ada"))
    spec.given(Booked("ada", -13)).fails(ValueError)


def test_a_spec_finds_what_depends_on_batches() -> None:
    app = App("memory://")

    @app.projection("counts", tables=["counts"])
    class Counts:
        async def create(self, tx: Transaction) -> None:
            await tx.execute("CREATE TABLE {counts} (events INTEGER)")

        @on(Booked, batch=True)
        async def booked(self, events: list[Booked], tx: Transaction) -> None:
            await tx.execute("INSERT INTO {counts} VALUES (?)", (len(events),))

    with pytest.raises(AssertionError, match="depends on how many events come at once"):
        ProjectionSpec(app, "counts").given(Booked("ada", 1), Booked("ada", 1)).then(counts=[])
