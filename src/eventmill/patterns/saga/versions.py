"""A changed definition over instances in flight: pinned, migrated by name, or refused. Never silently wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from eventmill.core.capabilities import Store
from eventmill.core.errors import ConfigurationError, ConflictError
from eventmill.patterns.saga.definition import Saga
from eventmill.patterns.saga.instance import Entry, Instance, document_key, encode
from eventmill.patterns.saga.records import Definition, definition_key, definitions, instances, load
from eventmill.patterns.saga.shape import Shape

SHOWN = 10
"""Instances named in a refusal; the rest is counted."""


async def reconcile(store: Store, name: str, declared: Sequence[Saga]) -> None:
    """Make the declared versions known; see to open instances of any other. Raises ConfigurationError with their list."""
    present = {saga.shape.digest: saga for saga in declared}
    known = {each.digest: each for each in await definitions(store, name)}
    for saga in declared:
        other = next((each for each in known.values() if each.version == saga.version), None)
        if other is not None and other.digest != saga.shape.digest and not _migrates(declared, other.version):
            await _refuse_if_open(store, name, other, f"version {saga.version} was changed")
    strange = [each for digest, each in known.items() if digest not in present]
    refused: list[str] = []
    for each in strange:
        target = _migrates(declared, each.version)
        async for instance in instances(store, name):
            if instance.digest != each.digest or instance.ended:
                continue
            problem = (
                f"version {each.version} is not declared any more"
                if target is None
                else await _migrate(store, instance, each.shape, target, target.migrate[each.version])
            )
            if problem is not None:
                refused.append(f"{instance.key} ({instance.state}): {problem}")
    if refused:
        raise ConfigurationError(_words(name, refused))
    async with store.transaction() as tx:
        for saga in declared:
            if saga.shape.digest not in known:
                made = Definition(name, saga.version, saga.shape.digest, saga.shape)
                tx.put(definition_key(name, made.digest), msgspec.json.encode(made), expected=None)
        for each in strange:
            tx.put(definition_key(name, each.digest), None, expected=None)


def _migrates(declared: Sequence[Saga], version: int) -> Saga | None:
    """The declared version that takes over the instances of another."""
    return next((saga for saga in declared if version in saga.migrate), None)


async def _refuse_if_open(store: Store, name: str, known: Definition, why: str) -> None:
    found = [
        f"{each.key} ({each.state}): {why}"
        async for each in instances(store, name)
        if each.digest == known.digest and not each.ended
    ]
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


async def _migrate(
    store: Store, instance: Instance, old: Shape, target: Saga, renamed: Mapping[str, str]
) -> str | None:
    """Move one instance to another version; returns why that cannot be, or None."""
    while True:
        problem = moved(instance, old, target, renamed)
        if problem is not None:
            return problem
        found = await load(store, instance.saga, instance.key)
        if found is None or found[0].digest == target.shape.digest or found[0].ended:
            return None
        try:
            async with store.transaction() as tx:
                tx.put(document_key(instance.saga, instance.key), encode(instance), expected=found[1])
            return None
        except ConflictError:
            instance = found[0]


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
