"""How a capture fares, in figures."""

from __future__ import annotations

from dataclasses import dataclass

from eventmill.core.capabilities import Store
from eventmill.core.changes import Health, Shape
from eventmill.core.errors import BackendError
from eventmill.patterns.cdc.capture import Capture
from eventmill.patterns.cdc.progress import Copied, Progress
from eventmill.patterns.cdc.session import load


@dataclass(frozen=True, slots=True)
class Report:
    """progress: None where it was never initialised. health: None where the source does not answer, for this `reason`."""

    capture: Capture
    progress: Progress | None
    shapes: dict[str, Shape]
    health: Health | None
    reason: str = ""

    @property
    def behind(self) -> int | None:
        """How much of the source's log (in its own unit: bytes, changes) was written after the capture's position."""
        if self.progress is None or self.health is None:
            return None
        return max(0, self.health.head - self.progress.position)

    @property
    def trouble(self) -> str | None:
        """What somebody should look at, in words; None where all is well."""
        if self.progress is None:
            return "not initialised: run eventmill cdc init"
        if self.health is None:
            return f"the source does not answer: {self.reason}"
        if not self.health.present:
            return "the source keeps nothing for it any more: begin anew: eventmill cdc init --anew"
        if self.health.lost:
            return "the source has removed what it kept for it: begin anew: eventmill cdc init --anew"
        if self.health.gap:
            return f"{self.health.gap}, so changes are missing: begin anew: eventmill cdc init --anew"
        policy = self.capture.retention
        if policy.exceeded(self.health):
            return f"the source keeps {self.health.retained:,} bytes for it, over the limit of {policy.limit:,}"
        if not self.health.active:
            return "nobody reads it: run eventmill run, or eventmill cdc run"
        return None


async def report(store: Store, capture: Capture) -> Report:
    loaded = await load(store, capture.name)
    progress, shapes = (None, {}) if loaded is None else (loaded.progress, loaded.shapes)
    try:
        health = await capture.source.health(capture.name, shapes.values())
    except BackendError as error:
        return Report(capture, progress, shapes, None, str(error))
    return Report(capture, progress, shapes, health)


def share(copied: Copied) -> float:
    """How much of a table's snapshot is told, from 0 to 1, as far as the estimate is right."""
    if copied.state == "done":
        return 1.0
    return min(0.99, copied.rows / copied.estimate) if copied.estimate else 0.0


def remaining(copied: Copied, now: int) -> float | None:
    """Seconds that a table's snapshot will take at the present pace, or None where that is not known. now: milliseconds."""
    told, elapsed = copied.rows - copied.before, (now - copied.since) / 1000
    if copied.state != "copying" or told <= 0 or elapsed <= 0:
        return None
    return max(0.0, (copied.estimate - copied.rows) * elapsed / told)
