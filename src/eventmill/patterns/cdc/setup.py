"""Beginning a capture, changing its tables, and ending it."""

from __future__ import annotations

from collections.abc import Callable

from eventmill.core.capabilities import Store
from eventmill.core.changes import Shape
from eventmill.core.clock import Clock
from eventmill.core.crash import point
from eventmill.core.errors import ConfigurationError
from eventmill.patterns.cdc.capture import Capture
from eventmill.patterns.cdc.progress import Copied, Progress, Shapes, progress_key, shapes_key, write
from eventmill.patterns.cdc.session import Loaded, load

REMEDY = "run: eventmill cdc init APP"


async def initialise(
    store: Store,
    capture: Capture,
    clock: Clock,
    new_epoch: Callable[[], str],
    *,
    anew: bool = False,
    snapshot: bool = True,
) -> list[Shape]:
    """Have the source keep changes from now on, and note that each table is to be copied; returns the tables' shapes.

    Where it was done before, only what is declared otherwise now is changed: further tables are added and copied,
    others left out. anew: forget everything and begin with a new snapshot. snapshot: False begins with what changes
    from now on, without the rows that are there.
    """
    source = capture.source
    shapes = list(await source.inspect(capture.tables))
    loaded = await load(store, capture.name)
    if loaded is not None and not anew:
        await _adjust(store, capture, loaded, shapes, snapshot=snapshot)
        return shapes
    # What the source keeps for this name while the store knows nothing of it is of a beginning that was interrupted,
    # or somebody else's: it is only taken for the former where the store says so.
    begun = await _begun(store, capture.name)
    position = await source.prepare(capture.name, shapes, anew=anew or begun)
    point("cdc.prepared")
    progress = Progress(
        epoch=new_epoch(),
        position=position,
        tables={shape.table: await _to_copy(capture, shape, snapshot=snapshot) for shape in shapes},
        at=int(clock.now() * 1000),
    )
    async with store.transaction() as tx:
        tx.put(progress_key(capture.name), write(progress), expected=None)
        tx.put(shapes_key(capture.name), write(Shapes({shape.table: shape for shape in shapes})), expected=None)
        tx.put(_begun_key(capture.name), None, expected=None)
    return shapes


async def _to_copy(capture: Capture, shape: Shape, *, snapshot: bool) -> Copied:
    return Copied(estimate=await capture.source.estimate(shape)) if snapshot else Copied(state="done")


def _begun_key(capture: str) -> str:
    return f"cdc/{capture}/begun"


async def _begun(store: Store, capture: str) -> bool:
    """Note that the source is about to be changed for this capture; whether that was noted before."""
    async with store.transaction() as tx:
        found = await tx.get(_begun_key(capture))
        if found is None:
            tx.put(_begun_key(capture), b"{}", expected=None)
    return found is not None


async def _adjust(store: Store, capture: Capture, loaded: Loaded, shapes: list[Shape], *, snapshot: bool) -> None:
    """Add and leave out tables. It is refused, by the progress's version, while another process moves the capture on."""
    progress = loaded.progress
    known = set(progress.tables)
    declared = set(capture.tables)
    for shape in shapes:
        former = loaded.shapes.get(shape.table)
        if former is not None and former.id != shape.id:
            raise ConfigurationError(
                f"capture {capture.name}: table {shape.name} was made anew since it was captured; "
                "begin anew: eventmill cdc init --anew"
            )
    await capture.source.adjust(
        capture.name, shapes, [loaded.shapes[table] for table in capture.tables if table in loaded.shapes]
    )
    if known == declared:
        return
    by_table = {shape.table: shape for shape in shapes}
    for table in declared - known:
        progress.tables[table] = await _to_copy(capture, by_table[table], snapshot=snapshot)
    for table in known - declared:
        del progress.tables[table]
    kept = {table: loaded.shapes.get(table, by_table[table]) for table in capture.tables}
    async with store.transaction() as tx:
        tx.put(progress_key(capture.name), write(progress), expected=loaded.version)
        tx.put(shapes_key(capture.name), write(Shapes(kept)), expected=None)


async def check_declared(capture: Capture, loaded: Loaded | None) -> Loaded:
    """Raise ConfigurationError where the capture was not initialised, or for other tables than are declared now."""
    if loaded is None:
        raise ConfigurationError(f"capture {capture.name} was not initialised; {REMEDY}")
    if set(loaded.progress.tables) != set(capture.tables):
        raise ConfigurationError(
            f"capture {capture.name} was initialised for {', '.join(sorted(loaded.progress.tables))}, and is declared for "
            f"{', '.join(sorted(capture.tables))}; {REMEDY}"
        )
    return loaded


async def drop(store: Store, capture: Capture) -> None:
    """Remove what the source keeps, then what the store knows. Its events stay in the log."""
    loaded = await load(store, capture.name)
    tables = sorted({*capture.tables, *(loaded.progress.tables if loaded else ())})
    await capture.source.remove(capture.name, tables)
    async with store.transaction() as tx:
        for key in (progress_key(capture.name), shapes_key(capture.name), _begun_key(capture.name)):
            tx.put(key, None, expected=None)
