"""Entities that the tests of event sourcing live with, and the naive fold they are held against."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import msgspec

from eventmill import Aggregate, App, Decider, Event, Fact


class Refused(Exception):
    """A rule of the domain."""


class PurseOpened(Event, name="purse.opened"):
    owner: str


class PurseFilled(Event, name="purse.filled"):
    amount: int


class PurseEmptied(Event, name="purse.emptied"):
    amount: int
    note: str = ""


class PurseCorrected(Event, name="purse.corrected"):
    owner: str
    balance: int


class Purse(Aggregate, name="purse"):
    owner: str = ""
    balance: int = 0
    notes: list[str] = msgspec.field(default_factory=list)

    def open(self, owner: str) -> Iterator[Event]:
        if self.owner:
            raise Refused(f"the purse is {self.owner}'s")
        yield PurseOpened(owner)

    def fill(self, amount: int) -> Iterator[Event]:
        yield PurseFilled(amount)
        return self.balance  # type: ignore[return-value]

    def empty(self, amount: int, note: str = "") -> Iterator[Event]:
        if amount > self.balance:
            raise Refused(f"{amount} of {self.balance}")
        yield PurseEmptied(amount, note)

    def drain(self, step: int) -> Iterator[Event]:
        """Many facts, each decided on what the one before has left."""
        while self.balance >= step:
            yield PurseEmptied(step)
        return self.balance  # type: ignore[return-value]

    def restore(self, past: Purse) -> Iterator[Event]:
        yield PurseCorrected(past.owner, past.balance)

    def evolve(self, event: PurseOpened | PurseFilled | PurseEmptied | PurseCorrected) -> None:
        match event:
            case PurseOpened(owner=owner):
                self.owner = owner
            case PurseFilled(amount=amount):
                self.balance += amount
            case PurseEmptied(amount=amount, note=note):
                self.balance -= amount
                if note:
                    self.notes.append(note)
            case PurseCorrected(owner=owner, balance=balance):
                self.owner, self.balance = owner, balance


class SnappedPurse(Purse, name="snapped-purse", topic="purse", snapshot_every=5):
    """The same streams, with snapshots."""


@dataclass(frozen=True)
class Coins:
    owner: str = ""
    balance: int = 0


def decide(coins: Coins, command: Event) -> Iterator[Event]:
    if isinstance(command, PurseEmptied) and command.amount > coins.balance:
        raise Refused("not enough")
    yield command
    return coins.balance


def evolve(coins: Coins, event: PurseOpened | PurseFilled | PurseEmptied) -> Coins:
    match event:
        case PurseOpened(owner=owner):
            return replace(coins, owner=owner)
        case PurseFilled(amount=amount):
            return replace(coins, balance=coins.balance + amount)
        case PurseEmptied(amount=amount):
            return replace(coins, balance=coins.balance - amount)
    return coins


COINS = Decider("coins", Coins, decide, evolve, topic="purse")
SNAPPED_COINS = Decider("snapped-coins", Coins, decide, evolve, topic="purse", snapshot_every=3)


def naive(facts: Sequence[Fact]) -> tuple[str, int, list[str]]:
    """Owner, balance and notes, folded with no code of ours."""
    owner, balance, notes = "", 0, []
    for fact in facts:
        event = fact.event
        if isinstance(event, PurseOpened):
            owner = event.owner
        elif isinstance(event, PurseFilled):
            balance += event.amount
        elif isinstance(event, PurseEmptied):
            balance -= event.amount
            notes += [event.note] if event.note else []
        elif isinstance(event, PurseCorrected):
            owner, balance = event.owner, event.balance
    return owner, balance, notes


async def check_every_version(app: App, id_: str) -> None:
    """The state at every version against the naive fold, with snapshots and without."""
    facts = await app.history(Purse, id_)
    for version in range(len(facts) + 1):
        expected = naive(facts[:version])
        for kind in (Purse, SnappedPurse):
            purse = await app.load(kind, id_, version=version)
            assert (purse.owner, purse.balance, purse.notes) == expected, (kind, version)
            assert (purse.id, purse.version) == (id_, version)
    for kind in (Purse, SnappedPurse):
        now = await app.load(kind, id_)
        assert (now.owner, now.balance, now.notes, now.version) == (*naive(facts), len(facts))


class SeatTaken(Event, name="hall.seat-taken", key="student", topic="hall", tags=("course", "student")):
    course: str
    student: str


def book(taken: frozenset[str], course: str, student: str, seats: int) -> Iterator[Event]:
    if student in taken:
        raise Refused(f"{student} has a seat")
    if len(taken) >= seats:
        raise Refused("no seat is left")
    yield SeatTaken(course, student)


def seated(taken: frozenset[str], event: SeatTaken) -> frozenset[str]:
    return taken | {event.student}
