"""The contract of a unit of work: what commits together, or not at all."""

from __future__ import annotations

from collections.abc import Awaitable, Collection, Mapping, Sequence
from typing import Protocol

from eventmill.core.claims import Cursor
from eventmill.core.document import Document
from eventmill.core.job import Job
from eventmill.core.message import Message, Partition
from eventmill.core.rows import Rows, SqlParameters
from eventmill.core.stream import Absence, Append
from eventmill.core.tracker import Tracker


class Transaction(Protocol):
    """One unit of work: everything in it commits together, with the handled message's mark, or not at all.

    `append`, `append_to`, `require`, `send`, `put` and `settle` are staged and written when the unit ends, so a conflict
    shows at the end of the `async with`. `execute` and `get` run at once, under the write lock on SQLite:
    do slow things (an HTTP call) before the first of them.
    """

    def append(self, messages: Sequence[Message]) -> None:
        """Stage messages for the log."""
        ...

    def append_to(self, append: Append) -> None:
        """Stage events of one stream under the version it is expected at; `append.appended` is filled by the commit.

        The unit ends with WrongExpectedVersionError where the stream stands elsewhere, and with StreamClosedError
        where it is closed. Versions are checked in the order of the calls: a second append of one unit to one
        stream sees the first. No other writer gets in between check and commit.
        """
        ...

    def require(self, condition: Absence) -> None:
        """Stage a condition on the tags of what others have appended; what this unit appends is not looked at.

        The unit ends with TagConflictError where an event matches. Of two units whose conditions rule out what
        the other appends, only one commits.
        """
        ...

    def send(self, jobs: Sequence[Job]) -> None:
        """Stage jobs. A job whose lane is occupied waits behind it; one that is sent with state `dead` stays dead."""
        ...

    def put(self, key: str, data: bytes | None, *, expected: int | None) -> None:
        """Stage a document; None deletes it.

        expected: the version that must be stored (ABSENT for none), or None to overwrite. The unit
        ends with ConflictError, and commits nothing, where another version is found.
        """
        ...

    async def get(self, key: str) -> Document | None:
        """The document as this transaction sees it."""
        ...

    async def cursors(self, group: str) -> Mapping[Partition, int]:
        """How far a group has come, partition by partition; nobody moves it on before this transaction has ended."""
        ...

    async def hurry(self, seconds: float) -> None:
        """From here on, a statement that waits longer than this for others' locks fails, with BackendUnavailableError."""
        ...

    async def get_many(self, keys: Collection[str]) -> Mapping[str, Document]:
        """Those documents that are there, by their keys. They are not kept from others: write with `expected`."""
        ...

    async def execute(self, sql: str, parameters: SqlParameters = ()) -> Rows:
        """Run one statement on the user's own tables; `?` and `:name` mark parameters on every backend."""
        ...

    async def executemany(self, sql: str, rows: Sequence[SqlParameters]) -> int:
        """Run one statement for many rows; returns how many rows it changed."""
        ...

    def settle(self, job: Job, *, retry_at: int | None = None, dead: bool = False) -> None:
        """Stage the end of a claimed job: done, again at `retry_at` (milliseconds), or dead.

        A job that ends lets the next of its lane go. A dead one holds its lane until it is replayed or
        skipped, unless it is settled with `lane` None: then it leaves the lane. Its `errors` and `attempts` are kept.
        Refused with LeaseLostError where the claim was taken over. One unit may settle any number of jobs of its fence's member.
        """
        ...

    def hold(self, job: Job, lane: str) -> None:
        """Stage that a claimed job waits in a lane, parked, until `let_go` comes to it; its `attempts` are kept."""
        ...

    def let_go(self, queue: str, lane: str) -> None:
        """Stage that the oldest job which is held in the lane leaves it, and is due by its own time again."""
        ...

    def mark(self, cursor: Cursor, tracker: Tracker, position: int) -> None:
        """Stage the group's cursor: `tracker.done(position)` once the unit can no longer fail by itself.

        The commit writes `tracker.cursor()` for the cursor's partition. Refused with LeaseLostError where
        the partition was taken over.
        """
        ...

    def receive(self, group: str, message: Message) -> None:
        """Stage the inbox mark of a message: a second one for the same group ends the unit with DuplicateError."""
        ...


class Unit(Transaction, Protocol):
    """A transaction in the hands of the runtime, which need not wait for the disk to go on."""

    @property
    def untouched(self) -> bool:
        """Whether nothing was staged or run in it yet."""
        ...

    async def finish(self) -> Awaitable[object]:
        """End the unit well. Returns when its effects are in line for the commit; what it returns is durability.

        Units that commit together may return the same future.

        Raises what made the unit itself impossible (ConflictError, LeaseLostError, DuplicateError):
        then nothing of it is kept, and no other unit is disturbed, or only by UnitInterruptedError: then it is
        to be done again from its beginning, and will not be interrupted a second time by the same failure.
        """
        ...

    async def discard(self) -> None:
        """Undo everything of the unit."""
        ...
