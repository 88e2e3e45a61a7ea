"""SQLite against the memory backend, its specification: the same story told to both, by hypothesis.

What is left out is what the contract leaves open: whether a heartbeat that comes too late, or a
commit after the lease's end that nobody has taken over yet, is still accepted.

EXPLORE=1 in the environment tells other stories each time, and more of them.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from lockstep import GROUPS, LEASE, PARTITIONS, Held, Lockstep, Side, finish

from eventmill.core.claims import Balance
from eventmill.core.job import Job, JobError
from eventmill.core.message import Message, Partition
from eventmill.core.tracker import Tracker
from eventmill.testing.conformance.samples import everything

KEYS = (None, "a", "b", "c")
PROCESSES = ("p1", "p2")
DOCUMENTS = ("d1", "d2")

groups = st.sampled_from((GROUPS[0], GROUPS[0], GROUPS[0], GROUPS[1]))
processes = st.sampled_from(PROCESSES)
nth = st.integers(0, 11)


def group_of(member: str) -> str:
    return member.split("/")[1].split(".")[0]


class Stores(RuleBasedStateMachine):
    """Members of two groups, in three processes, on one store."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.lockstep = Lockstep(self.folder)
        self.both = self.lockstep.both
        self.until: dict[str, float] = {}
        self.epochs: dict[str, int] = {}
        self.cursors: dict[tuple[str, str], int] = {}
        self.owners: dict[tuple[str, str], str] = {}
        self.workers: dict[int, str] = {}
        self.count = 0

    def teardown(self) -> None:
        self.lockstep.close()
        shutil.rmtree(self.folder)

    # Who there is

    def member(self, process: str, group: str) -> str:
        return f"{process}/{group}.{self.epochs.get(f'{process}/{group}', 1)}"

    def alive(self, member: str) -> bool:
        return self.lockstep.clock.now() < self.until.get(member, 0.0)

    def living(self) -> list[tuple[str, str]]:
        """Process and group of each member that is alive."""
        everybody = ((process, group) for process in PROCESSES for group in GROUPS)
        return [(process, group) for process, group in everybody if self.alive(self.member(process, group))]

    def keep(self, member: str) -> None:
        """What the heartbeat does, at once."""
        for side in self.lockstep.sides:
            side.backend.beat([member], LEASE)
        self.until[member] = self.lockstep.clock.now() + LEASE

    def gone(self, process: str, group: str) -> None:
        member = self.member(process, group)
        self.until.pop(member, None)
        self.epochs[f"{process}/{group}"] = self.epochs.get(f"{process}/{group}", 1) + 1
        for side in self.lockstep.sides:
            side.forget(member)

    @initialize()
    def begin(self) -> None:
        """Something to do, somebody to do it, and some of it set aside in two lanes."""
        self.publish([("order", key) for key in ("a", "b", "c", "a", "b", "c", "a", "b", None)])
        self.balance("p1", GROUPS[0])
        for number in range(5):
            self.handle_one(number, "aside", emits=False, repeat=False, document=None, expected=None)
        self.claim(0, 1)

    # The log

    def message(self, topic: str, key: str | None, kind: str = "placed") -> Message:
        self.count += 1
        id_ = f"m{self.count}"
        return Message(
            id=id_,
            source="story",
            type=f"{topic}.{kind}",
            topic=topic,
            time=0,
            data=b"1",
            key=key,
            correlationid=id_,  # as every envelope has it that is made where a correlation begins
        )

    @rule(
        what=st.lists(
            st.tuples(st.sampled_from(("order", "stock", "new")), st.sampled_from(KEYS)), min_size=1, max_size=4
        )
    )
    def publish(self, what: Sequence[tuple[str, str | None]]) -> None:
        messages = [self.message(topic, key) for topic, key in what]
        self.both(lambda side: side.backend.publish(messages))

    @rule(topic=st.sampled_from(("order", "stock")), seconds=st.sampled_from((0.5, 5.0)))
    def trim(self, topic: str, seconds: float) -> None:
        self.both(lambda side: side.backend.trim(topic, older_than=seconds, force=True))

    @rule(seconds=st.sampled_from((0.7, 0.7, 3.3, 3.3, 10.9)))
    def time_passes(self, seconds: float) -> None:
        self.lockstep.advance(seconds)

    # Members

    @rule(process=processes, group=groups)
    def balance(self, process: str, group: str) -> None:
        """One step of the group's spreading. One whose lease is over starts again, from the stored cursors."""
        if self.member(process, group) in self.until and not self.alive(self.member(process, group)):
            self.epochs[f"{process}/{group}"] = self.epochs.get(f"{process}/{group}", 1) + 1
        member = self.member(process, group)

        async def step(side: Side) -> Balance:
            side.join(member, group)
            await side.backend.enroll(group, None, PARTITIONS)
            balance = await side.backend.balance(group, member, PARTITIONS, LEASE)
            held = side.held[member]
            for partition in [part for part in held if balance.held.get(part) != held[part].cursor.token]:
                del held[partition]
            for cursor in balance.acquired:
                tracker = Tracker(cursor.position, cursor.ahead)
                held[cursor.partition] = Held(cursor, tracker, cursor.position)
            free = [part for part in balance.surplus if not held[part].open]
            if free:
                await side.backend.release(group, member, free)
                for partition in free:
                    del held[partition]
            return balance

        _, balance = self.both(step)
        self.keep(member)
        self.fetch(member)
        for cursor in balance["acquired"]:
            owner = self.owners.get((group, cursor["partition"]))
            assert owner in (None, member) or not self.holds(owner, cursor["partition"]), "taken from a live member"
            self.owners[group, cursor["partition"]] = member

    def holds(self, member: str, partition: str) -> bool:
        held = self.lockstep.sides[0].held.get(member, {})
        return self.alive(member) and any(str(part) == partition for part in held)

    @rule(process=processes)
    def heartbeat(self, process: str) -> None:
        for group in GROUPS:
            if self.alive(self.member(process, group)):
                self.keep(self.member(process, group))

    @rule(process=processes, group=groups)
    def leave(self, process: str, group: str) -> None:
        member = self.member(process, group)
        if self.alive(member):
            self.both(lambda side: side.backend.release(group, member, None))
            self.gone(process, group)

    @rule(process=processes)
    def bury(self, process: str) -> None:
        self.both(lambda side: side.backend.bury(process))
        for group in GROUPS:
            self.gone(process, group)

    @rule(process=processes, group=groups)
    def take_over(self, process: str, group: str) -> None:
        """Everybody is silent for longer than a lease, and one comes who notices."""
        self.lockstep.advance(LEASE + 0.9)
        self.balance(process, group)

    # Messages in hand

    @precondition(lambda self: self.living())
    @rule(number=nth)
    def read(self, number: int) -> None:
        living = self.living()
        self.fetch(self.member(*living[number % len(living)]))

    def fetch(self, member: str) -> None:
        """Take everything new into the hand."""

        async def step(side: Side) -> Any:
            held = side.held[member]
            found = await everything(side.backend, {part: each.fetched for part, each in held.items()})
            started = []
            for record in found:
                each = held[record.partition]
                each.fetched = record.position
                each.tracker.scanned(record.position)
                if each.tracker.start(record.position):
                    each.open.append(record.position)
                    started.append((str(record.partition), record.position, record.message))
            return sorted(started, key=lambda entry: entry[1])

        self.both(step)

    def in_hand(self) -> list[tuple[str, Partition, int]]:
        """Group, partition and position of the first few messages in each hand, stale ones included."""
        return [
            (member, partition, position)
            for member, held in sorted(self.lockstep.sides[0].held.items())
            for partition in sorted(held)
            for position in held[partition].open[:2]
            # Over, and nobody has taken it over yet: what becomes of it is left open.
            if self.alive(member) or self.owners.get((group_of(member), str(partition))) != member
        ]

    @precondition(lambda self: self.in_hand())
    @rule(
        number=nth,
        fate=st.sampled_from(("done", "done", "retry", "aside", "dead")),
        emits=st.booleans(),
        repeat=st.sampled_from((False, False, True)),
        document=st.sampled_from((None, None, *DOCUMENTS)),
        expected=st.sampled_from((None, 0, 1)),
    )
    def handle(
        self, number: int, fate: str, emits: bool, repeat: bool, document: str | None, expected: int | None
    ) -> None:
        self.handle_one(number, fate, emits=emits, repeat=repeat, document=document, expected=expected)

    def stale(self) -> list[int]:
        """Places in `in_hand` of what others have taken over."""
        return [number for number, (member, _, _) in enumerate(self.in_hand()) if not self.alive(member)]

    @precondition(lambda self: self.stale())
    @rule(number=nth, fate=st.sampled_from(("done", "aside")))
    def handle_too_late(self, number: int, fate: str) -> None:
        stale = self.stale()
        self.handle_one(stale[number % len(stale)], fate, emits=True, repeat=False, document="d1", expected=None)

    def handle_one(
        self, number: int, fate: str, *, emits: bool, repeat: bool, document: str | None, expected: int | None
    ) -> None:
        choices = self.in_hand()
        member, partition, position = choices[number % len(choices)]
        group = group_of(member)
        emitted = self.message("order", "a", "emitted")
        mark = self.message("order", None).id if not repeat else "always the same"
        now = self.lockstep.clock.now()

        async def step(side: Side) -> Any:
            held = side.held[member][partition]
            unit = side.backend.unit(held.cursor, side.fences[member])
            source = msgspec.structs.replace(emitted, id=mark)
            if fate == "done":
                if emits:
                    unit.append([emitted])
                if document is not None:
                    unit.put(document, b"value", expected=expected)
                unit.receive(group, source)
            else:
                lane = f"lane{position % 2}"
                # What finds its lane occupied is not tried, as in the runtime, but waits behind.
                behind = fate == "aside" or await side.backend.occupied(group, [lane])
                attempts = 0 if behind else 1
                due = int(now * 1000) + (2000 if fate == "retry" and not behind else 0)
                state = "dead" if fate == "dead" and not behind else "due"
                unit.send(
                    [Job(queue=group, message=source, lane=lane, due=due, attempts=attempts, position=position,
                         partition=partition, recorded_at=int(now * 1000), state=state)]
                )  # fmt: skip
            unit.mark(held.cursor, held.tracker, position)
            await finish(unit)
            held.open.remove(position)

        answer, _ = self.both(step)
        if not self.alive(member):
            assert answer == "refused", "a stale worker changed something"
            for side in self.lockstep.sides:
                del side.held[member][partition]

    # Jobs

    @precondition(lambda self: self.living())
    @rule(number=nth, limit=st.sampled_from((1, 10)))
    def claim_some(self, number: int, limit: int) -> None:
        self.claim(number, limit)

    # A second rule for the same makes it twice as likely.
    claim_more = precondition(lambda self: self.living())(rule(number=nth)(lambda self, number: self.claim(number, 10)))

    def claim(self, number: int, limit: int) -> None:
        living = self.living()
        process, group = living[number % len(living)]
        member = self.member(process, group)

        async def step(side: Side) -> Sequence[Job]:
            claimed = await side.backend.claim(group, member, limit=limit, lease=LEASE)
            side.jobs[member].update({job.id: job for job in claimed})
            for job in claimed:
                waiting = [each for each in await side.backend.jobs(group) if each.lane == job.lane]
                assert job.lane is None or min(each.id for each in waiting) == job.id, "not the first of its lane"
            return [msgspec.structs.replace(job, state="") for job in claimed]

        _, claimed = self.both(step)
        self.keep(member)
        for job in claimed:
            worker = self.workers.get(job["id"])
            assert worker is None or worker == member or not self.works(worker, job["id"]), "claimed by two"
            self.workers[job["id"]] = member

    def works(self, member: str, job: int) -> bool:
        return self.alive(member) and job in self.lockstep.sides[0].jobs.get(member, {})

    def claimed(self) -> list[tuple[str, int]]:
        """Member and id of each claimed job, stale ones included."""
        return [
            (member, id_)
            for member, jobs in sorted(self.lockstep.sides[0].jobs.items())
            for id_ in sorted(jobs)
            if self.alive(member) or self.workers.get(id_) != member
        ]

    @precondition(lambda self: self.claimed())
    @rule(number=nth, fate=st.sampled_from(("done", "retry", "leave lane")))
    def settle(self, number: int, fate: str) -> None:
        self.settle_one(number, fate)

    @precondition(lambda self: self.claimed())
    @rule(number=nth)
    def give_up(self, number: int) -> None:
        self.settle_one(number, "dead")

    def settle_one(self, number: int, fate: str) -> None:
        choices = self.claimed()
        member, id_ = choices[number % len(choices)]
        now = int(self.lockstep.clock.now() * 1000)
        failed = JobError(at=now, attempt=1, error="ValueError: no")

        async def step(side: Side) -> Any:
            job = side.jobs[member].pop(id_)
            unit = side.backend.unit(job, side.fences[member])
            worse = msgspec.structs.replace(job, errors=[*job.errors, failed])
            if fate == "done":
                unit.settle(job)
            elif fate == "retry":
                unit.settle(worse, retry_at=now + 1000)
            elif fate == "dead":
                unit.settle(worse, dead=True)
            else:
                unit.settle(msgspec.structs.replace(worse, lane=None), dead=True)
            await finish(unit)

        answer, _ = self.both(step)
        assert answer == "ok" or self.workers.get(id_) != member, "a live claim was refused"

    @rule(group=groups, what=st.sampled_from(("replay", "skip")), first=st.booleans())
    def operate(self, group: str, what: str, first: bool) -> None:
        async def step(side: Side) -> int:
            dead = [job.id for job in await side.backend.jobs(group, state="dead")]
            act: Callable[[Sequence[int]], Any] = getattr(side.backend, what)
            return int(await act(dead[:1] if first else dead))

        self.both(step)

    @precondition(lambda self: self.count > 3)
    @rule(group=groups)
    def ask(self, group: str) -> None:
        lanes = ["lane0", "lane1", "other"]
        self.both(lambda side: side.backend.occupied(group, lanes))
        if all(self.alive(member) for member in self.until):
            # Whether a vanished member's job counts as waiting before anybody has noticed is left open.
            self.both(lambda side: side.backend.next_due(group))
        self.both(lambda side: side.backend.received(group, ["always the same", *(f"m{n}" for n in range(self.count))]))
        self.both(lambda side: side.backend.pending(dict.fromkeys(PARTITIONS, 2)))
        self.both(lambda side: side.backend.end())
        self.both(lambda side: side.backend.topics())
        for document in DOCUMENTS:

            async def get(side: Side, key: str = document) -> Any:
                async with side.backend.transaction() as tx:
                    return await tx.get(key)

            self.both(get)

    # Always

    @invariant()
    def the_same_is_stored(self) -> None:
        async def log(side: Side) -> Any:
            return sorted(await everything(side.backend), key=lambda record: record.position)

        async def jobs(side: Side) -> Any:
            return [
                (job.id, job.queue, job.lane, "due" if job.state == "running" else job.state, job.due, job.attempts,
                 job.errors, job.message, job.position, str(job.partition))
                for job in await side.backend.jobs()
            ]  # fmt: skip

        self.both(log)
        _, stored = self.both(jobs)
        lanes: dict[tuple[str, str], list[str]] = {}
        for _, queue, lane, state, *_ in stored:
            if lane is not None:
                lanes.setdefault((queue, lane), []).append(state)
        for states in lanes.values():
            assert states[0] != "parked", "a lane is stuck"
            assert "due" not in states[1:], "a lane runs out of order"

    @invariant()
    def cursors_only_grow(self) -> None:
        async def step(side: Side) -> Any:
            return await side.backend.groups()

        _, found = self.both(step)
        for group in found:
            for partition, position in group["cursors"].items():
                assert position >= self.cursors.get((group["name"], partition), 0)
                self.cursors[group["name"], partition] = position


EXPLORE = bool(os.environ.get("EXPLORE"))

Stores.TestCase.settings = settings(
    max_examples=300 if EXPLORE else 60,
    stateful_step_count=50,
    deadline=None,
    derandomize=not EXPLORE,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

TestStores = Stores.TestCase
