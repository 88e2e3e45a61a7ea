"""An entity's past: every version of it, what changed between two of them and by whom, and the way back."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from eventmill.core.aggregate import Aggregate
from eventmill.core.decider import Decider
from eventmill.core.entity import Decided, Entity
from eventmill.core.errors import ConfigurationError
from eventmill.core.retry import RetryPolicy
from eventmill.core.stream import stored
from eventmill.patterns.sourcing.commands import CONFLICTS, Commands
from eventmill.patterns.sourcing.executed import Executed
from eventmill.patterns.sourcing.fact import Fact, fact
from eventmill.patterns.sourcing.host import checked_id
from eventmill.patterns.sourcing.loading import check_whole
from eventmill.patterns.sourcing.streams import numbered

REVERTED = "revertedto"
"""The extension attribute that facts of a revert carry: the version they lead back to."""

_read_value = msgspec.json.Decoder().decode
_write = msgspec.json.Encoder(order="deterministic").encode


class Change(NamedTuple):
    """What became of one field between two versions.

    before, after: its values as JSON holds them. by: the fact that gave it the last of them; `by.message` says
    whose command or message that followed from (`causationid`, `correlationid`). times: how many facts changed it.
    """

    field: str
    before: Any
    after: Any
    by: Fact
    times: int


class Past(Commands):
    """The App's calls on the past."""

    async def history(
        self, kind: type[Aggregate] | Decider[Any], id_: str, *, after: int = 0, upto: int | None = None
    ) -> Sequence[Fact]:
        """Every fact of an entity, in order: what happened, when it was committed, and what it followed from.

        Facts of other types in its stream, such as its archiving, are among them.
        """
        entity = self._entity(kind)
        return await self.read(entity.stream(checked_id(id_, entity.name)), after=after, upto=upto)

    async def diff(
        self, kind: type[Aggregate] | Decider[Any], id_: str, from_version: int, to_version: int
    ) -> Mapping[str, Change]:
        """Each field that an entity's facts changed after one version and up to another, and which of them did it.

        A field that was changed and changed back is there, too, with equal values. A state without named fields is one
        field, called ``. Raises ConfigurationError for versions that do not exist, or not in this order.
        """
        entity = self._entity(kind)
        id_ = checked_id(id_, entity.name)
        if not 0 <= from_version <= to_version:
            raise ConfigurationError(
                f"diff: from {from_version} to {to_version}: give two versions, the earlier one first"
            )
        if not self._opened:
            await self.open()
        stream = entity.stream(id_)
        folded = await self._prefix(entity, id_, from_version)
        records = await self._records(stream, from_version, to_version)
        check_whole(stream, records, from_version)
        records = await self._legible(records)
        if len(records) < to_version - from_version:
            raise ConfigurationError(
                f"{stream} has no version {to_version}: it stands at {from_version + len(records)}"
            )
        state = folded.state
        first = before = _values(entity, state)
        found: dict[str, Change] = {}
        for record in records:
            state = entity.fold(state, [stored(record)])
            after = _values(entity, state)
            for field in {**before, **after}:
                old, new = before.get(field), after.get(field)
                if old != new:
                    known = found.get(field)
                    times = known.times + 1 if known else 1
                    start = _read_value(first.get(field, b"null"))
                    found[field] = Change(field, start, _read_value(new or b"null"), fact(record, self.registry), times)
            before = after
        return found

    async def revert(
        self,
        kind: type[Aggregate] | Decider[Any],
        id_: str,
        *,
        to: int,
        keep: Collection[str] = (),
        retry: RetryPolicy | None = None,
    ) -> Executed:
        """Make an entity what it was at a version, by facts that are appended. Nothing is deleted: the history shows all.

        The facts are those that the aggregate's `restore(past)` yields, so that views and other services follow as they do
        with any other. Before they are appended, they are checked to give that very state, but for the fields in `keep`.
        They carry the attribute `revertedto`. Where the state is that of `to` already, nothing is appended.

        Raises ConfigurationError for an entity without `restore`, for a version that does not exist, and for facts that lead
        elsewhere, naming the fields; else as `execute` does.
        """
        entity = self._entity(kind)
        id_ = checked_id(id_, entity.name)
        unknown = [field for field in keep if entity.fields is not None and field not in entity.fields]
        if unknown:
            raise ConfigurationError(f"{entity.name}: keep={unknown}: its fields are {', '.join(entity.fields or ())}")

        async def attempt() -> Executed:
            return await self._revert(entity, id_, to, keep)

        if self._joined() is not None:
            return await attempt()
        if not self._opened:
            await self.open()
        return await self._in_turn(entity.stream(id_), retry or CONFLICTS, attempt)

    async def _revert(self, entity: Entity[Any], id_: str, to: int, keep: Collection[str]) -> Executed:
        past = await self._prefix(entity, id_, to)
        now = await self._current(entity, id_)
        wanted = _values(entity, past.state)
        decided = Decided((), None)
        if _differing(wanted, _values(entity, now.state), keep):
            decided = entity.restoring(now.state, past.state)
        messages = self._made(entity.stream(id_), decided.events, extensions={REVERTED: str(to)})
        # The command has touched the state it was given: what is stored is folded onto another one.
        state = entity.fold((await self._current(entity, id_)).state, map(stored, numbered(messages, now.version)))
        wrong = _differing(wanted, _values(entity, state), keep)
        if wrong:
            raise ConfigurationError(
                f"{entity.stream(id_)}: the facts that restore() yields do not lead back to version {to}: "
                f"{', '.join(wrong)} would differ; nothing was appended. Correct it, or keep={wrong!r}"
            )
        return await self._append_decided(entity.stream(id_), messages, decided, now.version)


def _values(entity: Entity[Any], state: object) -> dict[str, bytes]:
    """Each field of a state as JSON; comparing those, no state needs to be copied."""
    if entity.fields is None:
        return {"": _write(state)}
    return {field: _write(getattr(state, field)) for field in entity.fields}


def _differing(one: Mapping[str, bytes], other: Mapping[str, bytes], keep: Collection[str]) -> list[str]:
    return [field for field in one if field not in keep and one[field] != other.get(field)]
