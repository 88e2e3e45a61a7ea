"""What a saga does next, and what becomes of it by what happens. Pure: the record in, the record changed.

`following` says what is to be done. Whoever does it says how that went, by one of the other functions, and asks again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from eventmill.patterns.saga.instance import Entry, Instance, State, StepRecord, StepState
from eventmill.patterns.saga.shape import Shape, StepShape

Outcome = Literal["done", "unknown"]


@dataclass(frozen=True, slots=True)
class Run:
    """Begin a step, or try it again."""

    step: StepShape


@dataclass(frozen=True, slots=True)
class Expire:
    """The answer to a step did not come in time."""

    step: StepShape


@dataclass(frozen=True, slots=True)
class Interrupted:
    """The process that ran a step, which acts outside, has vanished."""

    step: StepShape


@dataclass(frozen=True, slots=True)
class Undo:
    """Run a step's compensation. outcome: what is known of the step itself."""

    step: StepShape
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing can be done before this moment (milliseconds), or before something happens (None)."""

    until: int | None = None


@dataclass(frozen=True, slots=True)
class End:
    """All is done."""

    state: State


Do = Run | Expire | Interrupted | Undo | Wait | End


def following(shape: Shape, instance: Instance, now: int) -> Do:
    """The next thing to do. Steps are begun in their order, and undone in the reverse of the order they were begun in."""
    if instance.state is State.RUNNING:
        return _forward(shape, instance, now)
    if instance.state is State.COMPENSATING:
        return _backward(shape, instance, now)
    return Wait()


def _forward(shape: Shape, instance: Instance, now: int) -> Do:
    deadline = instance.deadline
    for group in shape.groups():
        waits: list[int | None] = []
        for step in group:
            record = instance.step(step.name)
            if record is None:
                return Run(step)
            if record.state is StepState.RUNNING:
                return Interrupted(step)
            if record.state in (StepState.AGAIN, StepState.WAITING):
                if record.due is not None and record.due <= now:
                    return Run(step) if record.state is StepState.AGAIN else Expire(step)
                waits.append(record.due)
            elif record.state is StepState.LOCKED:
                waits.append(record.patience)
        if waits:
            return Wait(min((due for due in (*waits, deadline) if due is not None), default=None))
    return End(State.COMPLETED)


def _backward(shape: Shape, instance: Instance, now: int) -> Do:
    for record in reversed(instance.steps):
        step = shape[record.name]
        if not _stands(record) or not step.undone:
            continue
        if record.due is not None and record.due > now:
            return Wait(record.due)
        return Undo(step, "done" if record.state is StepState.DONE else "unknown")
    return End(State.COMPENSATED)


def _stands(record: StepRecord) -> bool:
    """Whether something of the step may be there to undo."""
    if record.state is StepState.AGAIN:
        return record.unsure
    return record.state in (StepState.DONE, StepState.UNKNOWN, StepState.WAITING, StepState.RUNNING)


# What happened, on the way forward


def begun(instance: Instance, step: StepShape, now: int) -> StepRecord:
    """A step's function is about to be called. It is the caller's to store that first where the step acts outside."""
    record = instance.step(step.name)
    if record is None:
        record = StepRecord(step.name, StepState.RUNNING, now)
        instance.steps.append(record)
    record.state = StepState.RUNNING
    record.attempts += 1
    record.due = None
    return record


def done(instance: Instance, step: StepShape, now: int, answer_by: int | None = None) -> None:
    """The function came back well; a command now waits for its answer until `answer_by`."""
    record = _record(instance, step)
    if step.answered:
        record.state, record.due = StepState.WAITING, answer_by
        # The command is out: from here on only an answer can tell.
        record.unsure = True
        _note(instance, now, "step.sent", record)
        return
    _finish(instance, record, StepState.DONE, now)
    _note(instance, now, "step.done", record)


def failed(
    shape: Shape,
    instance: Instance,
    step: StepShape,
    now: int,
    *,
    error: str,
    known: bool,
    refused: bool = False,
    retry_at: int | None = None,
) -> None:
    """An attempt failed. known: for certain nothing of it took place; of an earlier attempt something may have.

    refused: the step itself says that nothing took place under its idempotency key, by any attempt.
    retry_at: when it is tried again; None: it is given up, and the saga turns round, or needs a person.
    """
    record = _record(instance, step)
    record.error = error
    known = refused or (known and not record.unsure)
    record.unsure = not known
    if retry_at is not None and instance.state is State.RUNNING:
        record.state, record.due = StepState.AGAIN, retry_at
        _note(instance, now, "step.failed", record, error)
        return
    _finish(instance, record, StepState.FAILED if known else StepState.UNKNOWN, now)
    _note(instance, now, "step.failed" if known else "step.unknown", record, error)
    if instance.state is not State.RUNNING:
        return
    if step.kind == "retriable" or (step.kind == "pivot" and not known):
        halt(instance, step.name, now, error)
    else:
        unwind(instance, now, f"{step.name}: {error}")


def locked(instance: Instance, step: StepShape, now: int, *, patience: int, resource: str) -> None:
    """Another saga holds a lock the step needs: it was not called, and the attempt does not count."""
    record = instance.step(step.name)
    if record is None:
        record = StepRecord(step.name, StepState.LOCKED, now)
        instance.steps.append(record)
    record.state = StepState.LOCKED
    record.due = None
    if record.patience is None:
        record.patience = patience
        _note(instance, now, "step.locked", record, resource)


def looked_at(shape: Shape, instance: Instance, now: int) -> None:
    """Something woke the instance: what waits for a lock asks again, or has waited long enough."""
    for record in instance.steps:
        if record.state is not StepState.LOCKED:
            continue
        if instance.state is State.RUNNING and record.patience is not None and record.patience <= now:
            failed(shape, instance, shape[record.name], now, error="what it needs stayed locked", known=True)
        else:
            record.state, record.due = StepState.AGAIN, now
    if instance.state is State.RUNNING and instance.deadline is not None and instance.deadline <= now:
        if irrevocable(shape, instance):
            instance.deadline = None
            _note(instance, now, "deadline.passed", None, "past the point of no return: it goes on")
        else:
            unwind(instance, now, "the saga's deadline passed")


def answered(shape: Shape, instance: Instance, event: str, now: int, *, detail: str = "", id_: str = "") -> None:
    """An event came that answers a step. Repeats, and answers that nobody waits for (any more), are only noted."""
    found = shape.answered_by(event)
    if found is None:
        return
    step, answer = found
    record = instance.step(step.name)
    begun = record is not None and record.attempts > 0  # what only waited for a lock has asked for nothing
    if record is None or not begun or record.state not in (StepState.WAITING, StepState.UNKNOWN, StepState.AGAIN):
        instance.note(Entry(now, "answer.late", step.name, detail=event, event=id_))
        return
    # On the way back it stays with the person who was asked: the answer says what is to be undone, not that it can be.
    if record.state is StepState.UNKNOWN and instance.halted == step.name and not instance.backward:
        instance.state, instance.halted = State.RUNNING, None
    record.unsure = False
    instance.note(Entry(now, "answer", step.name, record.attempts, detail=event, event=id_))
    if answer == "done":
        _finish(instance, record, StepState.DONE, now)
        _note(instance, now, "step.done", record)
    else:
        failed(shape, instance, step, now, error=detail or event, known=answer == "failed")


def unwind(instance: Instance, now: int, reason: str, by: str = "") -> None:
    """Turn round: from here on everything is undone that was begun."""
    instance.state, instance.backward = State.COMPENSATING, True
    instance.reason = reason
    instance.deadline = None
    instance.note(Entry(now, "compensating", detail=reason, by=by))
    for record in instance.steps:
        record.due = None
        if record.state is StepState.LOCKED or (record.state is StepState.AGAIN and not record.unsure):
            record.state = StepState.FAILED


def halt(instance: Instance, step: str | None, now: int, reason: str) -> None:
    """Nothing more can be done without a person."""
    instance.state, instance.halted = State.NEEDS_ATTENTION, step
    instance.reason = reason
    instance.note(Entry(now, "needs_attention", step or "", detail=reason))


def irrevocable(shape: Shape, instance: Instance) -> bool:
    """Whether the point of no return may have been passed."""
    for step in shape.steps:
        record = instance.step(step.name)
        if step.kind == "compensatable" or record is None:
            continue
        if _stands(record) or record.state is StepState.SKIPPED:
            return True
    return shape.pivot is not None and shape.pivot.kind == "retriable" and instance.step(shape.pivot.name) is not None


# On the way back


def undone(instance: Instance, step: StepShape, now: int) -> None:
    """A compensation came back well."""
    record = _record(instance, step)
    record.undo_attempts += 1
    _finish(instance, record, StepState.UNDONE, now)
    instance.note(Entry(now, "step.undone", step.name, record.undo_attempts))


def undo_failed(instance: Instance, step: StepShape, now: int, *, error: str, retry_at: int | None) -> None:
    """A compensation failed: it is tried again, or a person must see to it."""
    record = _record(instance, step)
    record.undo_attempts += 1
    record.error = error
    record.due = retry_at
    instance.note(Entry(now, "undo.failed", step.name, record.undo_attempts, error))
    if retry_at is None:
        halt(instance, step.name, now, error)


def ended(instance: Instance, state: State, now: int) -> None:
    """It is over."""
    instance.state, instance.ended_at = state, now
    instance.timer = instance.deadline = None
    instance.note(Entry(now, state.lower()))


def _record(instance: Instance, step: StepShape) -> StepRecord:
    record = instance.step(step.name)
    assert record is not None, f"step {step.name} was never begun"
    return record


def _finish(instance: Instance, record: StepRecord, state: StepState, now: int) -> None:
    record.state, record.ended_at, record.due, record.patience = state, now, None, None


def _note(instance: Instance, now: int, what: str, record: StepRecord | None, detail: str = "") -> None:
    name, attempts = ("", 0) if record is None else (record.name, record.attempts)
    instance.note(Entry(now, what, name, attempts, detail))
