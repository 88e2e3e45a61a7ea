"""How a generation begins: its group enrolled, its tables made, its views shown."""

from __future__ import annotations

from eventmill.core.crash import point
from eventmill.core.errors import ConfigurationError, EventmillError, MissingHistoryError
from eventmill.patterns.projection.definition import Projection
from eventmill.patterns.projection.generations import FED, Emitter, Generation, Ledger, State
from eventmill.patterns.projection.ground import Ground
from eventmill.patterns.projection.projecting import ProjectionTransaction
from eventmill.runtime.transaction import Transaction


def outdated(projection: Projection, state: State) -> str:
    """That what readers see was made by another definition, and what to do."""
    shown = state.shown
    building = state.newest
    if building is not None and building.fingerprint == projection.fingerprint:
        return (
            f"projection {projection.name!r}: readers see generation {shown.number}, made by another definition; "
            f"generation {building.number} is made by this one: eventmill projections swap APP {projection.name}"
        )
    return (
        f"projection {projection.name!r} was changed (version {shown.version} to {projection.version}, or its tables or "
        f"types): its view stays as generation {shown.number} has made it until it is built anew: "
        f"eventmill projections rebuild APP {projection.name}"
    )


async def begin(projection: Projection, ledger: Ledger, ground: Ground) -> State:
    """The first generation, live from the start, with its tables and their views, in one transaction."""
    generation = await planned(projection, ledger, ground, 1, FED, partial=projection.partial)
    state = State(live=1, previous=None, next=2, generations={1: generation}, emitters=[Emitter(1, {})])
    async with ground.unit() as (unit, tx):
        found, version = await ledger.read(unit)
        if found is not None:
            return found  # another process was first
        await create(projection, generation, tx)
        await show(generation, tx, before=None)
        ledger.write(unit, state, version)
        point("projection.created")
    return state


async def planned(
    projection: Projection, ledger: Ledger, ground: Ground, number: int, state: str, *, partial: bool
) -> Generation:
    """A generation that is to be made, its group enrolled: from here on trimming spares what it needs.

    Raises MissingHistoryError where the beginning of its history is gone, unless `partial`.
    """
    topics = projection.topics(await ground.source.topics())
    await ground.store.enroll(ledger.group(number), projection.types, await ground.partitions(topics))
    gone = await ground.source.trimmed(topics)
    if gone and not partial:
        await ground.store.forget(ledger.group(number))
        where = ", ".join(f"{topic} up to position {position}" for topic, position in sorted(gone.items()))
        raise MissingHistoryError(
            f"projection {projection.name!r} cannot be built whole: the oldest messages are gone ({where}). "
            "Build it of what is left, knowing that: partial=True where it is declared, or rebuild --partial"
        )
    return Generation(
        number=number,
        version=projection.version,
        fingerprint=projection.fingerprint,
        tables=list(projection.tables),
        topics=sorted(topics),
        state=state,
        partial=bool(gone),
        started=ground.now,
    )


async def create(projection: Projection, generation: Generation, tx: Transaction) -> None:
    """Run the user's `create`, and see that it has made what was declared."""
    placed = generation.placed
    own = ProjectionTransaction(tx, placed)
    try:
        await projection.code.create(own)
        for table in projection.tables:
            await tx.execute(f'SELECT 1 FROM "{placed.name(table)}" WHERE 1 = 0')  # noqa: S608 - a checked name
    except EventmillError:
        raise
    except Exception as error:
        raise ConfigurationError(
            f"projection {projection.name!r}: create() must make {', '.join(f'{{{name}}}' for name in projection.tables)}, "
            f"which failed: {error}"
        ) from error
    finally:
        own.close()


async def show(generation: Generation, tx: Transaction, *, before: Generation | None) -> None:
    """Let the plain names be views of this generation's tables."""
    placed = generation.placed
    for table in before.tables if before is not None else ():
        await tx.execute(f'DROP VIEW "{table}"')
    for table in placed.names:
        try:
            await tx.execute(f'CREATE VIEW "{table}" AS SELECT * FROM "{placed.name(table)}"')  # noqa: S608
        except EventmillError:
            raise
        except Exception as error:
            raise ConfigurationError(
                f"{table!r} cannot become the view of {placed.name(table)}: {error}; a table or view of this name that is "
                "not the projection's must be renamed or dropped first"
            ) from error


async def sweep(ledger: Ledger, ground: Ground, state: State) -> None:
    """Forget groups of generations that are gone: a drop may have been killed before it came to that."""
    for group in await ground.store.groups():
        base, _, number = group.name.rpartition("@")
        if base != ledger.whole or not number.isdigit():
            continue
        if int(number) < state.next and int(number) not in state.generations:
            await ground.store.forget(group.name)
            if ground.relayed:
                await ground.source.dismiss(group.name)
