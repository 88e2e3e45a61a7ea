"""The tasks of a service as an operator sees them, with or without the App's own code."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from eventmill.cli.place import Place
from eventmill.core.clock import Ids, SystemClock
from eventmill.core.envelope import Envelopes
from eventmill.core.job import Job
from eventmill.patterns.tasks.tasks import Tasks
from eventmill.settings import Settings


@dataclass(frozen=True, slots=True)
class Office:
    """One service's tasks."""

    name: str
    tasks: Tasks


def owner(job: Job) -> str:
    """The service that a task is of."""
    return job.queue.partition("/")[0]


async def office_of(place: Place, name: str) -> Office:
    """The tasks of a service, on the store that is open here."""
    clock = SystemClock()
    ids = Ids(clock)
    settings = Settings() if place.app is None else place.app.settings

    async def nothing() -> None:
        """It is open already."""

    tasks = Tasks(
        name, place.store, envelopes=Envelopes(name, clock, ids), clock=clock, ids=ids,
        rng=random.Random(), lease=settings.lease, dead_retention=settings.dead_retention, opened=nothing, consumers=[],  # noqa: S311
    )  # fmt: skip
    if place.app is not None and place.app.name == name:
        tasks.by_type.update(place.app.tasks.by_type)
    return Office(name, tasks)


async def offices(place: Place) -> Sequence[Office]:
    """Those of the App that was named; of a store, those of every service that has left word there."""
    if place.app is not None:
        return [await office_of(place, place.app.name)]
    names: dict[str, None] = {}
    after = ""
    while found := await place.store.documents("tasks/", limit=1, after=after):
        name = found[0].key.split("/")[1]
        names[name] = None
        after = f"tasks/{name}0"  # the first key beyond all of this service's: 0 follows the slash
    return [await office_of(place, name) for name in names]
