"""What all suites stand on: the binding's hook, its features, and how a case runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar
from unittest import SkipTest

from eventmill.core.capabilities import Log, Store
from eventmill.core.clock import Clock, ManualClock, SystemClock
from eventmill.core.errors import ConfigurationError

CASE_SECONDS = 60.0
"""Real time after which a case counts as hanging."""


class Backend(Log, Store, Protocol):
    """Both capabilities in one object, as a service's own database has them."""


@dataclass(frozen=True, slots=True)
class Features:
    """What a backend offers beyond its capability; each selects further cases.

    durable: what was stored is there when the place is opened again after closing.
    shared: several backends may have one place open at a time, and see each other's work.
    manual_clock: the backend goes by the clock it is given.
    sequences: the log counts the messages of each key; one that is no store leaves that to the store they come from.
    replay: a new group begins with the earliest message, also with one from before it was known.
    one_writer: a transaction that runs statements keeps all others from doing so until it ends; elsewhere, rows that
    are read to be written are locked by the statement that reads them (SELECT … FOR UPDATE).
    """

    durable: bool = False
    shared: bool = False
    manual_clock: bool = False
    sequences: bool = True
    replay: bool = True
    one_writer: bool = False


B = TypeVar("B")
E = TypeVar("E", bound=BaseException)


class Stage(Generic[B]):
    """Where one case plays: a place of its own, and a clock."""

    def __init__(self, suite: Conformance[B], place: Path) -> None:
        self._suite = suite
        self.place = place
        self._manual = ManualClock() if suite.features.manual_clock else None
        self.clock: Clock = self._manual or SystemClock()

    def open(self) -> AbstractAsyncContextManager[B]:
        """A backend at this case's place: the same place every time."""
        return self._suite.open(self.place, self.clock)

    @property
    def now(self) -> int:
        """Milliseconds since 1970 UTC."""
        return int(self.clock.now() * 1000)

    async def advance(self, seconds: float) -> None:
        """Let time pass; only in cases that ask for `manual_clock`."""
        assert self._manual is not None, "mark the case with @case(manual_clock=True)"
        await self._manual.advance(seconds)


class Conformance(Generic[B]):
    """Base of the suites. A binding sets `features` and defines `open`."""

    features: ClassVar[Features] = Features()

    def open(self, place: Path, clock: Clock) -> AbstractAsyncContextManager[B]:
        """A backend at this place. place: an empty folder of the case's own, also good as a unique name."""
        raise NotImplementedError(f"{type(self).__name__}.open(place, clock) must return a backend")


S = TypeVar("S", bound=Conformance[Any])


def case(
    **needs: bool,
) -> Callable[[Callable[[S, Stage[Any]], Coroutine[Any, Any, None]]], Callable[[S, Path], None]]:
    """Make an async method one test; it is skipped where the binding lacks a feature it needs, as `Features` has them."""
    unknown = set(needs) - {field.name for field in fields(Features)}
    if unknown:
        raise ConfigurationError(f"{', '.join(unknown)}: no such feature")

    def decorate(body: Callable[[S, Stage[Any]], Coroutine[Any, Any, None]]) -> Callable[[S, Path], None]:
        # Not functools.wraps: pytest would then look for a fixture named `stage`.
        def test(self: S, tmp_path: Path) -> None:
            for feature, needed in needs.items():
                if needed and not getattr(self.features, feature):
                    raise SkipTest(f"the backend does not declare {feature}")
            stage = Stage(self, tmp_path)
            asyncio.run(asyncio.wait_for(body(self, stage), CASE_SECONDS))

        test.__name__ = body.__name__
        test.__qualname__ = body.__qualname__
        test.__doc__ = body.__doc__
        return test

    return decorate


class Caught(Generic[E]):
    """The error that `refused` met."""

    error: E


@contextmanager
def refused(kind: type[E]) -> Iterator[Caught[E]]:
    """The block must raise an error of this kind."""
    caught: Caught[E] = Caught()
    try:
        yield caught
    except kind as error:
        caught.error = error
    else:
        raise AssertionError(f"nothing was raised; {kind.__name__} was expected")
