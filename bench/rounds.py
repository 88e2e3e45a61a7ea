"""Taking turns: the machine's mood changes, so what is compared is measured side by side."""

from __future__ import annotations

import gc
import os
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

Round = Callable[[Path], Awaitable[float]]


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
    """Figures of two contenders, one of each a round."""

    ours: list[float] = field(default_factory=list)
    peers: list[float] = field(default_factory=list)

    @property
    def value(self) -> float:
        return median(self.ours)

    @property
    def peer(self) -> float:
        return median(self.peers)


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
