"""Orchestrated sagas: forward, back, and the ways between, on every store."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest
from long_running import SETTINGS, in_loop, running, until, url

from eventmill import (
    NO_RETRY,
    App,
    ConfigurationError,
    DeadLetter,
    Event,
    Retry,
    StepContext,
    Transaction,
    fixed,
)
from eventmill.patterns.saga.instance import Instance

__all__ = ["url"]

QUICK = fixed(0.05, attempts=3)


class SagaPlaced(Event, name="sagatest.placed", key="order"):
    order: str
    fails: str = ""


class SagaShip(Event, name="sagatest.ship", key="order"):
    order: str


class SagaShipped(Event, name="sagatest.shipped", key="order"):
    order: str
    parcel: str = "p1"


class SagaNotShipped(Event, name="sagatest.notshipped", key="order"):
    order: str
    why: str = "no carrier"


class SagaPerhapsShipped(Event, name="sagatest.perhapsshipped", key="order"):
    order: str


@dataclass
class Provider:
    """Something outside: what it was asked, and what it has done by idempotency key."""

    calls: list[str] = field(default_factory=list)
    charged: dict[str, int] = field(default_factory=dict)
    fail: str = ""
    hold: asyncio.Event | None = None

    async def charge(self, key: str) -> None:
        self.calls.append("charge")
        if self.hold is not None:
            await self.hold.wait()
        if self.fail != "before":
            self.charged[key] = 1
        if self.fail:
            raise ConnectionError("no answer")

    async def refund(self, key: str) -> None:
        self.calls.append("refund")
        self.charged.pop(key, None)


async def note(tx: Transaction, order: str, what: str) -> None:
    await tx.execute("INSERT INTO ledger (order_id, what) VALUES (?, ?)", (order, what))


async def ledger(app: App, order: str) -> list[str]:
    async with app.transaction() as tx:
        rows = await tx.execute("SELECT what FROM ledger WHERE order_id = ? ORDER BY line", (order,))
        return [what for (what,) in rows]


def new_app(url: str, **options: Any) -> App:
    app = App(url, name="shop", settings=SETTINGS, **options)
    line = "bigserial" if url.startswith("postgres") else "integer"

    @app.setup
    async def tables(tx: Transaction) -> None:
        await tx.execute(f"CREATE TABLE IF NOT EXISTS ledger (line {line} PRIMARY KEY, order_id text, what text)")

    return app


def checkout(url: str, provider: Provider | None = None, **options: Any) -> App:
    """Reserve, charge (outside), book (the pivot), confirm; each fails where the event says so."""
    app = new_app(url)
    provider = provider or Provider()
    saga = app.saga("checkout", key="order", starts_on=SagaPlaced, **options)

    async def release(event: SagaPlaced, tx: Transaction, ctx: StepContext) -> None:
        await note(tx, event.order, f"release {ctx.outcome}")
        if event.fails == "release" and not await tx.execute("SELECT 1 FROM ledger WHERE what = 'healed'"):
            raise RuntimeError("release does not work")

    async def refund(event: SagaPlaced, tx: Transaction, ctx: StepContext) -> None:
        await provider.refund(ctx.idempotency_key)
        await note(tx, event.order, f"refund {ctx.outcome}")

    @saga.step(compensate=release, undo_retry=QUICK, retry=QUICK)
    async def reserve(event: SagaPlaced, tx: Transaction) -> None:
        await note(tx, event.order, "reserve")
        if event.fails == "reserve":
            raise RuntimeError("nothing there")

    @saga.step(compensate=refund, outside=True, retry=QUICK)
    async def charge(event: SagaPlaced, tx: Transaction, ctx: StepContext) -> DeadLetter | None:
        if event.fails == "declined":
            return DeadLetter("card declined")
        await provider.charge(ctx.idempotency_key)
        await note(tx, event.order, "charge")
        return None

    @saga.step(kind="pivot", retry=QUICK)
    async def book(event: SagaPlaced, tx: Transaction) -> None:
        await note(tx, event.order, "book")
        if event.fails in ("book", "release"):
            raise RuntimeError("the books are closed")

    @saga.step(kind="retriable", retry=QUICK)
    async def confirm(event: SagaPlaced, tx: Transaction, ctx: StepContext) -> None:
        await note(tx, event.order, "confirm")
        if event.fails == "confirm" and ctx.attempt < 3:
            raise RuntimeError("later")
        if event.fails == "confirm for good":
            raise RuntimeError("never")

    return app


async def ended(app: App, order: str, *states: str) -> Instance:
    async def look() -> Instance | None:
        found = await app.sagas("checkout").show(order)
        wanted = states or ("COMPLETED", "COMPENSATED", "NEEDS_ATTENTION")
        return found if found is not None and found.state in wanted and found.driver is None else None

    found: Instance = await until(look)
    return found


@in_loop
async def test_goes_through_its_steps(url: str) -> None:
    app = checkout(url)
    async with running(app):
        await app.publish(*[SagaPlaced(f"o{n}") for n in range(20)])
        for n in range(20):
            found = await ended(app, f"o{n}")
            assert found.state == "COMPLETED"
            assert [(step.name, step.state, step.attempts) for step in found.steps] == [
                ("reserve", "done", 1), ("charge", "done", 1), ("book", "done", 1), ("confirm", "done", 1)
            ]  # fmt: skip
            assert await ledger(app, f"o{n}") == ["reserve", "charge", "book", "confirm"]


@pytest.mark.parametrize(
    ("fails", "written"),
    [
        ("reserve", []),
        ("declined", ["reserve", "release done"]),
        ("book", ["reserve", "charge", "refund done", "release done"]),
    ],
)
@in_loop
async def test_what_was_done_is_undone_in_reverse(url: str, fails: str, written: list[str]) -> None:
    provider = Provider()
    app = checkout(url, provider)
    async with running(app):
        await app.publish(SagaPlaced("a", fails))
        found = await ended(app, "a")
        assert found.state == "COMPENSATED"
        assert await ledger(app, "a") == written
        assert provider.charged == {}
        assert found.reason


@pytest.mark.parametrize("fail", ["before", "after"])
@in_loop
async def test_an_unknown_outcome_is_compensated_under_the_same_key(url: str, fail: str) -> None:
    """The provider may have charged and not answered: three attempts, one key, one refund."""
    provider = Provider(fail=fail)
    app = checkout(url, provider)
    async with running(app):
        await app.publish(SagaPlaced("a"))
        found = await ended(app, "a")
        assert found.state == "COMPENSATED"
        assert await ledger(app, "a") == ["reserve", "refund unknown", "release done"]
        assert provider.calls == ["charge"] * 3 + ["refund"]
        assert provider.charged == {}


@in_loop
async def test_retriable_steps_are_tried_again_after_the_pivot(url: str) -> None:
    app = checkout(url)
    async with running(app):
        await app.publish(SagaPlaced("a", "confirm"))
        found = await ended(app, "a")
        assert (found.state, found.steps[-1].attempts) == ("COMPLETED", 3)
        assert await ledger(app, "a") == ["reserve", "charge", "book", "confirm"]


@in_loop
async def test_a_retriable_step_that_never_succeeds_needs_attention(url: str) -> None:
    app = checkout(url)
    async with running(app):
        await app.publish(SagaPlaced("a", "confirm for good"))
        found = await ended(app, "a")
        assert (found.state, found.halted) == ("NEEDS_ATTENTION", "confirm")
        sagas = app.sagas("checkout")
        with pytest.raises(ConfigurationError, match="say why"):
            await sagas.operate("skip", "a", by="ada")
        with pytest.raises(ConfigurationError, match="point of no return"):
            await sagas.cancel("a", by="ada", why="changed my mind")
        await sagas.operate("retry", "a", by="ada")
        again = await until(lambda: _halted_again(app))
        assert [entry.what for entry in again.timeline if entry.by] == ["operator.retry"]
        await sagas.operate("resolve", "a", by="ada", why="told them by telephone")
        found = await ended(app, "a", "COMPLETED")
        assert [(entry.what, entry.by, entry.detail) for entry in found.timeline if entry.by] == [
            ("operator.retry", "ada", ""), ("operator.resolve", "ada", "told them by telephone")
        ]  # fmt: skip


async def _halted_again(app: App) -> Instance | None:
    found = await app.sagas("checkout").show("a")
    halts = 0 if found is None else sum(entry.what == "needs_attention" for entry in found.timeline)
    return found if halts == 2 else None


@pytest.mark.parametrize(
    ("action", "last"), [("retry", "release done"), ("skip", "refund done"), ("resolve", "refund done")]
)
@in_loop
async def test_a_compensation_that_fails_for_good_has_a_way_out(url: str, action: Any, last: str) -> None:
    app = checkout(url)
    async with running(app):
        await app.publish(SagaPlaced("a", "release"))
        found = await ended(app, "a")
        assert (found.state, found.halted) == ("NEEDS_ATTENTION", "reserve")
        assert await ledger(app, "a") == ["reserve", "charge", "refund done"]
        async with app.transaction() as tx:
            await note(tx, "none", "healed")
        await app.sagas("checkout").operate(action, "a", by="ada", why="seen to")
        found = await ended(app, "a", "COMPENSATED")
        assert (await ledger(app, "a"))[-1] == last
        with pytest.raises(ConfigurationError, match="nothing to do"):
            await app.sagas("checkout").cancel("a", by="ada", why="again")


@in_loop
async def test_the_same_start_twice_is_one_instance(url: str) -> None:
    app = checkout(url)
    async with running(app):
        await app.publish(SagaPlaced("a"), SagaPlaced("a"))
        await app.publish(SagaPlaced("a"))
        found = await ended(app, "a")

        async def all_noted() -> bool:
            instance = await app.sagas("checkout").show("a")
            return instance is not None and sum(e.what == "started.again" for e in instance.timeline) == 2

        await until(all_noted)
        assert found.state == "COMPLETED"
        assert await ledger(app, "a") == ["reserve", "charge", "book", "confirm"]


# Cancelling


@pytest.mark.parametrize("at", ["reserve", "charge", "book"])
@in_loop
async def test_cancel_at_every_step(url: str, at: str) -> None:
    """While a step runs: what it did is undone with it, or compensated; never left, never half."""
    app = new_app(url)
    provider = Provider()
    entered, go_on = asyncio.Event(), asyncio.Event()
    saga = app.saga("checkout", key="order", starts_on=SagaPlaced)

    def step(name: str, **options: Any) -> None:
        async def undo(event: SagaPlaced, tx: Transaction, ctx: StepContext) -> None:
            await provider.refund(ctx.idempotency_key)
            await note(tx, event.order, f"undo {name}")

        async def run(event: SagaPlaced, tx: Transaction, ctx: StepContext) -> None:
            if name == at and not entered.is_set():
                entered.set()
                await go_on.wait()
            await provider.charge(ctx.idempotency_key)
            await note(tx, event.order, name)

        saga.step(name=name, compensate=undo, outside=True, retry=NO_RETRY, **options)(run)

    for name in ("reserve", "charge", "book"):
        step(name)
    async with running(app):
        await app.publish(SagaPlaced("a"))
        await asyncio.wait_for(entered.wait(), 20)
        await app.sagas("checkout").cancel("a", by="ada", why="changed my mind")
        go_on.set()
        found = await ended(app, "a")
        assert found.state == "COMPENSATED"
        assert provider.charged == {}
        begun = ["reserve", "charge", "book"][: ["reserve", "charge", "book"].index(at) + 1]
        undone = [what for what in await ledger(app, "a") if what.startswith("undo")]
        assert undone == [f"undo {name}" for name in reversed(begun)]
        assert ("operator.cancel", "ada") in [(entry.what, entry.by) for entry in found.timeline]


# Commands and answers


def shipping(url: str, *, answer: str, deadline: float = 20.0, retry: Any = NO_RETRY) -> App:
    """One service that sends a command, and the other, which answers it; both in one App, as the log is one."""
    app = new_app(url)
    saga = app.saga("checkout", key="order", starts_on=SagaPlaced)

    async def cancel(event: SagaPlaced, tx: Transaction, ctx: StepContext) -> None:
        await note(tx, event.order, f"cancel shipping {ctx.outcome}")

    @saga.step(
        compensate=cancel, done_on=SagaShipped, failed_on=SagaNotShipped, unknown_on=SagaPerhapsShipped,
        deadline=deadline, retry=retry,
    )  # fmt: skip
    async def ship(event: SagaPlaced, tx: Transaction) -> None:
        tx.publish(SagaShip(event.order))

    @saga.step()
    async def tell(event: SagaPlaced, tx: Transaction, ctx: StepContext) -> DeadLetter | None:
        shipped = ctx.answer(SagaShipped)
        assert shipped is not None
        await note(tx, event.order, shipped.parcel)
        return DeadLetter("nobody is there") if event.fails == "tell" else None

    @app.on(SagaShip)
    async def carrier(event: SagaShip, tx: Transaction) -> None:
        await note(tx, event.order, "carrier")
        if answer == "twice":
            tx.publish(SagaShipped(event.order), SagaShipped(event.order))
        elif answer == "yes":
            tx.publish(SagaShipped(event.order))
        elif answer == "no":
            tx.publish(SagaNotShipped(event.order))
        elif answer == "perhaps":
            tx.publish(SagaPerhapsShipped(event.order))

    return app


@pytest.mark.parametrize("answer", ["yes", "twice"])
@in_loop
async def test_a_command_stands_until_it_is_answered(url: str, answer: str) -> None:
    app = shipping(url, answer=answer)
    async with running(app):
        await app.publish(SagaPlaced("a"))
        found = await ended(app, "a")
        assert found.state == "COMPLETED"
        assert await ledger(app, "a") == ["carrier", "p1"]


@in_loop
async def test_a_command_that_is_refused_turns_the_saga_round(url: str) -> None:
    app = shipping(url, answer="no")
    async with running(app):
        await app.publish(SagaPlaced("a"))
        found = await ended(app, "a")
        assert (found.state, found.steps[0].state) == ("COMPENSATED", "failed")
        assert await ledger(app, "a") == ["carrier"]
        assert "no carrier" in found.reason


@in_loop
async def test_a_command_of_which_the_other_does_not_know_is_compensated_as_unknown(url: str) -> None:
    app = shipping(url, answer="perhaps", retry=fixed(0.05, attempts=2))
    async with running(app):
        await app.publish(SagaPlaced("a"))
        found = await ended(app, "a")
        assert (found.state, found.steps[0].attempts) == ("COMPENSATED", 1)
        assert await ledger(app, "a") == ["carrier", "cancel shipping unknown"]


@in_loop
async def test_a_command_without_an_answer_is_compensated_as_unknown(url: str) -> None:
    app = shipping(url, answer="", deadline=0.2, retry=fixed(0.05, attempts=2))
    async with running(app):
        await app.publish(SagaPlaced("a"))
        found = await ended(app, "a")
        assert (found.state, found.steps[0].attempts) == ("COMPENSATED", 2)
        assert Counter(await ledger(app, "a")) == {"carrier": 2, "cancel shipping unknown": 1}
        await app.publish(SagaShipped("a"))

        async def late() -> bool:
            instance = await app.sagas("checkout").show("a")
            return instance is not None and any(entry.what == "answer.late" for entry in instance.timeline)

        await until(late)
        assert (await ended(app, "a")).state == "COMPENSATED"


@in_loop
async def test_an_answered_command_is_compensated_as_done(url: str) -> None:
    app = shipping(url, answer="yes")
    async with running(app):
        await app.publish(SagaPlaced("a", "tell"))
        assert (await ended(app, "a")).state == "COMPENSATED"
        assert await ledger(app, "a") == ["carrier", "cancel shipping done"]


@in_loop
async def test_parallel_commands_do_not_wait_for_each_other(url: str) -> None:
    app = new_app(url)
    saga = app.saga("checkout", key="order", starts_on=SagaPlaced)

    async def undo(event: SagaPlaced, tx: Transaction, ctx: StepContext) -> None:
        await note(tx, event.order, f"undo {ctx.step} {ctx.outcome}")

    @saga.step(compensate=undo, done_on=SagaShipped, parallel="both")
    async def first(event: SagaPlaced, tx: Transaction) -> None:
        await note(tx, event.order, "first")

    @saga.step(compensate=undo, done_on=SagaShip, failed_on=SagaNotShipped, parallel="both")
    async def second(event: SagaPlaced, tx: Transaction) -> None:
        await note(tx, event.order, "second")

    @saga.step()
    async def after(event: SagaPlaced, tx: Transaction) -> None:
        await note(tx, event.order, "after")

    async with running(app):
        await app.publish(SagaPlaced("a"), SagaPlaced("b"))

        async def sent(order: str) -> bool:
            return await ledger(app, order) == ["first", "second"]

        await until(lambda: sent("a"))
        await until(lambda: sent("b"))
        await app.publish(SagaShip("a"), SagaShipped("a"), SagaNotShipped("b"))
        assert (await ended(app, "a")).state == "COMPLETED"
        assert (await ledger(app, "a"))[-1] == "after"
        assert (await ended(app, "b")).state == "COMPENSATED"
        assert await ledger(app, "b") == ["first", "second", "undo first unknown"]


# Locks


def seats(url: str, on_locked: Any, lock_timeout: float = 20.0) -> App:
    app = new_app(url)
    saga = app.saga("checkout", key="order", starts_on=SagaPlaced)

    @saga.step(locks=lambda event: ["seat/1"], on_locked=on_locked, lock_timeout=lock_timeout)
    async def take(event: SagaPlaced, tx: Transaction) -> None:
        await note(tx, "seat", f"{event.order} in")

    @saga.step(done_on=SagaShipped)
    async def pay(event: SagaPlaced, tx: Transaction) -> None: ...

    @saga.step()
    async def leave(event: SagaPlaced, tx: Transaction) -> DeadLetter | None:
        if event.fails:
            return DeadLetter("no money")
        await note(tx, "seat", f"{event.order} out")
        return None

    return app


async def locked(app: App) -> list[str]:
    return [document.key for document in await app.store.documents("lock/")]


@in_loop
async def test_a_lock_is_waited_for_and_given_on(url: str) -> None:
    app = seats(url, "wait")
    async with running(app):
        orders = ["a", "b", "c", "d"]
        await app.publish(SagaPlaced("a"))
        await until(lambda: ledger(app, "seat"))
        await app.publish(*[SagaPlaced(order, "x" if order == "c" else "") for order in orders[1:]])
        inside = ["a"]
        while len(inside) < 4:

            async def waiting() -> bool:
                found = [each async for each in app.sagas("checkout").instances()]
                there = {i.key: i for i in found}
                return len(there) == 4 and all(order in inside or there[order].wants for order in orders)

            await until(waiting)
            assert await locked(app) == ["lock/seat/1"]
            await app.publish(SagaShipped(inside[-1]))

            async def following() -> str | None:
                found = [what[0] for what in await ledger(app, "seat") if what.endswith("in")]
                return found[-1] if len(found) > len(inside) else None

            inside.append(await until(following))
        await app.publish(SagaShipped(inside[-1]))
        states = [(await ended(app, order)).state for order in orders]
        assert states == ["COMPLETED", "COMPLETED", "COMPENSATED", "COMPLETED"]
        assert await locked(app) == []
        found = await ledger(app, "seat")
        assert Counter(what.split()[1] for what in found) == {"in": 4, "out": 3}


@in_loop
async def test_a_lock_may_be_refused_or_waited_for_in_vain(url: str) -> None:
    for on_locked, timeout in (("refuse", 20.0), ("wait", 0.3)):
        app = seats(url, on_locked, lock_timeout=timeout)
        async with running(app):
            holder, other = f"a{timeout}", f"b{timeout}"
            await app.publish(SagaPlaced(holder))

            async def held(app: App = app, holder: str = holder) -> bool:
                found = await app.sagas("checkout").show(holder)
                return found is not None and found.locks == ["seat/1"]

            await until(held)
            await app.publish(SagaPlaced(other))
            found = await ended(app, other)
            assert found.state == "COMPENSATED"
            assert "lock" in found.reason
            assert await locked(app) == ["lock/seat/1"]
            await app.sagas("checkout").cancel(holder, by="ada", why="too slow")
            assert (await ended(app, holder)).state == "COMPENSATED"
            assert await locked(app) == []


# State, time, keeping


@dataclass
class Basket:
    order: str
    seen: list[str] = field(default_factory=list)


@in_loop
async def test_a_state_of_its_own_is_kept_from_step_to_step(url: str) -> None:
    app = new_app(url)
    saga = app.saga(
        "checkout", key="order", starts_on=SagaPlaced, state=Basket, begin=lambda event: Basket(event.order)
    )
    asked = 0

    @saga.step(retry=QUICK)
    async def first(basket: Basket, tx: Transaction) -> None:
        nonlocal asked
        asked += 1
        basket.seen.append(f"first {asked}")
        if asked == 1:
            raise RuntimeError("what it did to the state is undone, too")

    @saga.step(retry=QUICK)
    async def second(basket: Basket, ctx: StepContext) -> Basket | Retry:
        if ctx.attempt == 1:
            return Retry(after=0.05)
        return Basket(basket.order, [*basket.seen, "second"])

    async with running(app):
        await app.publish(SagaPlaced("a"))
        found = await ended(app, "a")
        assert found.state == "COMPLETED"
        assert bytes(found.data) == b'{"order":"a","seen":["first 2","second"]}'


@in_loop
async def test_a_deadline_undoes_what_has_not_come_to_its_end(url: str) -> None:
    app = new_app(url)
    saga = app.saga("checkout", key="order", starts_on=SagaPlaced, deadline=0.3)

    async def undo(event: SagaPlaced, tx: Transaction, ctx: StepContext) -> None:
        await note(tx, event.order, f"undo {ctx.outcome}")

    @saga.step(compensate=undo, done_on=SagaShipped)
    async def ship(event: SagaPlaced, tx: Transaction) -> None: ...

    async with running(app):
        await app.publish(SagaPlaced("a"))
        found = await ended(app, "a")
        assert (found.state, found.reason) == ("COMPENSATED", "the saga's deadline passed")
        assert await ledger(app, "a") == ["undo unknown"]


@in_loop
async def test_a_step_that_takes_too_long_is_interrupted(url: str) -> None:
    app = new_app(url)
    saga = app.saga("checkout", key="order", starts_on=SagaPlaced)

    @saga.step(timeout=0.05, retry=NO_RETRY)
    async def forever(event: SagaPlaced, tx: Transaction) -> None:
        await asyncio.sleep(60)

    async with running(app):
        await app.publish(SagaPlaced("a"))
        assert "TimeoutError" in (await ended(app, "a")).reason


@in_loop
async def test_ended_instances_are_kept_for_so_long(url: str) -> None:
    app = checkout(url, retention=0.2)
    async with running(app):
        await app.publish(SagaPlaced("a"), SagaPlaced("b", "confirm for good"))
        await ended(app, "a")
        await ended(app, "b")
        sagas = app.sagas("checkout")
        await asyncio.sleep(0.3)
        await sagas.tidy()
        assert await sagas.show("a") is None
        assert await sagas.show("b") is not None
        assert await app.store.documents("saga-ended/") == []
        assert [each.key async for each in sagas.instances()] == ["b"]
