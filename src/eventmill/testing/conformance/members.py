"""Members of groups, as the runtime makes them, for cases to play with."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from eventmill.core.capabilities import Store
from eventmill.core.claims import Balance, Cursor, Fence
from eventmill.core.message import Partition
from eventmill.core.tracker import Tracker

LEASE = 10.0
GROUP = "readers"


class Member:
    """One member of a group: what it holds, and commits on behalf of it."""

    def __init__(self, store: Store, name: str, partitions: Collection[Partition], group: str = GROUP) -> None:
        self.store = store
        self.name = name
        self.group = group
        self.partitions = partitions
        self.fence = Fence(group, name)
        self.cursors: dict[Partition, Cursor] = {}

    async def balance(self) -> Balance:
        """One step, giving back at once what is surplus."""
        await self.store.enroll(self.group, None, self.partitions)
        balance = await self.store.balance(self.group, self.name, self.partitions, LEASE)
        self.cursors.update({cursor.partition: cursor for cursor in balance.acquired})
        self.cursors = {part: cursor for part, cursor in self.cursors.items() if part in balance.held}
        if balance.surplus:
            await self.store.release(self.group, self.name, balance.surplus)
            for part in balance.surplus:
                del self.cursors[part]
        return balance

    async def leave(self) -> None:
        await self.store.release(self.group, self.name, None)
        self.cursors.clear()

    async def commit(self, partition: Partition, *done: int, looked: int = 0, started: Sequence[int] = ()) -> None:
        """Mark positions done in one unit. looked: how far was read. started: handed out and still running."""
        cursor = self.cursors[partition]
        tracker = Tracker(cursor.position, cursor.ahead)
        for position in sorted({*done, *started}):
            tracker.start(position)
        tracker.scanned(max(looked, *done, *started, 0))
        unit = self.store.unit(cursor, self.fence)
        for position in done:
            unit.mark(cursor, tracker, position)
        await (await unit.finish())


async def settle(*members: Member) -> None:
    """Balance in turns, until nobody takes or gives anything in two rounds: in the first, some are still joining."""
    quiet = 0
    for _ in range(20):
        steps = [await member.balance() for member in members]
        quiet = 0 if any(step.acquired or step.surplus for step in steps) else quiet + 1
        if quiet == 2:
            return
    raise AssertionError("the group came to no rest in 20 rounds")
