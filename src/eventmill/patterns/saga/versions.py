"""A changed definition over instances in flight: pinned, migrated by name, or refused. Never silently wrong."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence

import msgspec

from eventmill.core.capabilities import Store
from eventmill.core.errors import ConfigurationError, ConflictError
from eventmill.patterns.saga.definition import Saga
from eventmill.patterns.saga.instance import Entry, Instance, document_key, encode
from eventmill.patterns.saga.records import Definition, definition_key, definitions, instances, load
from eventmill.patterns.saga.shape import Shape

KEPT = 86_400_000
"""Milliseconds that a definition is known after its last instance was seen."""

SHOWN = 10
"""Instances named in a refusal; the rest is counted."""


async def reconcile(store: Store, name: str, declared: Sequence[Saga], now: int) -> None:
    """Make the declared versions known; see to open instances of any other. Raises ConfigurationError with their list.

    now: milliseconds since 1970 UTC. A definition is kept for a while after its last instance: while services are
    deployed one after another, old processes begin instances behind our back. See `late`.
    """
    present = {saga.shape.digest: saga for saga in declared}
    known = {each.digest: each for each in await definitions(store, name)}
    for saga in declared:
        for other in known.values():
            changed = other.version == saga.version and other.digest != saga.shape.digest
            if changed and not _migrates(declared, other.version):
                await _refuse_if_open(store, name, other, f"version {saga.version} was changed")
    strange = [each for digest, each in known.items() if digest not in present]
    # Looked at all before any is touched: what is refused must be as the old version has left it.
    refused: list[str] = []
    used: set[str] = set()
    for each in strange:
        target = _migrates(declared, each.version)
        async for instance in _open(store, name, each):
            used.add(each.digest)
            state = instance.state
            problem = (
                f"version {each.version} is not declared any more"
                if target is None
                else moved(instance, each.shape, target, target.migrate[each.version])
            )
            if problem is not None:
                refused.append(f"{instance.key} ({state}): {problem}")
    if refused:
        raise ConfigurationError(_words(name, refused))
    for each in strange:
        target = _migrates(declared, each.version)
        if target is not None:
            async for instance in _open(store, name, each):
                await _migrate(store, instance, each.shape, target, target.migrate[each.version])
    async with store.transaction() as tx:
        for saga in declared:
            made = Definition(name, saga.version, saga.shape.digest, saga.shape)
            if known.get(made.digest) != made:
                tx.put(definition_key(name, made.digest), msgspec.json.encode(made), expected=None)
        for each in strange:
            place = definition_key(name, each.digest)
            if each.digest in used or each.retired is None:
                tx.put(place, msgspec.json.encode(msgspec.structs.replace(each, retired=now)), expected=None)
            elif each.retired + KEPT < now:
                tx.put(place, None, expected=None)


def _migrates(declared: Collection[Saga], version: int) -> Saga | None:
    """The declared version that takes over the instances of another."""
    return next((saga for saga in declared if version in saga.migrate), None)


async def _open(store: Store, name: str, of: Definition) -> AsyncIterator[Instance]:
    async for each in instances(store, name):
        if each.digest == of.digest and not each.ended:
            yield each


async def _refuse_if_open(store: Store, name: str, known: Definition, why: str) -> None:
    found = [f"{each.key} ({each.state}): {why}" async for each in _open(store, name, known)]
    if found:
        raise ConfigurationError(_words(name, found))


def _words(name: str, refused: Sequence[str]) -> str:
    more = f"\n  and {len(refused) - SHOWN} more" if len(refused) > SHOWN else ""
    return (
        f"saga {name}: {len(refused)} instances in flight were begun with steps that are not declared here:\n  "
        + "\n  ".join(refused[:SHOWN])
        + more
        + "\nDeclare the old version beside the new one (app.saga(..., version=OLD)), or let the new one take its "
        "instances over by the names of its steps (migrate={OLD: {old_name: new_name}})"
    )


async def _migrate(store: Store, instance: Instance, old: Shape, target: Saga, renamed: Mapping[str, str]) -> None:
    """Move one instance to another version. Raises ConfigurationError where it has gone on meanwhile, and cannot be."""
    while True:
        found = await load(store, instance.saga, instance.key)
        if found is None or found[0].digest == target.shape.digest or found[0].ended:
            return
        current, version = found
        problem = moved(current, old, target, renamed)
        if problem is not None:
            raise ConfigurationError(_words(instance.saga, [f"{instance.key} ({current.state}): {problem}"]))
        try:
            async with store.transaction() as tx:
                tx.put(document_key(instance.saga, instance.key), encode(current), expected=version)
        except ConflictError:
            continue
        return


async def late(store: Store, instance: Instance, declared: Collection[Saga]) -> Saga | None:
    """Take over an instance that an old process has begun since we started; None where no version here may.

    It is changed in memory; whoever drives it stores it.
    """
    target = _migrates(declared, instance.version)
    if target is None:
        return None
    for each in await definitions(store, instance.saga):
        if each.digest == instance.digest:
            return target if moved(instance, each.shape, target, target.migrate[each.version]) is None else None
    return None


def moved(instance: Instance, old: Shape, target: Saga, renamed: Mapping[str, str]) -> str | None:
    """Change the record to the target's version, step by step by their names; or say why that cannot be.

    Every step that was begun must be there under its old or new name, be as undoable, and be answered by the same kind
    of events as far as it waits; and no new step may stand before one that was begun.
    """
    new = target.shape
    names = [renamed.get(record.name, record.name) for record in instance.steps]
    for record, name in zip(instance.steps, names, strict=True):
        if name not in new:
            return f"it has begun step {record.name!r}, of which version {target.version} has none"
        before, after = old[record.name], new[name]
        if before.undone and not after.undone and not instance.ended:
            return f"step {record.name!r} can be undone, {name!r} of version {target.version} cannot"
        if before.answered != after.answered:
            return f"step {record.name!r} and {name!r} of version {target.version} are not both commands"
    last = max((index for index, step in enumerate(new.steps) if step.name in names), default=-1)
    groups = {step.name: place for place, group in enumerate(new.groups()) for step in group}
    for step in new.steps[: last + 1]:
        if step.name not in names and groups[step.name] < groups[new.steps[last].name] and not instance.backward:
            return f"it is past the place of step {step.name!r}, which version {target.version} has put in"
    order = [index for index, step in enumerate(new.steps) for name in names if step.name == name]
    if len(order) != len(set(order)):
        return f"two of its steps would become one in version {target.version}"
    for record, name in zip(instance.steps, names, strict=True):
        record.name = name
    if instance.halted is not None:
        instance.halted = renamed.get(instance.halted, instance.halted)
    instance.note(Entry(instance.timeline[-1].at, "migrated", detail=f"version {instance.version} to {target.version}"))
    instance.version, instance.digest = target.version, new.digest
    return None
