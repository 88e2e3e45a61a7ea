"""Putting a foreign source's messages back into order before they are handed out."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

from eventmill.core.capabilities import Store
from eventmill.core.clock import Clock
from eventmill.core.resequencer import Deliver, Gap, LaneState, Park, Repeat, Resequencer
from eventmill.runtime.delivery import Delivery

log = logging.getLogger("eventmill")

REMEMBERED = 3600.0
"""Seconds of silence after which a lane is forgotten here; what is stored of it stays."""


@dataclass(frozen=True, slots=True)
class ResequencePolicy:
    """How to treat a source that numbers its messages per key but delivers them out of order.

    max_wait: seconds to wait for a missing number. max_held: messages held at most meanwhile, over all
    keys; keep it below the App's `prefetch`. on_gap: what to do then: `park` dead-letters what is held
    and what follows, until the missing one comes; `skip` goes on without it. start: the number a key
    begins with, or "first" for whatever comes first. Messages without key or sequence pass as they come.
    """

    max_wait: float = 5.0
    max_held: int = 100
    on_gap: Literal["park", "skip"] = "park"
    start: int | Literal["first"] = 1


@dataclass(frozen=True, slots=True)
class Sorted:
    """deliver: in this order. repeats: handled before. parked: each with the reason."""

    deliver: Sequence[Delivery]
    repeats: Sequence[Delivery]
    parked: Sequence[tuple[Delivery, str]]


class Resequencing:
    """The resequencer of one member, with its lanes' states in the store's documents."""

    def __init__(self, policy: ResequencePolicy, group: str, store: Store, clock: Clock) -> None:
        self._resequencer: Resequencer[Delivery] = Resequencer(
            policy.max_wait, policy.max_held, policy.on_gap, start=policy.start
        )
        self._group = group
        self._store = store
        self._clock = clock

    @property
    def held(self) -> int:
        return self._resequencer.held

    def due(self) -> bool:
        """Whether something has waited long enough."""
        expiry = self._resequencer.next_expiry
        return expiry is not None and self._clock.now() >= expiry

    async def sort(self, deliveries: Sequence[Delivery]) -> Sorted:
        """Take deliveries in; say what is to be done now. What is neither returned now is held."""
        now = self._clock.now()
        for lane in self._resequencer.prune(REMEMBERED, now):
            log.debug("%s: lane %s forgotten", self._group, lane)
        decisions: list[Deliver[Delivery] | Repeat[Delivery] | Park[Delivery] | Gap] = self._resequencer.expire(now)
        plain = [delivery for delivery in deliveries if delivery.lane is None or delivery.message.sequence is None]
        for delivery in deliveries:
            sequence = delivery.message.sequence
            if delivery.lane is None or sequence is None:
                continue
            lane = f"{delivery.message.source} {delivery.lane}"
            if self._resequencer.state(lane) is None:
                self._resequencer.restore(lane, await self._stored(lane))
            decisions += self._resequencer.offer(lane, sequence, delivery, now)
        ready: list[Delivery] = []
        repeats: list[Delivery] = []
        parked: list[tuple[Delivery, str]] = []
        for decision in decisions:
            if isinstance(decision, Gap):
                log.warning(
                    "%s: %s: numbers %d to %d are given up: %s",
                    self._group, decision.lane, decision.first, decision.last, decision.reason,
                )  # fmt: skip
                continue
            state = self._resequencer.state(decision.lane)
            if isinstance(decision, Deliver) and state is not None:
                # What is stored with this message may not run ahead of it: the next ones are not handled yet.
                state = msgspec.structs.replace(state, expected=decision.sequence + 1)
            decision.item.note = (self._document(decision.lane), msgspec.json.encode(state))
            if isinstance(decision, Deliver):
                ready.append(decision.item)
            elif isinstance(decision, Repeat):
                repeats.append(decision.item)
            else:
                parked.append((decision.item, decision.reason))
        return Sorted([*plain, *ready], repeats, parked)

    def _document(self, lane: str) -> str:
        return f"resequencer/{self._group}/{lane}"

    async def _stored(self, lane: str) -> LaneState | None:
        async with self._store.transaction() as tx:
            document = await tx.get(self._document(lane))
        return None if document is None else msgspec.json.decode(document.data, type=LaneState)
