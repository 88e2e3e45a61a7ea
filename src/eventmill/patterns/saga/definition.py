"""`app.saga`: how a saga is declared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeVar

import msgspec

from eventmill.core.checks import check_seconds
from eventmill.core.codec import codec_of
from eventmill.core.errors import ConfigurationError
from eventmill.core.key import Key, key_text
from eventmill.core.registry import EventType, Registry
from eventmill.core.retry import RetryPolicy, check_policy, exponential
from eventmill.patterns.saga.shape import Kind, Shape, StepShape
from eventmill.patterns.saga.step import Function, Step

F = TypeVar("F", bound=Callable[..., Any])

FORWARD = exponential(0.2, cap=60.0, attempts=5)
PERSISTENT = exponential(0.2, cap=300.0, attempts=30)
"""For what must not be given up soon: retriable steps and compensations. Some two hours."""

ANSWER_WITHIN = 300.0
"""Seconds that a command waits for its answer, where nothing else is said."""


class Saga:
    """One version of a saga. Made by `app.saga`; `@saga.step` adds its steps, in their order."""

    def __init__(
        self,
        name: str,
        *,
        key: Key,
        starts_on: type,
        registry: Registry,
        version: int,
        state: type | None,
        begin: Callable[[Any], Any] | None,
        deadline: float | None,
        migrate: Mapping[int, Mapping[str, str]],
        changed: Callable[[], None],
    ) -> None:
        self.name = name
        self.version = version
        self.shape = Shape()
        self.steps: dict[str, Step] = {}
        self.starts_on = registry.type_for(starts_on)
        self.starts_on.refuse_personal(f"saga {name!r}")
        self.deadline = deadline
        self.migrate = migrate
        self.answers: dict[str, EventType] = {}
        self._key = key
        self.registry = registry
        self._changed = changed
        if (state is None) != (begin is None):
            raise ConfigurationError(f"saga {name!r}: state= and begin= belong together: begin makes it of the event")
        self._begin = begin
        self._codec = None if state is None else codec_of(state)
        self._state = state or starts_on
        self.mutable = state is not None
        self.schema = self.starts_on.version if state is None else 1
        self.key_of(self.starts_on, None)

    def step(
        self,
        bare: None = None,
        /,
        *,
        compensate: Callable[..., Any] | None = None,
        kind: Kind = "compensatable",
        retry: RetryPolicy | None = None,
        undo_retry: RetryPolicy | None = None,
        timeout: float | None = None,
        outside: bool = False,
        done_on: type | Sequence[type] = (),
        failed_on: type | Sequence[type] = (),
        unknown_on: type | Sequence[type] = (),
        deadline: float | None = None,
        parallel: str | None = None,
        locks: Callable[[Any], Sequence[str]] | None = None,
        on_locked: Literal["wait", "refuse"] = "wait",
        lock_timeout: float = 30.0,
        name: str | None = None,
    ) -> Callable[[F], F]:
        """The next step: a local transaction, `async def step(state, tx: Transaction, ctx: StepContext)`.

        compensate: the function that undoes it, with the same parameters; it may run more than once.
        kind: `compensatable`; then at most one `pivot`, after which there is no way back; then `retriable` ones, which
        are tried until they succeed.
        retry, undo_retry: when the step, and its compensation, are tried again, and given up.
        timeout: seconds one attempt may take.
        outside: the step acts outside of its transaction (it calls a provider): that it was begun is stored before, and
        where it fails or its process dies, its fate counts as unknown, and it is compensated.
        done_on, failed_on: the step sends a command to another service with `tx.publish`, and stands until one of these
        events comes; they carry the saga's key. failed_on says that it has not taken place. unknown_on: events by which the
        other service says that it does not know: then it is compensated. deadline: seconds to wait for one, 300 by default.
        parallel: steps that follow each other with the same label do not wait for each other's answers.
        locks: names of resources, made of the state, that no other saga may hold from this step to the end.
        on_locked: `wait` for them up to lock_timeout seconds, or `refuse`: the step fails.

        A step that returns a state of the saga's type replaces the state; one that returns `DeadLetter(reason)` has not
        taken place and is not tried again; `Retry(after=)` asks for another attempt. Any exception is a failure.
        Refused with ConfigurationError where the steps could not keep what a saga promises.
        """
        if bare is not None:
            raise ConfigurationError(f"saga {self.name!r}: write @saga.step(), with parentheses")
        done = _types(done_on, self.registry)
        failing, unsure = _types(failed_on, self.registry), _types(unknown_on, self.registry)
        answers = (*done, *failing, *unsure)

        def register(function: F) -> F:
            label = name or function.__name__
            where = f"saga {self.name!r}, step {label!r}"
            for what, seconds in (("timeout", timeout), ("deadline", deadline), ("lock_timeout", lock_timeout)):
                if seconds is not None:
                    check_seconds(seconds, where, what)
            for policy in (retry, undo_retry):
                if policy is not None:
                    check_policy(policy, where)
            check_step(label, where)
            if locks is not None and not callable(locks):
                raise ConfigurationError(
                    f"{where}: locks={locks!r}; give a function of the state: lambda state: [name, …]"
                )
            if parallel is not None and not isinstance(parallel, str):
                raise ConfigurationError(f"{where}: parallel={parallel!r}; give the same label to steps side by side")
            for each in answers:
                if each is self.starts_on:
                    raise ConfigurationError(f"{where}: {each.name} starts the saga, and cannot answer a step of it")
            if deadline is not None and not done:
                raise ConfigurationError(
                    f"{where}: deadline= is for a step that is answered: give done_on=, or timeout="
                )
            if on_locked not in ("wait", "refuse"):
                raise ConfigurationError(f"{where}: on_locked={on_locked!r}; choose 'wait' or 'refuse'")
            undo = None if compensate is None else Function.of(compensate, f"{where}: the compensation")
            if undo is not None and (outside or done) and "context" not in undo.wants:
                raise ConfigurationError(
                    f"{where}: its fate may be unknown; let the compensation take `ctx: StepContext` and look at ctx.outcome"
                )
            shape = StepShape(
                name=label,
                kind=kind,
                outside=outside,
                undone=undo is not None,
                done_on=tuple(each.name for each in done),
                failed_on=tuple(each.name for each in failing),
                unknown_on=tuple(each.name for each in unsure),
                parallel=parallel,
            )
            self.shape = self.shape.with_step(shape)
            self.steps[label] = Step(
                shape=shape,
                run=Function.of(function, where),
                undo=undo,
                retry=retry or (PERSISTENT if kind == "retriable" else FORWARD),
                undo_retry=undo_retry or PERSISTENT,
                timeout=timeout,
                answer_within=(deadline or ANSWER_WITHIN) if done else None,
                locks=locks,
                on_locked=on_locked,
                lock_timeout=lock_timeout,
            )
            for each in answers:
                each.refuse_personal(f"saga {self.name!r}")
                self.key_of(each, None)
                self.answers[each.name] = each
            self._changed()
            return function

        return register

    # State

    def key_of(self, kind: EventType, event: Any) -> str:
        """The saga's key in an event; without an event, only see that its type has one."""
        if not callable(self._key):
            fields = kind.fields
            if self._key not in fields:
                raise ConfigurationError(
                    f"saga {self.name!r}: {kind.name} has no field {self._key!r}, which is the saga's key"
                )
        if event is None:
            return ""
        if callable(self._key):
            value = self._key(event)
        else:
            value = event[self._key] if isinstance(event, dict) else getattr(event, self._key)
        return key_text(value, f"saga {self.name!r}: key")

    def first_state(self, event: Any) -> bytes:
        """The stored state of a new instance."""
        state = event if self._begin is None else self._begin(event)
        if not self.is_state(state):
            raise TypeError(f"begin= returned {type(state).__name__}: it must return the saga's state")
        return self.write(state)

    def write(self, state: Any) -> bytes:
        """A state as JSON."""
        return self.starts_on.encode(state) if self._codec is None else self._codec.encode(state)

    def read(self, data: msgspec.Raw, schema: int) -> Any:
        """A stored state. Raises DecodeError for what is none."""
        raw = bytes(data)
        return self.starts_on.decode(raw, schema) if self._codec is None else self._codec.decode(raw)

    def is_state(self, value: object) -> bool:
        """Whether a step returned a state."""
        return isinstance(value, dict if issubclass(self._state, dict) else self._state)


def check_step(label: object, where: str) -> None:
    """Refuse what could not be written on a command line."""
    if not isinstance(label, str) or not label.isprintable() or not label.strip() or len(label) > 200:
        raise ConfigurationError(f"{where}: name={label!r}; give a short text that can be printed")


def _types(given: type | Sequence[type], registry: Registry) -> list[EventType]:
    return [registry.type_for(each) for each in ([given] if isinstance(given, type) else given)]
