"""Back into order: for foreign sources that number what they send, but deliver it out of order."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

import msgspec

from eventmill.core.errors import ConfigurationError

T = TypeVar("T")

MAX_GAPS = 64
"""Skipped gaps that a lane remembers, to tell a late item from a repeat."""


@dataclass(frozen=True, slots=True)
class Deliver(Generic[T]):
    """Handle the item now: it is the next of its lane."""

    lane: str
    sequence: int
    item: T


@dataclass(frozen=True, slots=True)
class Repeat(Generic[T]):
    """The number was delivered before, or is held already: the item can be acknowledged and forgotten."""

    lane: str
    sequence: int
    item: T


@dataclass(frozen=True, slots=True)
class Park(Generic[T]):
    """Keep the item where an operator sees it, with the reason, and acknowledge it to the source.

    One number may be parked more than once where the source repeats it: keep it once.
    """

    lane: str
    sequence: int
    item: T
    reason: str


@dataclass(frozen=True, slots=True)
class Gap:
    """The numbers `first` to `last` are given up; what was held behind them follows."""

    lane: str
    first: int
    last: int
    reason: str


Decision = Deliver[T] | Repeat[T] | Park[T] | Gap


class LaneState(msgspec.Struct, frozen=True, kw_only=True):
    """What must be remembered of a lane: small, and written as JSON with the effects.

    expected: the next number. first: the number the lane began with. parked_to: the highest number
    that was parked behind a gap which is still open, 0 for none. gaps: what was skipped, newest
    last. seen: when the lane was last heard of, in the caller's seconds.
    """

    expected: int
    first: int
    parked_to: int = 0
    gaps: tuple[tuple[int, int], ...] = ()
    seen: float = 0.0


class _Lane(Generic[T]):
    __slots__ = ("expected", "first", "gaps", "held", "parked_to", "seen")

    def __init__(self, state: LaneState) -> None:
        self.held: dict[int, T] = {}
        self.load(state)

    def load(self, state: LaneState) -> None:
        self.expected = state.expected
        self.first = state.first
        self.parked_to = state.parked_to
        self.gaps = state.gaps
        self.seen = state.seen


class Resequencer(Generic[T]):
    """Delivers the items of each lane in the order of their numbers, each number once.

    An item that comes early is held until the gap before it closes, for at most `max_wait` seconds,
    and at most `max_held` items are held in all lanes together: beyond that, the lane that has
    waited longest is decided early. What then becomes of it is the policy's:

    `on_gap="park"`: its held items are parked, and so is all that follows, until the missing number
    comes or `resume` gives it up. Parked items are offered again when they are replayed.
    `on_gap="skip"`: the gap is given up, and the lane goes on behind it. A number that comes after
    it was skipped is parked, never delivered out of order.

    start: the number a lane begins with, or "first" for whatever comes first.

    Held items live in memory only: acknowledge them to the source when they are decided, not before.
    Keep `state(lane)` in the commit of what was delivered, and `restore` it after a restart, or when
    that commit failed. `now` is in seconds, of any clock; one that goes back is taken to stand still.
    """

    def __init__(
        self,
        max_wait: float,
        max_held: int,
        on_gap: Literal["park", "skip"] = "park",
        *,
        start: int | Literal["first"] = 1,
    ) -> None:
        if not max_wait >= 0:
            raise ConfigurationError(f"max_wait={max_wait}: give seconds from 0 on")
        if max_held < 0:
            raise ConfigurationError(f"max_held={max_held}: give a number of items from 0 on")
        if on_gap not in ("park", "skip"):
            raise ConfigurationError(f"on_gap={on_gap!r}: give 'park' or 'skip'")
        if not isinstance(start, int) and start != "first":
            raise ConfigurationError(f"start={start!r}: give a number or 'first'")
        self._max_wait = max_wait
        self._max_held = max_held
        self._skip = on_gap == "skip"
        self._start = start
        self._lanes: dict[str, _Lane[T]] = {}
        # Held numbers in the order of their arrival, so that the first has waited longest.
        self._waiting: OrderedDict[tuple[str, int], float] = OrderedDict()
        self._now = float("-inf")

    @property
    def held(self) -> int:
        """Items held in all lanes."""
        return len(self._waiting)

    @property
    def next_expiry(self) -> float | None:
        """When `expire` will next have something to decide, or None while nothing is held."""
        return next(iter(self._waiting.values())) + self._max_wait if self._waiting else None

    def offer(self, lane: str, sequence: int, item: T, now: float) -> list[Decision[T]]:
        """What to do after this item came, in order; nothing where the item is held.

        Call `expire` first when time has passed. The decisions may concern other lanes where
        `max_held` is reached.
        """
        self._now = now = max(now, self._now)
        known = self._lanes.get(lane)
        if known is None:
            first = sequence if self._start == "first" else self._start
            known = self._lanes[lane] = _Lane(LaneState(expected=first, first=first))
        known.seen = now
        if sequence < known.expected:
            return [self._behind(known, lane, sequence, item)]
        if sequence in known.held:
            return [Repeat(lane, sequence, item)]
        if sequence == known.expected:
            known.expected += 1
            return [Deliver(lane, sequence, item), *self._contiguous(lane, known)]
        if known.parked_to >= known.expected:
            known.parked_to = max(known.parked_to, sequence)
            return [Park(lane, sequence, item, f"{known.expected} is missing before it")]
        known.held[sequence] = item
        self._waiting[lane, sequence] = now
        decisions: list[Decision[T]] = []
        while len(self._waiting) > self._max_held:
            longest = next(iter(self._waiting))[0]
            decisions += self._decide(longest, f"more than {self._max_held} items are held")
        return decisions

    def expire(self, now: float) -> list[Decision[T]]:
        """What becomes of the lanes that have waited `max_wait` for a gap to close."""
        self._now = now = max(now, self._now)
        decisions: list[Decision[T]] = []
        while self._waiting:
            (lane, _), since = next(iter(self._waiting.items()))
            if since + self._max_wait > now:
                break
            decisions += self._decide(lane, f"waited {self._max_wait:g} s")
        return decisions

    def resume(self, lane: str, sequence: int) -> list[Decision[T]]:
        """Give up every number before `sequence` that has not come: the lane expects `sequence` next.

        What was parked from there on must then be offered again, in order. A lane that has come as
        far already, or is not known, stays as it is.
        """
        known = self._lanes.get(lane)
        if known is None or sequence <= known.expected:
            return []
        reason = f"given up: resumed at {sequence}"
        passed: list[Decision[T]] = [
            Park(lane, number, self._take(lane, known, number), reason)
            for number in sorted(number for number in known.held if number < sequence)
        ]
        return [*passed, self._give_up(lane, known, sequence, "resumed"), *self._contiguous(lane, known)]

    def state(self, lane: str) -> LaneState | None:
        """What to store of a lane; None for one that was never heard of, or pruned."""
        known = self._lanes.get(lane)
        if known is None:
            return None
        return LaneState(
            expected=known.expected,
            first=known.first,
            parked_to=known.parked_to,
            gaps=known.gaps,
            seen=known.seen,
        )

    def restore(self, lane: str, state: LaneState | None) -> list[Decision[T]]:
        """Take a lane back to a stored state; None forgets the lane.

        Items still held stay held, and those that the state makes due, or has passed, are decided.
        """
        known = self._lanes.get(lane)
        if state is None:
            if known is not None:
                for number in known.held:
                    del self._waiting[lane, number]
                del self._lanes[lane]
            return []
        if known is None:
            self._lanes[lane] = _Lane(state)
            return []
        known.load(state)
        passed = [
            self._behind(known, lane, number, self._take(lane, known, number))
            for number in sorted(number for number in known.held if number < known.expected)
        ]
        return [*passed, *self._contiguous(lane, known)]

    def prune(self, older_than: float, now: float) -> Collection[str]:
        """Forget the lanes not heard of for so many seconds that hold nothing; returns which.

        A lane that is heard of again starts anew, so with `start=1` let `older_than` exceed the
        longest silence of a lane, or restore its stored state first.
        """
        old = [lane for lane, known in self._lanes.items() if not known.held and known.seen < now - older_than]
        for lane in old:
            del self._lanes[lane]
        return old

    def _behind(self, known: _Lane[T], lane: str, sequence: int, item: T) -> Decision[T]:
        if sequence < known.first:
            return Park(lane, sequence, item, f"numbered before {known.first}, where its lane began")
        if any(first <= sequence <= last for first, last in known.gaps):
            return Park(lane, sequence, item, "came after its number was given up")
        return Repeat(lane, sequence, item)

    def _decide(self, lane: str, reason: str) -> list[Decision[T]]:
        known = self._lanes[lane]
        if self._skip:
            gap = self._give_up(lane, known, min(known.held), reason)
            return [gap, *self._contiguous(lane, known)]
        known.parked_to = max(known.held)
        why = f"{known.expected} is missing before it: {reason}"
        return [Park(lane, number, self._take(lane, known, number), why) for number in sorted(known.held)]

    def _give_up(self, lane: str, known: _Lane[T], sequence: int, reason: str) -> Gap:
        gap = (known.expected, sequence - 1)
        known.gaps = (*known.gaps, gap)[-MAX_GAPS:]
        known.expected = sequence
        return Gap(lane, *gap, reason)

    def _contiguous(self, lane: str, known: _Lane[T]) -> list[Decision[T]]:
        decisions: list[Decision[T]] = []
        while known.expected in known.held:
            decisions.append(Deliver(lane, known.expected, self._take(lane, known, known.expected)))
            known.expected += 1
        return decisions

    def _take(self, lane: str, known: _Lane[T], number: int) -> T:
        del self._waiting[lane, number]
        return known.held.pop(number)
