"""An aggregator: a consumer that collects events by key, and publishes one event for each group that is over."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from typing import Any, Literal, NoReturn

import msgspec

from eventmill.core.document import ABSENT
from eventmill.core.errors import ConfigurationError
from eventmill.core.event import named
from eventmill.core.job import Job
from eventmill.core.key import Key, key_text
from eventmill.core.message import Message
from eventmill.core.outcome import DeadLetter, Retry
from eventmill.core.registry import EventType
from eventmill.patterns.aggregation import collect
from eventmill.patterns.aggregation.collect import Ended, Result, Rules, TooLate
from eventmill.patterns.aggregation.collected import Collected
from eventmill.patterns.aggregation.known import Known
from eventmill.patterns.aggregation.record import (
    Closed,
    Fine,
    Group,
    Link,
    Record,
    closed_prefix,
    encode,
    prefix_of,
)
from eventmill.patterns.surroundings import Surroundings
from eventmill.runtime.handler import Context
from eventmill.runtime.transaction import Transaction

log = logging.getLogger("eventmill")

LOOK = "eventmill.aggregation.look"
"""Type of the message that lets an aggregator look at some of its keys."""

SHOWN = 3_000
"""Bytes up to which an event carries the links to what it was made of; there is always the record of it."""

KEYS_A_JOB = 500
LATE, QUIET, PATIENCE = 2.0, 1.0, 6
"""A timer that comes more than LATE seconds after its time waits until no events have come for QUIET seconds, or until
its attempt number PATIENCE."""

TOGETHER = 50
"""Milliseconds within which moments to look at groups become one."""

Build = Callable[[Collected], Any]
Incomplete = Literal["partial", "nothing"] | Build


class Look(msgspec.Struct, omit_defaults=True):
    """Which keys to look at. force: close them, whatever they lack; by and why are the person's who says so."""

    keys: list[str]
    force: bool = False
    by: str = ""
    why: str = ""


_look = msgspec.json.Decoder(Look).decode
_write = msgspec.json.Encoder().encode


class Aggregator:
    """Collects, closes and publishes, each batch of events in one transaction."""

    def __init__(
        self, name: str, where: Surroundings, *, key: Key, kinds: Sequence[EventType], rules: Rules, build: Build,
        incomplete: Incomplete,
    ) -> None:  # fmt: skip
        self.name = name
        self.rules = rules
        self._where = where
        self._key = key
        for kind in kinds:
            kind.refuse_personal(f"aggregator {name!r}")
        self._kinds = {kind.name: kind for kind in kinds}
        self._build = build
        self._incomplete = incomplete
        self._prefix = prefix_of(name)
        self._handled_at: float | None = None
        self._known = Known(self._prefix, where.clock)
        # The key of an event that is declared with the same field for key= needs no decoding.
        self._own_key = {kind.name for kind in kinds if kind.keyed_by == key and isinstance(key, str)}
        if not callable(key):
            for kind in kinds:
                if key not in kind.fields:
                    raise ConfigurationError(f"aggregator {name!r}: {kind.name} has no field {key!r}, which is its key")

    async def handle(self, messages: list[Message], tx: Transaction, context: Context) -> DeadLetter | Retry | None:
        """Take in a batch of events, or look at some keys."""
        if messages[0].type == LOOK:
            look = _look(messages[0].data)
            if not look.force and self._comes_late(messages[0].time // 1000, context.attempt):
                return Retry(after=QUIET)
            await self._look(look, tx)
            return None
        self._handled_at = self._where.clock.now()
        by_key: dict[str, list[Fine]] = {}
        for message, position in zip(messages, context.positions, strict=True):
            correlation = message.correlationid
            fine = Fine(
                message.id, message.source, message.type, message.time, position, message.data, message.version,
                None if correlation == message.id else correlation,
            )  # fmt: skip
            by_key.setdefault(self._key_of(message), []).append(fine)
        lone = len(messages) == 1
        found = await self._known.take(tx, by_key, fresh=lone)
        now = self._where.now()
        work = _Work(now)
        kept = {}
        for key, events in by_key.items():
            version, record = found.get(key) or (ABSENT, Record())
            result = Result()
            for event in events:
                collect.add(self.rules, record, event, now, result)
                if result.late and self.rules.late == "refuse":
                    return DeadLetter(f"{event.type} {event.id} came after its group of {self.name}/{key} was closed")
                if result.ended or result.late:
                    # At once: the next event of the batch may be a repeat of what is in it, or come too late for it.
                    self._apply(key, record, result, work)
            self._time(key, record, work)
            if result.changed:
                data = encode(record)
                tx.put(self._prefix + key, data, expected=version)
                if record.open:
                    kept[key] = (version + 1, data)
        self._finish(work, tx)
        tx.when_finished(lambda durable: self._known.keep(kept, durable))
        return None

    def _comes_late(self, due: int, attempt: int) -> bool:
        """Whether a timer had better wait: nobody was there when it was due, so that there may be events to catch up on,
        which came in time. Seconds at most: a stream that is never quiet must not keep groups open."""
        now = self._where.clock.now()
        if now - due / 1000 < LATE or attempt >= PATIENCE:
            return False
        if self._handled_at is None:
            self._handled_at = now
        return now - self._handled_at < QUIET

    async def _look(self, look: Look, tx: Transaction) -> None:
        found = await self._known.take(tx, look.keys, fresh=True)
        now = self._where.now()
        work = _Work(now)
        for key, (version, record) in found.items():
            before = work.here()
            try:
                changed = self._look_at(key, record, look, work)
            except Exception:
                if len(look.keys) == 1:
                    raise
                # The user's function fails for this one: by itself it is tried again, and holds up no other key.
                work.back(before)
                alone = msgspec.structs.replace(look, keys=[key])
                tx.unit.send([job(self.name, self._where.ids(), alone, now)])
                continue
            if changed:
                tx.put(self._prefix + key, encode(record), expected=version)
        self._finish(work, tx)

    def _look_at(self, key: str, record: Record, look: Look, work: _Work) -> bool:
        """Close what is over of one key; returns whether that has changed its record."""
        result = Result()
        if look.force:
            collect.force(record, result)
            log.info("%s: %s is closed by %s: %s", self.name, key, look.by, look.why)
        else:
            collect.look(self.rules, record, work.now, result)
        ended = len(result.ended)
        if ended or result.late:
            self._apply(key, record, result, work)
        if look.force and ended:
            for closed in record.closed[-ended:]:
                closed.reason = f"forced by {look.by}: {look.why}"
        return self._time(key, record, work) or result.changed

    def _key_of(self, message: Message) -> str:
        if message.type in self._own_key and message.key is not None:
            return message.key
        kind = self._kinds[message.type]
        event = kind.decode(message.data, message.version)
        if callable(self._key):
            value = self._key(event)
        else:
            value = event[self._key] if isinstance(event, dict) else getattr(event, self._key)
        return key_text(value, f"aggregator {self.name!r}: key")

    # What follows

    def _apply(self, key: str, record: Record, result: Result, work: _Work) -> None:
        for ended in result.ended:
            event = self._event(key, ended)
            id_ = None
            if event is not None:
                id_ = self._id(key, ended.group.epoch)
                work.messages.append(self._coarse(id_, event, ended.group.events, work))
            collect.close(record, ended, work.now, id_, keep_events=self.rules.late == "amend")
            work.closed.append(key)
        for late in result.late:
            self._late(key, late, work)
        result.changed = True
        result.ended, result.late = [], []

    def _event(self, key: str, ended: Ended) -> Any:
        """What to publish of a group that is over: None for nothing."""
        collected = Collected(key, ended.group, self._where.registry, complete=ended.complete, reason=ended.reason)
        if ended.complete or self._incomplete == "partial":
            return self._build(collected)
        if self._incomplete == "nothing":
            return None
        assert callable(self._incomplete)
        return self._incomplete(collected)

    def _late(self, key: str, late: TooLate, work: _Work) -> None:
        event, closed = late
        if self.rules.late == "amend":
            assert closed is not None
            self._amend(key, event, closed, work)
            return
        if closed is not None:
            closed.late += 1
        kind = self._kinds[event.type]
        data = named(f"{self.name.rpartition('.')[2]}.late", msgspec.Raw(_write(
            {"aggregation": self.name, "key": key, "epoch": closed.epoch if closed else None, "type": event.type,
             "id": event.id, "source": event.source, "time": event.time, "version": event.version,
             "event": msgspec.Raw(event.data)}
        )), key=key)  # fmt: skip
        id_ = self._id(key, f"late:{event.source}:{event.id}")
        work.messages.append(self._coarse(id_, data, [event], work, links=False))
        log.info("%s: %s %s came too late for %s", self.name, kind.name, event.id, key)

    def _amend(self, key: str, event: Fine, closed: Closed, work: _Work) -> None:
        closed.events.append(event)
        closed.events.sort(key=lambda each: (each.time, each.source, each.id))
        closed.links.append(Link(event.id, event.source, event.type, event.position))
        closed.late += 1
        group = Group(closed.epoch, closed.at, work.now, closed.start, closed.end, closed.events)
        made = self._event(key, Ended(group, "complete", complete=self.rules.satisfied(group)))
        if made is not None:
            id_ = self._id(key, f"{closed.epoch}+{closed.late}")
            work.messages.append(self._coarse(id_, made, closed.events, work))
            closed.coarse.append(id_)

    def _id(self, key: str, epoch: str) -> str:
        """The same for the same group, however often it should be computed."""
        text = f"{self.name}/{key}/{epoch}"
        return text if len(text) <= 200 else f"{self.name}/{hashlib.sha256(text.encode()).hexdigest()}"

    def _coarse(self, id_: str, event: Any, events: Sequence[Fine], work: _Work, *, links: bool = True) -> Message:
        if isinstance(event, DeadLetter) or event is None:
            _wrong(self.name, event)
        extensions = {"constituents": str(len(events))}
        if links:
            text = " ".join([f"{each.id}@{each.position}" if each.position else each.id for each in events])
            if len(text) <= SHOWN:
                extensions["links"] = text
        first = events[0].correlationid or events[0].id
        for each in events:
            if (each.correlationid or each.id) != first:
                first = id_  # of several correlations none is its own
                break
        return self._where.envelopes.derived(
            event, id_=id_, correlationid=first, causationid=events[-1].id, extensions=extensions
        )

    # Timers

    def _time(self, key: str, record: Record, work: _Work) -> bool:
        """See to it that each open group is looked at when it may be over; returns whether that took a new timer."""
        timed = False
        for group in record.open:
            if group.timer > work.now and not self.rules.hurries:
                continue
            moment = collect.due(self.rules, record, group)
            if moment is not None and (group.timer <= work.now or _much_sooner(moment, group.timer, work.now)):
                # Few jobs for many keys: moments that lie close together become one.
                group.timer = -(-max(moment, work.now + 1) // TOGETHER) * TOGETHER
                work.timers.setdefault(group.timer, []).append(key)
                timed = True
        return timed

    def _finish(self, work: _Work, tx: Transaction) -> None:
        if work.messages:
            tx.unit.append(work.messages)
        jobs = [
            job(self.name, self._where.ids(), Look(keys[start : start + KEYS_A_JOB]), due)
            for due, keys in work.timers.items()
            for start in range(0, len(keys), KEYS_A_JOB)
        ]
        if jobs:
            tx.unit.send(jobs)
        if work.closed:
            place = f"{closed_prefix(self.name)}{work.now:015d}/{self._where.ids()}"
            tx.put(place, json.dumps(sorted(set(work.closed))).encode(), expected=ABSENT)


def _much_sooner(moment: int, timer: int, now: int) -> bool:
    """Whether a timer comes too late. By an eighth of the wait does no harm, and a replay of a year, in which the end
    comes nearer with each event, must not make a job of each."""
    return timer - moment > max(TOGETHER, (moment - now) // 8)


class _Work:
    """What a batch leads to."""

    __slots__ = ("closed", "messages", "now", "timers")

    def __init__(self, now: int) -> None:
        self.now = now
        self.messages: list[Message] = []
        self.closed: list[str] = []
        self.timers: dict[int, list[str]] = {}

    def here(self) -> tuple[int, int]:
        """A place to come back to, before anything is timed."""
        return len(self.messages), len(self.closed)

    def back(self, place: tuple[int, int]) -> None:
        """Forget what came after a place."""
        messages, closed = place
        del self.messages[messages:], self.closed[closed:]


def job(name: str, id_: str, look: Look, due: int) -> Job:
    """A job for an aggregator's queue."""
    message = Message(id=id_, source=name, type=LOOK, topic="eventmill", time=due * 1000, data=_write(look))
    return Job(queue=name, message=message, due=due, recorded_at=due)


def _wrong(name: str, made: object) -> NoReturn:
    raise TypeError(f"aggregator {name}: its function returned {made!r}; it must return the event to publish")
