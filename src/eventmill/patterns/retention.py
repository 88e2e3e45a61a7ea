"""Keeping what is kept for a while bounded: trimmed topics, inbox marks, old dead letters."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence

from eventmill.core.capabilities import Store
from eventmill.core.clock import Clock
from eventmill.core.errors import BackendError
from eventmill.settings import Settings

log = logging.getLogger("eventmill")

CENTURY = 100 * 365 * 86_400.0
"""Seconds."""


class Housekeeping:
    """Sees to retention now and then. Any number of processes may do it at once.

    trimmed: the logs to keep short: the store's own, and the broker's where that is a store too. also: what else is kept
    for a while only.
    """

    def __init__(
        self,
        store: Store,
        trimmed: Sequence[Store],
        clock: Clock,
        settings: Settings,
        retention: Mapping[str, float],
        also: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._store = store
        self._trimmed = trimmed
        self._clock = clock
        self._settings = settings
        self._retention = retention
        self._settled_in = False
        self._also = also
        self._held: dict[tuple[Store, str], str] = {}

    async def run(self) -> None:
        """Tidy until cancelled."""
        while True:
            try:
                await self.tidy()
            except BackendError as error:
                log.warning("housekeeping waits: %s", error)
            await self._clock.sleep(self._settings.housekeeping)

    async def tidy(self) -> None:
        """One round: trim by the declared retention, never past a group that still needs it, and say so."""
        # Not in the first round: after a long absence a broker begins with what was handled, but not acknowledged any more.
        inbox = self._settings.inbox_retention if self._settled_in else max(self._settings.inbox_retention, CENTURY)
        await self._store.prune(inbox_older_than=inbox, dead_older_than=self._settings.dead_retention)
        self._settled_in = True
        if self._also is not None:
            await self._also()
        for topic, seconds in self._retention.items():
            for place in self._trimmed:
                trimmed = await place.trim(topic, older_than=seconds)
                if trimmed.held_by is not None and self._held.get((place, topic)) != trimmed.held_by:
                    log.warning(
                        "%r: topic %s is kept longer than its %g s: group %s has only come to position %s",
                        place, topic, seconds, trimmed.held_by, trimmed.held_at,
                    )  # fmt: skip
                self._held[place, topic] = trimmed.held_by or ""
