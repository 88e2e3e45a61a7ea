"""Taking turns: the machine's mood changes, so what is compared is measured side by side."""

from __future__ import annotations

import gc
import os
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import NamedTuple, Self

from bench.measurement import Measurement


class Work(NamedTuple):
    """What one round took: seconds on the clock, and of processor time in all threads and processes of the work."""

    messages: int
    seconds: float
    processor: float

    @property
    def rate(self) -> float:
        return self.messages / self.seconds

    @property
    def processor_us(self) -> float:
        """Microseconds of processor time a message: nearly the same on a busy machine, where the rate is not."""
        return 1e6 * self.processor / self.messages


Round = Callable[[Path], Awaitable[Work]]


class Stopwatch:
    """Measures a block of this process: `with Stopwatch(count) as watch: …`, then `watch.work`."""

    def __init__(self, messages: int) -> None:
        self._messages = messages

    def __enter__(self) -> Self:
        self._processor = time.process_time()
        self._clock = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        seconds = time.perf_counter() - self._clock
        self.work = Work(self._messages, seconds, time.process_time() - self._processor)


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is done: rounds of each contender, and whether the short form was asked for."""

    folder: Path
    quick: bool = False
    rounds: int = 5

    def some(self, usual: int, quick: int) -> int:
        return quick if self.quick else usual

    @contextmanager
    def place(self) -> Iterator[Path]:
        """A folder for one round, on the disk that is measured; it is gone afterwards."""
        place = Path(tempfile.mkdtemp(prefix="eventmill-bench-", dir=self.folder))
        try:
            yield place
        finally:
            shutil.rmtree(place)


@dataclass(slots=True)
class Duel:
    """What two contenders took, one of each a round."""

    ours: list[Work] = field(default_factory=list)
    peers: list[Work] = field(default_factory=list)

    def measurement(self, name: str, target: float | None = None, against: str = "raw") -> Measurement:
        """Medians of both, in messages a second."""
        return Measurement(
            name,
            median(work.rate for work in self.ours),
            "messages/s",
            target=target,
            peer=median(work.rate for work in self.peers),
            against=against,
            samples=[work.rate for work in self.ours],
            details={
                "processor_us": round(median(work.processor_us for work in self.ours), 1),
                f"{against}_processor_us": round(median(work.processor_us for work in self.peers), 1),
            },
        )


async def duel(plan: Plan, ours: Round, peer: Round) -> Duel:
    """Peer, ours, peer, ours, …: each round in a fresh folder, with what others wrote flushed before."""
    found = Duel()
    for _ in range(plan.rounds):
        for contender, figures in ((peer, found.peers), (ours, found.ours)):
            with plan.place() as place:
                gc.collect()
                os.sync()
                figures.append(await contender(place))
    return found
