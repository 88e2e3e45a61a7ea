"""Consumer groups: who is in them, who holds which partition, and how far each has come."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from eventmill.backends.memory.lease import Lease
from eventmill.core.assignment import share
from eventmill.core.claims import Balance, Cursor, Fence
from eventmill.core.errors import ConfigurationError, LeaseLostError
from eventmill.core.message import Partition
from eventmill.core.reading import Types


@dataclass(slots=True)
class Place:
    """One partition of one group: where its cursor stands, and who holds it under which token."""

    position: int = 0
    ahead: tuple[int, ...] = ()
    holder: str | None = None
    token: int = 0
    abandoned: int = 0

    def free(self, *, abandoned: bool) -> None:
        self.holder = None
        self.abandoned = self.abandoned + 1 if abandoned else 0


@dataclass(slots=True)
class Membership:
    """One group with its members' leases."""

    types: Types | None
    generation: int = 1
    places: dict[Partition, Place] = field(default_factory=dict)
    members: dict[str, Lease] = field(default_factory=dict)

    def expire(self, now: float) -> None:
        """Remove the members whose lease has ended; what they held counts as abandoned."""
        for name in [name for name, lease in self.members.items() if lease.ended(now)]:
            self.leave(name, abandoned=True)

    def seen(self, now: float) -> int:
        """The generation; another one also while somebody's lease has ended and nobody has taken over yet."""
        return self.generation + 1_000_000_000 * sum(lease.ended(now) for lease in self.members.values())

    def leave(self, member: str, *, abandoned: bool) -> None:
        if self.members.pop(member, None):
            self.generation += 1
        for place in self.places.values():
            if place.holder == member:
                place.free(abandoned=abandoned)


class MemoryGroups:
    """All groups of one store."""

    def __init__(self) -> None:
        self.by_name: dict[str, Membership] = {}

    def enroll(self, group: str, types: Types | None, partitions: Collection[Partition]) -> None:
        known = self.by_name.setdefault(group, Membership(types))
        known.types = types
        for partition in partitions:
            known.places.setdefault(partition, Place())

    def balance(self, group: str, member: str, partitions: Collection[Partition], now: float, lease: float) -> Balance:
        known = self.by_name.get(group)
        unknown = [partition for partition in partitions if known is None or partition not in known.places]
        if known is None or unknown:
            raise ConfigurationError(
                f"group {group!r} is not enrolled for {', '.join(map(str, unknown))}: call enroll() with them first"
            )
        known.expire(now)
        if member in known.members:
            known.members[member].extend(now, lease)
        else:
            known.members[member] = Lease.starting(member, now, lease)
            known.generation += 1
        holders = {partition: known.places[partition].holder for partition in partitions}
        wanted, surplus = share(member, known.members.keys(), holders)
        acquired = [self._acquire(known.places[partition], partition, member) for partition in wanted]
        held = {partition: place.token for partition, place in known.places.items() if place.holder == member}
        return Balance(acquired, surplus, held)

    @staticmethod
    def _acquire(place: Place, partition: Partition, member: str) -> Cursor:
        cursor = Cursor(partition, place.position, place.ahead, place.token + 1, place.abandoned)
        place.holder = member
        place.token += 1
        return cursor

    def release(self, group: str, member: str, partitions: Collection[Partition] | None) -> None:
        known = self.by_name.get(group)
        if known is None:
            return
        if partitions is None:
            known.leave(member, abandoned=False)
            return
        for partition in partitions:
            place = known.places.get(partition)
            if place is not None and place.holder == member:
                place.free(abandoned=False)
                known.generation += 1

    def bury(self, prefix: str) -> None:
        for known in self.by_name.values():
            for name in [name for name in known.members if name.startswith(prefix)]:
                known.leave(name, abandoned=True)

    def require(self, claim: Cursor, fence: Fence) -> None:
        """Raises LeaseLostError unless this member still holds the cursor's partition under its token."""
        known = self.by_name.get(fence.group)
        place = known.places.get(claim.partition) if known else None
        if place is None or place.holder != fence.member or place.token != claim.token:
            raise LeaseLostError(
                f"group {fence.group!r}: {fence.member} no longer holds {claim.partition} under token {claim.token}"
            )

    def advance(self, group: str, partition: Partition, position: int, ahead: Sequence[int]) -> None:
        place = self.by_name[group].places[partition]
        place.position = position
        place.ahead = tuple(ahead)
        place.abandoned = 0

    def cursors(self, group: str) -> Mapping[Partition, int]:
        """How far one group is; empty for one that is not known."""
        known = self.by_name.get(group)
        return {} if known is None else {partition: place.position for partition, place in known.places.items()}

    def passed(self) -> dict[str, Mapping[Partition, int]]:
        """How far each group is in each partition it reads."""
        return {
            name: {partition: place.position for partition, place in known.places.items()}
            for name, known in self.by_name.items()
        }

    def leases(self) -> Sequence[Lease]:
        # Copies, each made in one step: the caller may be a thread beside the event loop.
        return [lease for known in list(self.by_name.values()) for lease in list(known.members.values())]
