"""A step as its author writes it: a function, what undoes it, and how it is treated."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from eventmill.core.errors import ConfigurationError
from eventmill.core.failure import storable
from eventmill.core.registry import Registry
from eventmill.core.retry import RetryPolicy
from eventmill.patterns.saga.decide import Outcome
from eventmill.patterns.saga.instance import Instance
from eventmill.patterns.saga.shape import StepShape
from eventmill.runtime.transaction import Transaction

T = TypeVar("T")

LONGEST = 400
"""Characters in the name of a lock."""


class StepContext:
    """What a step may know about itself.

    key: the saga's key. idempotency_key: the same for all attempts of this step and for its compensation: hand it to
    whatever outside could otherwise do something twice, or must know what to undo. attempt counts from 1. outcome: in a
    compensation, whether the step was `done`, or its fate is `unknown`: then undo what is there, if anything is.
    """

    __slots__ = ("_instance", "_registry", "attempt", "idempotency_key", "key", "outcome", "saga", "step")

    def __init__(
        self, instance: Instance, step: str, attempt: int, outcome: Outcome | None, registry: Registry
    ) -> None:
        self.saga = instance.saga
        self.key = instance.key
        self.step = step
        self.attempt = attempt
        self.outcome = outcome
        self.idempotency_key = f"{instance.saga}:{instance.id}:{step}"
        self._instance = instance
        self._registry = registry

    def answer(self, kind: type[T]) -> T | None:
        """The event of this type that answered one of the saga's steps; None where none has come."""
        event = self._registry.type_for(kind)
        raw = self._instance.answers.get(event.name)
        return None if raw is None else typing.cast(T, event.decode(bytes(raw), event.version))


@dataclass(frozen=True, slots=True)
class Function:
    """A step's or compensation's function, called with what its annotations ask for."""

    call: Callable[..., Any]
    wants: Sequence[str]

    @classmethod
    def of(cls, function: Callable[..., Any], what: str) -> Function:
        if not inspect.iscoroutinefunction(function):
            raise ConfigurationError(f"{what} {function.__qualname__} must be `async def`")
        hints = typing.get_type_hints(function)
        wants = []
        for parameter in inspect.signature(function).parameters.values():
            if parameter.kind not in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
                raise ConfigurationError(f"{what} {function.__qualname__}: {parameter.name!r} must be positional")
            hint = hints.get(parameter.name)
            want = {Transaction: "tx", StepContext: "context"}.get(hint, "state")  # type: ignore[arg-type]
            if want in wants:
                raise ConfigurationError(
                    f"{what} {function.__qualname__}: {parameter.name!r} is a second one of its kind; it may take the "
                    "state, a Transaction and a StepContext"
                )
            wants.append(want)
        return cls(function, tuple(wants))

    async def __call__(self, state: object, tx: Transaction, context: StepContext) -> object:
        given = {"state": state, "tx": tx, "context": context}
        return await self.call(*[given[want] for want in self.wants])


@dataclass(frozen=True, slots=True)
class Step:
    """A step, whole. Times in seconds."""

    shape: StepShape
    run: Function
    undo: Function | None
    retry: RetryPolicy
    undo_retry: RetryPolicy
    timeout: float | None = None
    answer_within: float | None = None
    locks: Callable[[Any], Sequence[str]] | None = None
    on_locked: Literal["wait", "refuse"] = "wait"
    lock_timeout: float = 30.0

    def resources(self, state: object) -> Sequence[str]:
        """The names of the resources to lock. Raises what the user's function does, and TypeError for what are no names."""
        given = () if self.locks is None else self.locks(state)
        if isinstance(given, str) or not isinstance(given, Iterable):
            raise TypeError(f"locks= returned {given!r}: it must return a list of names")
        names = list(given)
        for name in names:
            if not isinstance(name, str) or not 0 < len(name) <= LONGEST or storable(name) != name:
                raise TypeError(f"locks= returned {name!r}: a name is a text of 1 to {LONGEST} characters, without NUL")
        return names
