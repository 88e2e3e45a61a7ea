"""Who holds what: groups, members, and the cursors in their hands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from eventmill.core.message import Partition
from eventmill.core.reading import Types


@dataclass(frozen=True, slots=True)
class Cursor:
    """A partition as it was handed to a member.

    `token` grows with each change of hands; a commit under an older one is refused. `abandoned`:
    how many holders in a row vanished without having moved the cursor; what they were doing may have killed them.
    """

    partition: Partition
    position: int
    ahead: Sequence[int]
    token: int
    abandoned: int = 0


@dataclass(frozen=True, slots=True)
class Balance:
    """One step of a group's spreading: what this member took over, what it should give back."""

    acquired: Sequence[Cursor]
    surplus: Sequence[Partition]
    held: Mapping[Partition, int]


class Fence:
    """What a unit of work stands on: a member of a group and its incarnation.

    When a commit that a member took part in fails, the store turns `valid` off, and every later
    unit under the same fence is refused: nothing may overtake what was lost. The member then
    makes a new fence and starts again from the stored cursors.
    """

    __slots__ = ("group", "member", "valid")

    def __init__(self, group: str, member: str) -> None:
        self.group = group
        self.member = member
        self.valid = True


@dataclass(frozen=True, slots=True)
class Group:
    """A consumer group as the store knows it. members: live member names with how many partitions each holds."""

    name: str
    types: Types | None
    cursors: Mapping[Partition, int]
    members: Mapping[str, int]
    retrying: int = 0
    parked: int = 0
    dead: int = 0
