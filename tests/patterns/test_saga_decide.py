"""The decisions of a saga alone, driven through every order of events that hypothesis can think of."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from eventmill.core.errors import ConfigurationError
from eventmill.patterns.saga import decide
from eventmill.patterns.saga.decide import End, Expire, Interrupted, Run, Undo, Wait
from eventmill.patterns.saga.instance import LONGEST_TIMELINE, Entry, Instance, State, StepState, decode, encode
from eventmill.patterns.saga.operate import operate
from eventmill.patterns.saga.shape import Shape, StepShape


def fresh(shape: Shape, **more: Any) -> Instance:
    return Instance(
        saga="shop.checkout", key="k", id="m1", queue="shop.checkout", topic="t", version=1, digest=shape.digest,
        state=State.RUNNING, started_at=0, **more,
    )  # fmt: skip


@st.composite
def shapes(draw: st.DrawFn) -> Shape:
    """Any that the rules allow."""
    shape = Shape()
    number = 0

    def add(kind: Any, parallel: str | None = None) -> None:
        nonlocal shape, number
        number += 1
        name = f"s{number}"
        answered = draw(st.booleans())
        shape = shape.with_step(
            StepShape(
                name=name,
                kind=kind,
                outside=not answered and draw(st.booleans()),
                undone=kind == "compensatable" and draw(st.integers(0, 3)) > 0,
                done_on=(f"{name}.done",) if answered else (),
                failed_on=(f"{name}.failed",) if answered and kind != "retriable" and draw(st.booleans()) else (),
                unknown_on=(f"{name}.unknown",) if answered and kind != "retriable" and draw(st.booleans()) else (),
                parallel=parallel,
            )
        )

    for block in range(draw(st.integers(1, 3))):
        for _ in range(draw(st.integers(1, 3))):
            add("compensatable", f"block{block}" if draw(st.booleans()) else None) if not _used(shape, block) else add(
                "compensatable", f"block{block}"
            )
    if draw(st.booleans()):
        add("pivot")
    for _ in range(draw(st.integers(0, 2))):
        add("retriable")
    if not shape.steps:
        add("compensatable")
    return shape


def _used(shape: Shape, block: int) -> bool:
    return bool(shape.steps) and shape.steps[-1].parallel == f"block{block}"


class SagaLife(RuleBasedStateMachine):
    """A world in which steps take place or not, and what the saga knows of it.

    there: steps whose effect is in the world. What is written down must lead to a world in which all is there, or
    nothing that can be undone, or a person was asked.
    """

    @initialize(shape=shapes(), deadline=st.sampled_from([None, None, None, 300]))
    def begin(self, shape: Shape, deadline: int | None) -> None:
        self.shape = shape
        self.instance = fresh(shape, deadline=deadline)
        self.now = 0
        self.there: set[str] = set()
        self.order: list[str] = []
        self.undone: list[str] = []
        self.by_hand: set[str] = set()

    def reload(self) -> None:
        """Another process goes on: nothing is known but what was written."""
        self.instance = decode(encode(self.instance))

    @property
    def do(self) -> decide.Do:
        return decide.following(self.shape, self.instance, self.now)

    def started(self, step: StepShape) -> None:
        if step.name not in self.order:
            self.order.append(step.name)

    @precondition(lambda self: isinstance(self.do, Run))
    @rule(how=st.sampled_from(["well"] * 8 + ["error", "refused", "vanished", "locked"]), again=st.booleans())
    def run(self, how: str, again: bool) -> None:
        step = self.do.step  # type: ignore[union-attr]
        self.now += 1
        if how == "locked":
            decide.locked(self.instance, step, self.now, patience=self.now + 10, resource="r")
            return
        self.started(step)
        decide.begun(self.instance, step, self.now)
        if how == "vanished":
            if step.outside:
                self.there.add(step.name)  # it took place, and nobody wrote that down
            self.reload()
            return
        if how == "well":
            self.there.add(step.name)
            decide.done(self.instance, step, self.now, self.now + 20)
            return
        known = how == "refused" or not step.outside
        if how == "error" and step.outside:
            self.there.add(step.name)
        if how == "refused":
            self.there.discard(step.name)
        retry_at = self.now + 3 if again and how == "error" else None
        decide.failed(self.shape, self.instance, step, self.now, error=how, known=known, refused=how == "refused",
                      retry_at=retry_at)  # fmt: skip

    @precondition(lambda self: isinstance(self.do, Expire | Interrupted))
    @rule(again=st.booleans())
    def give_up(self, again: bool) -> None:
        do = self.do
        known = isinstance(do, Interrupted) and not do.step.outside  # type: ignore[union-attr]
        decide.failed(
            self.shape, self.instance, do.step, self.now, error="gone", known=known,  # type: ignore[union-attr]
            retry_at=self.now if again else None,
        )  # fmt: skip

    @precondition(lambda self: isinstance(self.do, Undo))
    @rule(how=st.sampled_from(["well", "well", "again", "never"]))
    def undo(self, how: str) -> None:
        do = self.do
        assert isinstance(do, Undo)
        self.now += 1
        record = self.instance.step(do.step.name)
        assert record is not None
        assert (do.outcome == "done") == (record.state is StepState.DONE)
        if how == "well":
            self.there.discard(do.step.name)
            self.undone.append(do.step.name)
            decide.undone(self.instance, do.step, self.now)
        else:
            decide.undo_failed(
                self.instance, do.step, self.now, error=how, retry_at=self.now + 2 if how == "again" else None
            )

    @rule(ticks=st.integers(1, 30))
    def time_goes_by(self, ticks: int) -> None:
        self.now += ticks
        self.reload()
        decide.looked_at(self.shape, self.instance, self.now)

    @precondition(lambda self: self.waiting())
    @rule(data=st.data())
    def the_awaited_answer_comes(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(self.waiting()))
        decide.answered(self.shape, self.instance, name, self.now)

    def waiting(self) -> list[str]:
        return [r.name + ".done" for r in self.instance.steps if r.state is StepState.WAITING]

    @precondition(lambda self: any(step.answered for step in self.shape.steps))
    @rule(data=st.data())
    def any_answer_comes(self, data: st.DataObject) -> None:
        names = [name for step in self.shape.steps for name in (*step.done_on, *step.failed_on, *step.unknown_on)]
        name = data.draw(st.sampled_from(names))
        step, answer = self.shape.answered_by(name) or (None, "unknown")
        record = None if step is None else self.instance.step(step.name)
        if step is None or record is None:
            return
        begun = record.attempts > 0
        if begun and record.state in (StepState.WAITING, StepState.UNKNOWN, StepState.AGAIN):
            # The other service's word is the truth; where it does not know, it may be either.
            if answer == "done":
                self.there.add(step.name)
            elif answer == "failed":
                self.there.discard(step.name)
        decide.answered(self.shape, self.instance, name, self.now)

    @precondition(lambda self: len(self.instance.steps) >= min(3, len(self.shape.steps)))
    @rule()
    def somebody_cancels(self) -> None:
        before = encode(self.instance)
        try:
            operate(self.shape, self.instance, "cancel", self.now, by="ada", why="so")
        except ConfigurationError:
            assert encode(self.instance) == before, "what is refused changes nothing"

    @precondition(lambda self: self.instance.state is State.NEEDS_ATTENTION)
    @rule(action=st.sampled_from(["retry", "skip", "resolve"]), outcome=st.sampled_from(["done", "failed"]))
    def somebody_helps(self, action: Any, outcome: str) -> None:
        halted = self.instance.halted
        assert halted is not None
        backward = self.instance.backward
        before = encode(self.instance)
        try:
            operate(self.shape, self.instance, action, self.now, by="ada", why="so", outcome=outcome)
        except ConfigurationError:
            assert (action, outcome) == ("resolve", "failed")
            assert encode(self.instance) == before, "what is refused changes nothing"
            return
        assert self.instance.state is not State.NEEDS_ATTENTION
        if action != "retry":
            self.by_hand.add(halted)
            if action == "resolve" and not backward and outcome == "done":
                self.there.add(halted)
            else:
                self.there.discard(halted)

    @invariant()
    def undone_in_reverse_of_the_start(self) -> None:
        if hasattr(self, "order"):
            places = [self.order.index(name) for name in self.undone]
            assert places == sorted(places, reverse=True)

    @invariant()
    def nothing_is_run_on_the_way_back_nor_undone_on_the_way_forward(self) -> None:
        if hasattr(self, "instance"):
            do = self.do
            assert not (isinstance(do, Run) and self.instance.backward)
            assert not (isinstance(do, Undo) and not self.instance.backward)

    @invariant()
    def an_end_is_whole(self) -> None:
        if not hasattr(self, "instance"):
            return
        do = self.do
        if not isinstance(do, End):
            return
        if do.state is State.COMPLETED:
            assert all(step.name in self.there | self.by_hand for step in self.shape.steps)
        else:
            assert do.state is State.COMPENSATED
            left = {step.name for step in self.shape.steps if step.undone} & self.there - self.by_hand
            assert not left, f"still there: {left}"

    @invariant()
    def it_never_waits_for_nothing(self) -> None:
        """Whoever waits has a moment to look again, or a person to wait for."""
        if hasattr(self, "instance") and isinstance(self.do, Wait) and self.do.until is None:
            assert self.instance.state is State.NEEDS_ATTENTION

    def teardown(self) -> None:
        """With a world that works from now on, it comes to its end."""
        if not hasattr(self, "instance"):
            return
        for _ in range(200):
            do = self.do
            self.now += 1
            if isinstance(do, End):
                self.an_end_is_whole()
                return
            if isinstance(do, Run):
                self.started(do.step)
                self.there.add(do.step.name)
                decide.begun(self.instance, do.step, self.now)
                decide.done(self.instance, do.step, self.now, self.now + 5)
                if do.step.answered:
                    decide.answered(self.shape, self.instance, do.step.done_on[0], self.now)
            elif isinstance(do, Undo):
                self.undo_well(do)
            elif isinstance(do, Expire | Interrupted):
                self.there.discard(do.step.name)
                decide.failed(self.shape, self.instance, do.step, self.now, error="gone", known=True)
            elif self.instance.state is State.NEEDS_ATTENTION:
                halted = self.instance.halted
                assert halted is not None
                self.by_hand.add(halted)
                operate(self.shape, self.instance, "resolve", self.now, by="ada", why="so")
            else:
                assert isinstance(do, Wait)
                self.now = max(self.now, do.until or self.now)
                decide.looked_at(self.shape, self.instance, self.now)
        raise AssertionError(f"it never ends: {self.instance}")

    def undo_well(self, do: Undo) -> None:
        self.there.discard(do.step.name)
        self.undone.append(do.step.name)
        decide.undone(self.instance, do.step, self.now)
        self.undone_in_reverse_of_the_start()


TestSagaLife = SagaLife.TestCase
TestSagaLife.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)


@pytest.mark.parametrize(
    ("steps", "why"),
    [
        ([{"name": "a", "kind": "pivot"}, {"name": "b"}], "compensatable, but 'a' before it is pivot"),
        ([{"name": "a", "kind": "retriable"}, {"name": "b", "kind": "pivot"}], "before it is retriable"),
        ([{"name": "a", "kind": "pivot"}, {"name": "b", "kind": "pivot"}], "second pivot"),
        ([{"name": "a", "kind": "retriable", "undone": True}], "only compensatable steps are undone"),
        ([{"name": "a"}, {"name": "a"}], "there already"),
        ([{"name": "a", "kind": "other"}], "choose one of"),
        ([{"name": "a", "failed_on": ("x",)}], "without done_on"),
        ([{"name": "a", "unknown_on": ("x",)}], "without done_on"),
        ([{"name": "a", "done_on": ("x",), "failed_on": ("y",), "unknown_on": ("y",)}], "answers 'a' already"),
        ([{"name": "a", "kind": "retriable", "done_on": ("x",), "unknown_on": ("y",)}], "nothing may refuse"),
        ([{"name": "a", "done_on": ("x",)}, {"name": "b", "done_on": ("x",)}], "answers 'a' already"),
        ([{"name": "a", "done_on": ("x",), "failed_on": ("x",)}], "answers 'a' already"),
        ([{"name": "a", "kind": "retriable", "done_on": ("x",), "failed_on": ("y",)}], "nothing may refuse"),
        ([{"name": "a", "parallel": "p"}, {"name": "b"}, {"name": "c", "parallel": "p"}], "side by side"),
        ([{"name": "a", "kind": "pivot", "parallel": "p"}], "cannot be parallel"),
    ],
)
def test_what_could_not_be_kept_is_refused_when_it_is_declared(steps: list[dict[str, Any]], why: str) -> None:
    shape = Shape()
    for step in steps[:-1]:
        shape = shape.with_step(StepShape(**step))
    with pytest.raises(ConfigurationError, match=why):
        shape.with_step(StepShape(**steps[-1]))


def test_the_history_is_bounded_and_keeps_its_beginning() -> None:
    instance = fresh(Shape())
    for number in range(3 * LONGEST_TIMELINE):
        instance.note(Entry(number, "x"))
    assert len(instance.timeline) == LONGEST_TIMELINE
    assert instance.dropped == 2 * LONGEST_TIMELINE
    assert [entry.at for entry in instance.timeline[:100]] == list(range(100))
    assert instance.timeline[-1].at == 3 * LONGEST_TIMELINE - 1
