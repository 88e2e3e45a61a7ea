"""A choreographed saga as it is seen by listening: which events came, and what that means. Pure.

The state follows from the set of events that came, not from their order.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from eventmill.patterns.saga.decide import ended, halt
from eventmill.patterns.saga.instance import Entry, Instance, State

DIGEST = "choreographed"
"""In the place of a definition's digest."""


@dataclass(frozen=True, slots=True)
class Plot:
    """Names of the event types that start it, all of which complete it, any of which mean that it turns round, and any
    of which mean that all was undone. Times in milliseconds."""

    starts: frozenset[str]
    completes: frozenset[str]
    turns: frozenset[str]
    fails: frozenset[str]
    deadline: int
    early: int


def heard(plot: Plot, instance: Instance, event: str, id_: str, data: bytes, now: int) -> None:
    """An event came. A repeat changes nothing."""
    if id_ in instance.seen:
        return
    instance.seen.append(id_)
    over = instance.ended
    instance.answers[event] = msgspec.Raw(data)
    instance.note(Entry(now, "event.late" if over else "event", detail=event, event=id_))
    before = instance.state
    if before is State.EARLY and plot.starts & instance.answers.keys():
        instance.id = id_ if event in plot.starts else instance.id
        instance.started_at, instance.deadline, instance.timer = now, now + plot.deadline, None
        instance.state = State.RUNNING
        instance.note(Entry(now, "started"))
    _settle(plot, instance, now)


def _settle(plot: Plot, instance: Instance, now: int) -> None:
    came = instance.answers.keys()
    if not plot.starts & came:
        return
    failed, completed = bool(plot.fails & came), plot.completes <= came
    if completed and (failed or plot.turns & came):
        if instance.state is not State.NEEDS_ATTENTION:
            halt(instance, None, now, "it was completed, and it failed: its services do not agree")
    elif failed:
        _end(instance, State.COMPENSATED, now)
    elif completed:
        _end(instance, State.COMPLETED, now)
    elif plot.turns & came and instance.state is State.RUNNING:
        instance.state = State.COMPENSATING
        instance.reason = ", ".join(sorted(plot.turns & came))
        instance.note(Entry(now, "compensating", detail=instance.reason))


def _end(instance: Instance, state: State, now: int) -> None:
    if not instance.ended:
        ended(instance, state, now)


def looked_at(plot: Plot, instance: Instance, now: int) -> None:
    """A moment has come: one that should have ended by now, or begun, is stuck."""
    if instance.state not in (State.EARLY, State.RUNNING, State.COMPENSATING):
        return
    if instance.deadline is None:
        instance.deadline = now + plot.deadline  # a person lets it wait on
    elif instance.deadline <= now:
        if instance.state is State.EARLY:
            halt(instance, None, now, "events came, but none that starts it")
        else:
            missing = plot.completes - instance.answers.keys()
            wanted = ", ".join(sorted(missing if instance.state is State.RUNNING else plot.fails))
            halt(instance, None, now, f"stuck: nothing was heard in time of {wanted}")
