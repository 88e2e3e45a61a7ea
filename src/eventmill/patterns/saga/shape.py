"""What a saga consists of, as far as deciding goes: names, kinds, groups and answers of its steps."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Literal, get_args

import msgspec

from eventmill.core.errors import ConfigurationError

Kind = Literal["compensatable", "pivot", "retriable"]
Answer = Literal["done", "failed", "unknown"]

_ORDER = {kind: place for place, kind in enumerate(get_args(Kind))}


class StepShape(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One step.

    kind: `compensatable` can be undone; the `pivot` decides; `retriable` comes after it, and is tried until it succeeds.
    outside: it touches something that this transaction does not cover, so that after an error nobody knows whether it
    took place. undone: it has a compensation. done_on, failed_on, unknown_on: names of the events that answer it; with them
    it is a command to another service, which stands until one of them comes. parallel: steps beside each other with the
    same label do not wait for each other's answers.
    """

    name: str
    kind: Kind = "compensatable"
    outside: bool = False
    undone: bool = False
    done_on: tuple[str, ...] = ()
    failed_on: tuple[str, ...] = ()
    unknown_on: tuple[str, ...] = ()
    parallel: str | None = None

    @property
    def answered(self) -> bool:
        """Whether it waits for an event."""
        return bool(self.done_on)


class Shape(msgspec.Struct, frozen=True):
    """The steps of one version of a saga, in order."""

    steps: tuple[StepShape, ...] = ()

    def __getitem__(self, name: str) -> StepShape:
        for step in self.steps:
            if step.name == name:
                return step
        raise KeyError(name)

    def __contains__(self, name: str) -> bool:
        return any(step.name == name for step in self.steps)

    def groups(self) -> Sequence[Sequence[StepShape]]:
        """Steps that go together: those of one label, and every other one alone."""
        found: list[list[StepShape]] = []
        for step in self.steps:
            if step.parallel is not None and found and found[-1][-1].parallel == step.parallel:
                found[-1].append(step)
            else:
                found.append([step])
        return found

    def with_step(self, step: StepShape) -> Shape:
        """One step more. Refused with ConfigurationError where the saga could then not keep its promise."""
        where = f"step {step.name!r}"
        if step.name in self:
            raise ConfigurationError(f"{where} is there already: give each step a name of its own")
        if step.kind not in _ORDER:
            raise ConfigurationError(f"{where}: kind={step.kind!r}; choose one of {', '.join(_ORDER)}")
        last = self.steps[-1] if self.steps else None
        if last is not None and _ORDER[step.kind] < _ORDER[last.kind]:
            raise ConfigurationError(
                f"{where} is {step.kind}, but {last.name!r} before it is {last.kind}: what comes after the pivot can only "
                "go forward. Put compensatable steps first, then the pivot, then retriable ones"
            )
        if step.kind == "pivot" and last is not None and last.kind == "pivot":
            raise ConfigurationError(
                f"{where} is a second pivot after {last.name!r}: a saga has one point of no return"
            )
        if step.kind != "compensatable" and step.undone:
            raise ConfigurationError(
                f"{where} is {step.kind} and has compensate=: only compensatable steps are undone; leave one of both out"
            )
        refusals = (*step.failed_on, *step.unknown_on)
        if refusals and not step.done_on:
            raise ConfigurationError(
                f"{where}: failed_on= or unknown_on= without done_on=: say which event means that it was done"
            )
        if step.kind == "retriable" and refusals:
            raise ConfigurationError(
                f"{where} is retriable and has failed_on= or unknown_on=: after the pivot nothing may refuse"
            )
        if step.parallel is not None and any(
            each.parallel == step.parallel and self.steps[-1].parallel != step.parallel for each in self.steps
        ):
            raise ConfigurationError(
                f"{where}: parallel={step.parallel!r} was used before: such steps stand side by side"
            )
        if step.kind == "pivot" and step.parallel is not None:
            raise ConfigurationError(f"{where} is the pivot: it cannot be parallel to another step")
        names = (*step.done_on, *refusals)
        for name in names:
            other = self.answered_by(name)
            if other is not None or names.count(name) > 1:
                raise ConfigurationError(
                    f"{where}: {name} answers {other[0].name if other else step.name!r} already; an answer must say what it is to"
                )
        return Shape((*self.steps, step))

    def answered_by(self, event: str) -> tuple[StepShape, Answer] | None:
        """Which step an event answers, and what it says of it."""
        for step in self.steps:
            if event in step.done_on:
                return step, "done"
            if event in step.failed_on:
                return step, "failed"
            if event in step.unknown_on:
                return step, "unknown"
        return None

    @property
    def pivot(self) -> StepShape | None:
        """The point of no return: the pivot, or else the first retriable step."""
        return next((step for step in self.steps if step.kind != "compensatable"), None)

    @property
    def digest(self) -> str:
        """The same for the same steps: what an instance was begun with."""
        return hashlib.sha256(msgspec.json.encode(self.steps)).hexdigest()[:12]
