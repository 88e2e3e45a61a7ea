"""Personal data: stored sealed, read as it was, and gone when its subject is forgotten; searched for in the raw files."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import attrs
import psycopg
import pydantic
import pytest

from eventmill import (
    NO_RETRY,
    Aggregate,
    App,
    ConfigurationError,
    EncodeError,
    Event,
    Fact,
    Message,
    MessageTooLargeError,
    Personal,
    SubjectForgotten,
    Transaction,
    event,
    named,
    on,
    outbox,
    upcast,
)
from eventmill.core.clock import ManualClock
from eventmill.patterns.projection.rebuild import rebuild

SECRET = "ada.lovelace@example.org"
NUMBER = 1815_1852


class GuestSeen(Event, name="guest.seen", key="guest", personal={"email": "guest", "number": Personal("guest", 0)}):
    guest: str
    email: str | None
    number: int = NUMBER
    room: int = 1


class GuestCamel(Event, name="guest.camel", key="guest", personal={"home_town": "guest"}, rename="camel"):
    guest: int
    home_town: str


@event(name="guest.dataclass", key="guest", personal={"email": "guest"})
@dataclass(frozen=True)
class GuestDataclass:
    guest: str
    email: str


@event(name="guest.attrs", key="guest", personal={"email": "guest"})
@attrs.define
class GuestAttrs:
    guest: str
    email: str | None


@event(name="guest.pydantic", key="guest", personal={"e_mail": "guest"})
class GuestPydantic(pydantic.BaseModel):
    guest: str
    e_mail: str = pydantic.Field(alias="eMail", max_length=40)


@event(name="guest.dict", key="guest", personal={"email": "guest"})
class GuestDict(TypedDict):
    guest: str
    email: str


class GuestUnkeyed(Event, name="guest.unkeyed", personal={"email": "guest"}):
    guest: str | None
    email: str


class Guest(Aggregate, name="guest"):
    email: str | None = None
    seen: int = 0

    def see(self, email: str) -> Iterator[Event]:
        yield GuestSeen(self.id, email)

    def evolve(self, event: GuestSeen) -> None:
        match event:
            case GuestSeen(email=email):
                self.email = email
                self.seen += 1


KINDS: list[Any] = [
    GuestSeen("g1", SECRET),
    GuestCamel(1, SECRET),
    GuestDataclass("g1", SECRET),
    GuestAttrs("g1", SECRET),
    GuestPydantic(guest="g1", eMail=SECRET),
]


async def facts(app: App) -> list[Fact]:
    return [fact async for fact in app.read_all()]


class Personals:
    """The cases; each store binds them below."""

    @pytest.fixture
    def url(self) -> str:
        raise NotImplementedError

    def raw(self, url: str) -> bytes:
        """Everything that is stored, as bytes."""
        raise NotImplementedError

    def run(self, url: str, case: Callable[[App], Awaitable[None]], **options: Any) -> None:
        async def whole() -> None:
            async with App(url, name="inn", **options) as app:
                await asyncio.wait_for(case(app), 60)

        asyncio.run(whole())

    def test_every_way_in_is_sealed_and_every_way_out_open(self, url: str) -> None:
        async def case(app: App) -> None:
            await app.publish(*KINDS, named("guest.dict", {"guest": "g1", "email": SECRET}))
            await app.append("guest/g1", *KINDS)
            async with app.transaction() as tx:
                tx.publish(GuestSeen("g2", SECRET), SubjectForgotten("nobody"))
                tx.append("guest/g2", GuestSeen("g2", SECRET))
                assert (await app.load(Guest, "g2")).email == SECRET
            await app.execute(Guest, "g3", Guest.see, SECRET)
            await app.execute(Guest, "g3", Guest.see, SECRET, command_id="c")
            again = await app.execute(Guest, "g3", Guest.see, SECRET, command_id="c")
            assert again.events == [GuestSeen("g3", SECRET)]
            found = await facts(app)
            assert [fact.event for fact in found[:5]] == KINDS
            assert found[5].event == {"guest": "g1", "email": SECRET}
            assert [fact.type for fact in found[11:14]] == ["guest.seen", "eventmill.subject.forgotten", "guest.seen"]
            assert (await app.load(Guest, "g3")).email == SECRET
            assert (await app.diff(Guest, "g3", 0, 2))["email"].after == SECRET
            assert [fact.event.email for fact in await app.history(Guest, "g3")] == [SECRET] * 2
            assert SECRET.encode() not in self.raw(url)
            assert str(NUMBER).encode() not in self.raw(url)

        self.run(url, case)

    def test_forgotten_is_redacted_and_never_an_exception(self, url: str) -> None:
        async def case(app: App) -> None:
            await app.append("guest/g1", *KINDS, named("guest.dict", {"guest": "g1", "email": SECRET}))
            await app.append("guest/g2", GuestSeen("g2", SECRET))
            assert await app.forget("g1") is True
            assert await app.forget("1") is True
            assert await app.forget("g1") is False
            found = [fact.event for fact in await app.read("guest/g1")]
            assert found[0] == GuestSeen("g1", "[forgotten]", 0)
            assert found[1] == GuestCamel(1, "[forgotten]")
            assert found[4].e_mail == "[forgotten]"
            assert found[5] == {"guest": "g1", "email": "[forgotten]"}
            assert (await app.load(Guest, "g1")).email == "[forgotten]"
            assert (await app.load(Guest, "g2")).email == SECRET
            said = [fact.event async for fact in app.read_all(types=[SubjectForgotten])]
            assert said == [SubjectForgotten("g1"), SubjectForgotten("1")]
            # What comes later about a forgotten subject is not kept either.
            await app.execute(Guest, "g1", Guest.see, "new@example.org")
            guest = await app.load(Guest, "g1")
            assert (guest.email, guest.seen) == ("[forgotten]", 2)
            assert b"new@example.org" not in self.raw(url)
            with pytest.raises(ConfigurationError):
                await app.forget("")

        self.run(url, case)

    def test_handlers_read_it_and_dead_letters_do_not_keep_it(self, url: str) -> None:
        read: list[object] = []

        async def whole() -> None:
            app = App(url, name="inn")

            @app.on(GuestSeen, retry=NO_RETRY, on_dead="skip")
            async def greet(event: GuestSeen, message: Message, tx: Transaction) -> None:
                read.append(event.email)
                if event.room == 13:
                    raise ValueError(f"no room for {event.email!r}, {event.number}")
                tx.publish(GuestDataclass(event.guest, f"copy of {event.email}"))

            async with app:
                await app.publish(GuestSeen("g1", SECRET), GuestSeen("g2", SECRET, room=13))
                running = asyncio.create_task(app.run())
                async with asyncio.timeout(30):
                    while not (await app.store.jobs(state="dead")) or len(await facts(app)) < 3:
                        await asyncio.sleep(0.02)
                (dead,) = await app.store.jobs(state="dead")
                assert "no room for '[personal]', [personal]" in dead.errors[0].error
                assert "[personal]" in (dead.errors[0].trace or "")
                assert read == [SECRET] * 2
                assert (await facts(app))[2].event == GuestDataclass("g1", f"copy of {SECRET}")
                assert SECRET.encode() not in self.raw(url)
                assert str(NUMBER).encode() not in self.raw(url)
                await app.forget("g2")
                await app.store.replay([dead.id or 0])
                async with asyncio.timeout(30):
                    while len(read) < 3:
                        await asyncio.sleep(0.02)
                app.stop()
                await running
                assert read[2] == "[forgotten]"

        asyncio.run(whole())

    def test_projections_read_it_and_are_rebuilt_without_it(self, url: str) -> None:
        def inn(version: int) -> App:
            app = App(url, name="inn")

            @app.projection("guests", tables=["emails"], version=version)
            class Guests:
                async def create(self, tx: Transaction) -> None:
                    await tx.execute("CREATE TABLE {emails} (guest TEXT, email TEXT)")

                @on(GuestSeen)
                async def seen(self, event: GuestSeen, tx: Transaction) -> None:
                    await tx.execute("INSERT INTO {emails} VALUES (?, ?)", (event.guest, event.email))

            return app

        async def rows(app: App) -> list[Any]:
            return list(await app.store.query("SELECT guest, email FROM emails ORDER BY guest"))

        async def whole() -> None:
            first, second = inn(1), inn(2)
            async with first:
                position = await first.publish(GuestSeen("g1", SECRET), GuestSeen("g2", SECRET))
                running = asyncio.create_task(first.run())
                await first.view("guests").at_least(position, timeout=30)
                first.stop()
                await running
                assert await rows(first) == [("g1", SECRET), ("g2", SECRET)]
                await first.forget("g1")
                async with second:
                    await rebuild(second.view("guests"))
                    assert await rows(second) == [("g1", "[forgotten]"), ("g2", SECRET)]

        asyncio.run(whole())

    def test_a_handler_may_forget(self, url: str) -> None:
        clock = ManualClock()

        async def case(app: App) -> None:
            await app.publish(GuestSeen("g1", SECRET))
            async with app.transaction() as tx:
                tx.publish(GuestSeen("g1", "before"))
                await app.forget("g1")
                tx.publish(GuestSeen("g1", "after"))
            await clock.advance(1.0)
            assert {fact.event.email for fact in await facts(app) if fact.type == "guest.seen"} == {"[forgotten]"}

            class Stop(Exception):
                pass

            await app.publish(GuestSeen("g2", SECRET))
            with pytest.raises(Stop):  # noqa: PT012
                async with app.transaction():
                    await app.forget("g2")
                    raise Stop
            await asyncio.sleep(0)
            assert (await facts(app))[-1].event.email == SECRET

        self.run(url, case, clock=clock)

    def test_a_key_of_a_transaction_that_was_undone_was_never_there(self, url: str) -> None:
        async def case(app: App) -> None:
            with pytest.raises(MessageTooLargeError):  # noqa: PT012
                async with app.transaction() as tx:
                    tx.publish(GuestSeen("g1", SECRET))
                    tx.publish(GuestSeen("g" * 400, SECRET))
            await app.publish(GuestSeen("g1", "one"))
            async with app.transaction() as tx:
                tx.publish(GuestSeen("g1", "two"), GuestSeen("g3", "three"), GuestSeen("g3", "four"))
            found = [fact.event.email for fact in await facts(app)]
            assert sorted(found) == ["four", "one", "three", "two"]

        self.run(url, case)

    def test_many_at_once_share_a_new_subject(self, url: str) -> None:
        async def case(app: App) -> None:
            async def within(number: int) -> None:
                async with app.transaction() as tx:
                    tx.publish(GuestSeen("g1", f"{number}"))

            await asyncio.gather(*(app.publish(GuestSeen("g1", f"{number}")) for number in range(20)))
            await asyncio.gather(*(within(number) for number in range(20, 40)))
            assert {fact.event.email for fact in await facts(app)} == {f"{number}" for number in range(40)}

        self.run(url, case)

    def test_another_process_forgets_within_a_second(self, url: str) -> None:
        clock = ManualClock()

        async def case(app: App) -> None:
            async with App(url, name="other") as other:
                await app.publish(GuestSeen("g1", SECRET))
                assert (await facts(app))[0].event.email == SECRET
                await other.forget("g1")
                await clock.advance(1.0)
                assert (await facts(app))[0].event.email == "[forgotten]"

        self.run(url, case, clock=clock)

    def test_old_versions_are_opened_before_they_are_raised(self, url: str) -> None:
        async def case(app: App) -> None:
            from eventmill.core.registry import Registry

            old = Registry()

            class Before(Event):
                guest: str
                mail: str

            old.add(Before, name="guest.moved", key="guest", personal={"mail": "guest"})
            async with App(url, name="old", registry=old) as former:
                await former.publish(Before("g1", SECRET), Before("g2", SECRET))

            class GuestMoved(Event, name="guest.moved", key="guest", version=2, personal={"email": "guest"}):
                guest: str
                email: str

            @upcast("guest.moved", from_version=1)
            def email(data: dict[str, Any]) -> dict[str, Any]:
                return {"guest": data["guest"], "email": data["mail"].upper()}

            await app.forget("g2")
            found = [fact.event.email async for fact in app.read_all(types=[GuestMoved])]
            assert found == [SECRET.upper(), "[FORGOTTEN]"]

        self.run(url, case)


class TestMemory(Personals):
    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return f"memory://{tmp_path.name}"

    def raw(self, url: str) -> bytes:
        from eventmill.backends.memory.state import state_of

        state = state_of(url.removeprefix("memory://"))
        return repr([vars(state.log), vars(state.documents), list(state.jobs)]).encode()


class TestSqlite(Personals):
    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path / 'inn.db'}"

    def raw(self, url: str) -> bytes:
        return b"".join(path.read_bytes() for path in Path(url.removeprefix("sqlite:///")).parent.glob("inn.db*"))

    def test_nothing_of_a_key_is_left_in_the_files(self, url: str) -> None:
        """Keys move from page to page while others come and go; what is forgotten is on none of them, nor in the log."""

        async def case(app: App) -> None:
            for start in range(0, 600, 100):
                await app.publish(*(GuestSeen(f"g{number}", SECRET) for number in range(start, start + 100)))
            connection = sqlite3.connect(url.removeprefix("sqlite:///"))
            keys = dict(connection.execute("SELECT key, data FROM eventmill_documents WHERE key LIKE 'subject-key %'"))
            connection.close()
            assert len(keys) == 600
            assert all(key in self.raw(url) for key in list(keys.values())[:20])
            gone = [f"g{number}" for number in range(0, 600, 7)]
            for subject in gone:
                await app.forget(subject)
            await app.publish(*(GuestSeen(f"g{number}", SECRET) for number in range(600, 700)))
            raw = self.raw(url)
            for subject in gone:
                assert keys[f"subject-key {subject}"] not in raw, subject
            assert keys["subject-key g1"] in raw
            assert SECRET.encode() not in raw
            emails = [fact.event.email for fact in await facts(app) if fact.type == "guest.seen"]
            assert emails.count("[forgotten]") == len(gone)
            assert emails.count(SECRET) == 700 - len(gone)

        self.run(url, case)


class TestPostgres(Personals):
    @pytest.fixture
    def url(self, postgres_url: str) -> str:
        return postgres_url

    def raw(self, url: str) -> bytes:
        with psycopg.connect(url) as connection:
            tables = connection.execute(
                "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE tablename LIKE 'eventmill%'"
            ).fetchall()
            rows = [connection.execute(f"SELECT t::text, t FROM {table} AS t").fetchall() for (table,) in tables]
            data = connection.execute("SELECT data, attributes FROM eventmill_log").fetchall()
            jobs = connection.execute("SELECT message FROM eventmill_jobs").fetchall()
        return repr([rows, data, jobs]).encode()


def test_another_service_never_has_the_key(tmp_path: Path) -> None:
    """The relay sends what is stored; who has no key reads the redacted value. A handler of messages sees them sealed."""
    broker = f"sqlite:///{tmp_path / 'broker.db'}"
    read: list[object] = []

    async def whole() -> None:
        inn = App(f"sqlite:///{tmp_path / 'inn.db'}", broker=broker, name="inn")
        police = App(f"sqlite:///{tmp_path / 'police.db'}", broker=broker, name="police")

        @police.on(GuestSeen)
        async def register(event: GuestSeen) -> None:
            read.append(event.email)

        @police.on(GuestSeen, group="police.copies")
        async def copy(message: Message) -> None:
            read.append(b"[sealed:" in message.data)

        async with inn, police:
            running = [asyncio.create_task(app.run()) for app in (inn, police)]
            await inn.publish(GuestSeen("g1", SECRET))
            async with asyncio.timeout(30):
                while len(read) < 2:
                    await asyncio.sleep(0.02)
            for app in (inn, police):
                app.stop()
            await asyncio.gather(*running)

    asyncio.run(whole())
    assert sorted(map(str, read)) == ["True", "[forgotten]"]
    assert not [path for path in tmp_path.iterdir() if SECRET.encode() in path.read_bytes()]


def refused(match: str) -> Any:
    return pytest.raises(ConfigurationError, match=match)


def test_what_is_refused_when_it_is_declared() -> None:
    with refused("'mail' is no field"):

        class Wrong1(Event, name="wrong.one", personal={"mail": "id"}):
            id: str

    with refused("'who' is to name a subject"):

        class Wrong2(Event, name="wrong.two", personal={"mail": "who"}):
            mail: str

    with refused("stored as it is"):

        class Wrong3(Event, name="wrong.three", personal={"mail": "mail"}):
            mail: str

    with refused("age may not hold neither|age may not hold"):

        class Wrong4(Event, name="wrong.four", personal={"age": "id"}):
            id: str
            age: int

    with refused("may not hold 'x'"):

        class Wrong5(Event, name="wrong.five", personal={"age": Personal("id", "x")}):
            id: str
            age: int

    with refused("takes no snapshots|leave out snapshot_every"):

        class Wrong6(Aggregate, name="wrong-six", topic="guest", snapshot_every=10):
            def evolve(self, event: GuestSeen) -> None:
                assert isinstance(event, GuestSeen)

    with refused("need name="):

        class Wrong7(Event, personal={"age": "id"}):
            id: str


def test_what_could_not_be_sealed_is_refused(tmp_path: Path) -> None:
    async def case() -> None:
        async with App(f"sqlite:///{tmp_path / 'inn.db'}", name="inn") as app:
            with pytest.raises(EncodeError, match="email is personal to guest"):
                await app.publish(GuestUnkeyed(None, SECRET))
            assert await facts(app) == []

    asyncio.run(case())
    connection = sqlite3.connect(tmp_path / "inn.db")
    with refused("app.publish"):
        outbox.add(connection, GuestSeen("g1", SECRET))
    connection.close()
