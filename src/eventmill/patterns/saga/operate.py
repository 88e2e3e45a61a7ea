"""What a person may do to an instance. Pure: each is refused with words, or changes the record and its history."""

from __future__ import annotations

from typing import Literal

from eventmill.core.errors import ConfigurationError
from eventmill.patterns.saga.decide import irrevocable, unwind
from eventmill.patterns.saga.instance import Entry, Instance, State, StepState
from eventmill.patterns.saga.shape import Shape

Action = Literal["retry", "skip", "resolve", "resume", "cancel"]


def operate(
    shape: Shape, instance: Instance, action: Action, now: int, *, by: str, why: str, outcome: str = "done"
) -> None:
    """Do what the person says, or raise ConfigurationError saying why that cannot be.

    retry: try what failed again, with fresh attempts. skip: go on without it. resolve: it was seen to by hand; outcome
    says whether the step is to count as `done` or as `failed`. resume: let go of whoever drove the instance, and wake
    it. cancel: undo everything, where the point of no return is not passed.
    """
    if not by:
        raise ConfigurationError(f"{action}: say who does it")
    if action in ("skip", "resolve", "cancel") and not why:
        raise ConfigurationError(f"{action}: say why; it is kept with the instance")
    if action == "resume":
        _resume(instance)
    elif action == "cancel":
        _cancel(shape, instance, now, by, why)
    else:
        _at_halt(shape, instance, action, now, outcome, by, why)
    instance.note(Entry(now, f"operator.{action}", instance.halted or "", detail=why, by=by))
    if action != "cancel":
        instance.halted = None if instance.state is not State.NEEDS_ATTENTION else instance.halted


def _resume(instance: Instance) -> None:
    if instance.state is State.NEEDS_ATTENTION:
        raise ConfigurationError(f"{instance.key} needs attention: retry, skip or resolve what it stands at")
    _refuse_if_ended(instance)
    instance.driver = None


def _cancel(shape: Shape, instance: Instance, now: int, by: str, why: str) -> None:
    _refuse_if_ended(instance)
    if not shape.steps:
        raise ConfigurationError(
            f"{instance.key} is choreographed: nobody directs it. Publish the event on which its services undo their part"
        )
    if instance.state is State.COMPENSATING or instance.backward:
        raise ConfigurationError(f"{instance.key} is being undone already")
    if irrevocable(shape, instance):
        raise ConfigurationError(f"{instance.key} is past its point of no return, or may be: it can only go forward")
    instance.halted = None
    unwind(instance, now, f"cancelled by {by}: {why}", by)


def _at_halt(shape: Shape, instance: Instance, action: Action, now: int, outcome: str, by: str, why: str) -> None:
    if instance.state is not State.NEEDS_ATTENTION:
        raise ConfigurationError(f"{instance.key} is {instance.state}: {action} is for what needs attention")
    record = None if instance.halted is None else instance.step(instance.halted)
    if record is None:
        _choreographed(instance, action, now, outcome)
        return
    if action == "resolve" and outcome not in ("done", "failed"):
        raise ConfigurationError(f"outcome={outcome!r}: choose 'done' or 'failed'")
    if instance.backward:
        if action == "resolve" and outcome == "failed":
            raise ConfigurationError(
                f"{instance.key} stands at the compensation of {record.name!r}: resolve says that it was undone by hand; "
                "to leave it as it is, skip it"
            )
        instance.state, record.due = State.COMPENSATING, None
        if action == "retry":
            record.undo_attempts = 0
        else:
            record.state = StepState.SKIPPED if action == "skip" else StepState.UNDONE
        return
    instance.state, record.due = State.RUNNING, None
    if action == "retry":
        record.state, record.attempts, record.due = StepState.AGAIN, 0, now
    elif action == "skip":
        record.state = StepState.SKIPPED
    elif outcome == "done":
        record.state = StepState.DONE
    else:
        stood = record.state
        record.state = StepState.FAILED
        if irrevocable(shape, instance):
            record.state, instance.state = stood, State.NEEDS_ATTENTION
            raise ConfigurationError(
                f"{instance.key} is past its point of no return, so that {record.name!r} cannot count as failed: retry it, "
                "skip it, or resolve it as done"
            )
        unwind(instance, now, f"{record.name} did not take place: {why}", by)


def _choreographed(instance: Instance, action: Action, now: int, outcome: str) -> None:
    """One that only listens: it waits on, or is over."""
    if action in ("retry", "skip"):
        instance.state, instance.deadline, instance.timer = State.RUNNING, None, None
        return
    instance.state = State.COMPLETED if outcome == "done" else State.COMPENSATED
    instance.ended_at = now


def _refuse_if_ended(instance: Instance) -> None:
    if instance.ended:
        raise ConfigurationError(f"{instance.key} is {instance.state}: there is nothing to do any more")
