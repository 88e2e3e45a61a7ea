"""A projection folded anew, somewhere else: as of a moment, or of events that were never published."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from eventmill.core.capabilities import Log, Store
from eventmill.core.claims import Cursor
from eventmill.core.envelope import Envelopes
from eventmill.core.errors import ConfigurationError, EventmillError, MissingHistoryError
from eventmill.core.message import Partition, Recorded
from eventmill.core.outcome import DeadLetter, Retry
from eventmill.patterns.projection.catch_up import Progress
from eventmill.patterns.projection.definition import Projection
from eventmill.patterns.projection.ground import Ground
from eventmill.patterns.projection.projecting import ProjectionHandler, ProjectionTransaction
from eventmill.patterns.projection.tables import Tables
from eventmill.runtime.delivery import Delivery, Holding
from eventmill.runtime.handler import Context
from eventmill.runtime.settlement import make_readable
from eventmill.runtime.transaction import Transaction

PAGE = 2_000
"""Events read, and folded in one commit."""


class Fold:
    """A projection's tables under their plain names, in a store that has nothing else of it."""

    def __init__(self, projection: Projection, store: Store, envelopes: Envelopes) -> None:
        self.projection = projection
        self._store = store
        self._envelopes = envelopes
        self._tables = Tables(projection.tables, None)
        self._handler = ProjectionHandler(projection, self._tables, None)

    async def create(self) -> None:
        """Make the tables. Raises ConfigurationError where one of them is there already."""
        unit = self._store.unit()
        transaction = Transaction(unit, self._envelopes)
        own = ProjectionTransaction(transaction, self._tables)
        try:
            await self.projection.code.create(own)
            durable = await unit.finish()
        except EventmillError:
            await unit.discard()
            raise
        except Exception as error:
            await unit.discard()
            raise ConfigurationError(
                f"the tables of projection {self.projection.name!r} cannot be made in {self._store!r}: {error}"
            ) from error
        except BaseException:
            await unit.discard()
            raise
        finally:
            own.close()
        await durable

    async def take_in(self, events: Sequence[Recorded]) -> None:
        """Fold events, in one commit. Raises what a method raises: then nothing of them is kept."""
        deliveries = [Delivery.read(recorded, Holding(Cursor(recorded.partition, 0, (), 0), 0)) for recorded in events]
        await make_readable(self._envelopes, deliveries)
        unit = self._store.unit()
        transaction = Transaction(unit, self._envelopes)
        try:
            asked = await self._handler.call(deliveries, transaction, lambda: _context(self.projection, deliveries[0]))
            if isinstance(asked, Retry | DeadLetter):
                raise ConfigurationError(f"projection {self.projection.name!r} declined an event: {asked}")
            durable = await unit.finish()
        except BaseException:
            await unit.discard()
            raise
        finally:
            transaction.close()
        await durable


def _context(projection: Projection, delivery: Delivery) -> Context:
    key = f"{projection.name}:{delivery.message.source}:{delivery.message.id}"
    return Context(projection.name, 1, key, delivery.position)


async def project(
    projection: Projection,
    ground: Ground,
    into: Store,
    *,
    at: int | None,
    partial: bool = False,
    report: Callable[[Progress], None] | None = None,
) -> int:
    """Fold everything that was recorded up to the moment `at` (milliseconds since 1970 UTC; None: up to now) into the
    tables of the projection, which are made in another store under their plain names; returns how many events it took.

    The moment is that of the append, by the clock of whoever appended. Each event is held against it: a clock that
    was set back meanwhile leaves out nothing.
    Raises MissingHistoryError where the beginning of the log is gone, unless `partial`; and ConfigurationError, naming
    the event, where a method fails: then the tables hold what came before it.
    """
    source: Log = ground.source
    topics = projection.topics(await source.topics())
    gone = await source.trimmed(topics)
    if gone and not partial:
        raise MissingHistoryError(
            f"projection {projection.name!r}: the oldest messages of {', '.join(sorted(gone))} are gone, so that no moment "
            "can be shown whole; --partial folds what is left"
        )
    fold = Fold(projection, into, ground.envelopes)
    await fold.create()
    ends = {part: end for part, end in (await source.end()).items() if part.topic in topics}
    beginning: dict[Partition, int] = dict.fromkeys(ends, 0)
    total = (await source.pending(beginning, projection.types)).messages
    done = taken = 0
    clock = ground.clock.now
    began = clock()
    left: Mapping[Partition, int] = beginning
    while left:
        page = await source.read(left, limit=PAGE, types=projection.types)
        if not page.after:
            break
        wanted = [
            found
            for found in page.messages
            if found.position <= ends[found.partition] and (at is None or found.recorded_at <= at)
        ]
        if wanted:
            await _folded(fold, wanted)
        done += len(page.messages)
        taken += len(wanted)
        left = {part: page.after.get(part, position) for part, position in left.items()}
        left = {part: position for part, position in left.items() if position < ends[part]}
        if report is not None:
            report(Progress(0, min(done, total), total, done / max(clock() - began, 0.001)))
    return taken


async def _folded(fold: Fold, events: Sequence[Recorded]) -> None:
    """Where a page fails, its events are folded one by one, up to the one at fault."""
    try:
        await fold.take_in(events)
    except Exception:
        for event in events:
            try:
                await fold.take_in([event])
            except Exception as error:
                raise ConfigurationError(
                    f"projection {fold.projection.name!r} fails at {event.message.type} {event.message.id} "
                    f"(position {event.position} of {event.partition}): {type(error).__name__}: {error}; "
                    "what came before it is in the tables"
                ) from error
