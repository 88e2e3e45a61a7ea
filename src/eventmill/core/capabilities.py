"""What a backend may be able to do: the contracts, and what each of them promises.

A backend implements what it truly can, and nothing more. `App` compares what its handlers need
with what the configured backends offer, and refuses to start where something is missing.

Whoever implements one of these runs its conformance suite (`eventmill.testing.conformance`).
All methods are safe to call from any number of tasks of one event loop. Opening and closing is
`async with` on every backend.
"""

from __future__ import annotations

from collections.abc import Awaitable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from enum import StrEnum
from typing import Protocol

from eventmill.core.claims import Balance, Cursor, Fence, Group
from eventmill.core.document import Document
from eventmill.core.job import Job
from eventmill.core.job_store import JobStore
from eventmill.core.message import Message, Partition, Recorded
from eventmill.core.reading import Page, Pending, Trimmed, Types
from eventmill.core.rows import Rows, SqlParameters
from eventmill.core.stream import Query, StoredEvent, Stream
from eventmill.core.unit import Transaction, Unit

__all__ = [
    "Capability",
    "Feed",
    "Log",
    "Publisher",
    "Store",
    "Streams",
    "Subscriber",
    "Transaction",
    "Unit",
]


class Capability(StrEnum):
    """What a backend says it can do, in its class attribute `offers`."""

    PUBLISHER = "publisher"
    SUBSCRIBER = "subscriber"
    LOG = "log"
    STORE = "store"


class Publisher(Protocol):
    """Takes messages for good."""

    def publish(self, messages: Sequence[Message]) -> Awaitable[Sequence[int]]:
        """Store the messages, in this order; they are durable when this returns their positions.

        All or none of one call is stored where a message is at fault. A broker without transactions may have stored
        a part, in order, when it is lost meanwhile: publish the same again, repeats are known by their ids.
        A broker that has no positions returns an empty sequence. Raises UnroutableError where nobody waits
        for a message and the broker would not keep it.
        """
        ...


class Feed(Protocol):
    """What one member of a group is handed, from the partitions whose leases it holds.

    The store's leases say who reads a partition; a feed reads what it is told to, and never decides.
    """

    durable_positions: bool
    """Whether a position means the same message for ever. Where it does not (a queue), positions count on from
    where they are asked for, and what is delivered again is known by its id alone."""

    def read(self, after: Mapping[Partition, int], *, limit: int, max_bytes: int = 16 << 20) -> Awaitable[Page]:
        """Messages beyond each given position, in order within a partition, without waiting for any.

        At most `limit` messages, and about `max_bytes` of data, but at least one where there is one. A queue
        gives each message once, until it is put back.
        """
        ...

    def changed(self, seen: int, timeout: float) -> Awaitable[int]:
        """Wait until there may be more to read, or the time (seconds) is up; see `Log.changed`."""
        ...

    def acknowledge(self, partition: Partition, positions: Collection[int]) -> None:
        """These are dealt with for good: their commit is durable. A log need not be told."""
        ...

    def report(self, after: Mapping[Partition, int]) -> Awaitable[None]:
        """How far the group has come, where its cursors are kept elsewhere: for trimming, and for people."""
        ...

    def release(self, partitions: Collection[Partition]) -> Awaitable[None]:
        """These were given back or lost: what was handed out of them and not acknowledged is put back, in order."""
        ...

    def close(self) -> Awaitable[None]:
        """Release everything. Never raises for a server that is gone."""
        ...


class Subscriber(Protocol):
    """Hands messages to the members of groups, in order per key, each until it is acknowledged."""

    async def declare(self, topics: Mapping[str, int]) -> None:
        """Create topics with their partition counts; another count than the stored one is refused."""
        ...

    async def topics(self) -> Mapping[str, int]:
        """Every topic with its number of partitions."""
        ...

    def admit(self, group: str, types: Types | None, partitions: Collection[Partition]) -> Awaitable[None]:
        """From here on, keep for the group what is published of these types. Cheap where it is known already.

        A group on a log begins with the earliest message that is left; a queue keeps what comes after this.
        """
        ...

    def subscribe(self, group: str, types: Types | None) -> Feed:
        """The feed of one member; None of `types` means all. Closed by the member when it leaves."""
        ...

    def backlog(self, group: str, after: Mapping[Partition, int], types: Types | None) -> Awaitable[Pending]:
        """How many messages wait for the group, and since when the oldest does, where that is known."""
        ...

    def redelivery(self, topics: Collection[str]) -> Awaitable[Mapping[str, float]]:
        """For how long (seconds) after its publication each topic may hand a message out; infinity: for ever.

        Topics of which nobody can say are left out: a queue, which has no limit and hands out what was not
        acknowledged first of all; a log that is trimmed as its own service says.
        """
        ...

    def dismiss(self, group: str) -> Awaitable[None]:
        """The group is not coming back: nothing is kept for it any more."""
        ...


class Log(Publisher, Subscriber, Protocol):
    """An ordered, replayable record, split into partitions by key.

    No reader ever sees a position while a lower one of the same partition may still appear.
    """

    async def read(
        self,
        after: Mapping[Partition, int],
        *,
        limit: int,
        max_bytes: int = 16 << 20,
        types: Types | None = None,
    ) -> Page:
        """Messages beyond each given position, in order within a partition; None of `types` means all.

        At most `limit` messages, and about `max_bytes` of data, but at least one where there is one.
        """
        ...

    async def end(self) -> Mapping[Partition, int]:
        """The last position of each partition that holds a message."""
        ...

    async def pending(self, after: Mapping[Partition, int], types: Types | None = None) -> Pending:
        """How many messages lie beyond these positions, and since when the oldest of them waits."""
        ...

    async def report(self, group: str, after: Mapping[Partition, int]) -> None:
        """Say how far a group has come whose cursors are kept elsewhere, so that trimming spares what it needs.

        Saying nothing at all (an empty `after`) takes back what was said: the group is not coming back.
        """
        ...

    async def trimmed(self, topics: Collection[str]) -> Mapping[str, int]:
        """Those of the topics whose oldest messages are gone, each with the position up to which some may be."""
        ...

    async def changed(self, seen: int, timeout: float) -> int:
        """Wait until the log's change counter has left `seen` behind, or the time (seconds) is up; returns the counter.

        Start with `seen=-1`, which returns at once, read, then wait with what was returned: no append of
        any process is slept through. It may wake for nothing.
        """
        ...


class Streams(Protocol):
    """The same log, read by stream, by tag, and across all topics in the order of the positions."""

    async def read_stream(
        self, stream: Stream, *, after: int = 0, upto: int | None = None, limit: int, backward: bool = False
    ) -> Sequence[Recorded]:
        """Events of one stream whose versions lie beyond `after` and not beyond `upto`, at most `limit`.

        In order of their versions, or from the last one back. An event's version is `message.sequence` here,
        also where another log had given it another number.
        """
        ...

    async def events(
        self, stream: Stream, *, after: int = 0, upto: int | None = None, limit: int
    ) -> Sequence[StoredEvent]:
        """The same events, forward, with only what a fold needs of each: it is read many times for each that is written."""
        ...

    async def version(self, stream: Stream) -> int:
        """The version of the last event ever appended, 0 where there is none; trimming does not change it."""
        ...

    async def read_all(
        self,
        *,
        after: int = 0,
        limit: int,
        max_bytes: int = 16 << 20,
        types: Types | None = None,
        topics: Collection[str] | None = None,
        queries: Sequence[Query] | None = None,
    ) -> tuple[Sequence[Recorded], int]:
        """Events of the whole store beyond a position, in the order of their positions, and how far it was looked through.

        Only where each of `types`, `topics` and `queries` (one of them matches) that is given lets it through.
        Never passes a position below which another may still appear.
        """
        ...

    async def streams(self, topic: str, *, after: str = "", limit: int) -> Sequence[tuple[Stream, int]]:
        """The streams of a topic with their versions, in order of their keys, those beyond the key `after`."""
        ...


class Store(JobStore, Streams, Protocol):
    """A service's own database: log, cursors, jobs and documents in one transaction with the user's tables."""

    def transaction(self) -> AbstractAsyncContextManager[Transaction]:
        """One unit of work; durable when the `async with` has ended without an error."""
        ...

    async def document(self, key: str) -> Document | None:
        """The document under a key as it was last committed; takes no lock, and waits for no transaction."""
        ...

    async def scrub(self) -> None:
        """Remove what deleted documents have left behind in the store's files, as far as the backend can see to it.

        Raises BackendUnavailableError where something is in the way that may be gone later.
        """
        ...

    def unit(self, claim: Cursor | Job | None = None, fence: Fence | None = None) -> Unit:
        """One unit of work for the runtime: it commits only while the claim it stands on is still held."""
        ...

    async def enroll(self, group: str, types: Types | None, partitions: Collection[Partition]) -> None:
        """Make a group known with what it reads; a new one begins before the earliest message."""
        ...

    async def balance(self, group: str, member: str, partitions: Collection[Partition], lease: float) -> Balance:
        """Join the group or stay in it, and take over free partitions up to a fair share. lease: seconds."""
        ...

    async def generation(self, group: str) -> int:
        """Changes whenever a member joins, leaves, or lets its lease run out: a cheap question, asked often."""
        ...

    async def release(self, group: str, member: str, partitions: Collection[Partition] | None) -> None:
        """Give partitions back in good order; None leaves the group, and gives everything back, claimed jobs too."""
        ...

    def beat(self, members: Collection[str], lease: float) -> None:
        """Keep everything these members hold for another `lease` seconds.

        Blocking, and safe to call from any thread: it is called where a blocked event loop cannot stop it.
        """
        ...

    async def bury(self, incarnation: str) -> None:
        """Free at once what the members of a process known to be dead hold (their names start with `incarnation/`)."""
        ...

    async def documents(self, prefix: str, *, after: str = "", limit: int = 100) -> Sequence[Document]:
        """Committed documents whose keys start with `prefix` and lie beyond `after`, in order of their keys' bytes."""
        ...

    async def received(self, group: str, ids: Collection[str]) -> Collection[tuple[str, str]]:
        """Those of the message ids that the group's inbox holds, each with its source."""
        ...

    async def cursors(self, group: str) -> Mapping[Partition, int]:
        """How far a group has come; empty for one that never ran. A cheap question, asked often."""
        ...

    async def query(self, sql: str, parameters: SqlParameters = ()) -> Rows:
        """The rows of one statement that only reads the user's own tables, as they were last committed.

        It may take long: it blocks nobody, and waits for nobody.
        """
        ...

    async def primary_key(self, table: str) -> Sequence[str]:
        """The columns of a table's primary key, in their order; empty for a table without one, or none of this name."""
        ...

    async def groups(self) -> Sequence[Group]:
        """Every group, with its members and how far it has come."""
        ...

    async def forget(self, group: str) -> None:
        """Remove a group that is not coming back: its cursors, jobs and dead letters."""
        ...

    async def prune(self, *, inbox_older_than: float, dead_older_than: float) -> int:
        """Drop inbox marks and dead letters older than so many seconds; returns how many."""
        ...

    async def trim(
        self,
        topic: str,
        *,
        older_than: float | None = None,
        max_bytes: int | None = None,
        force: bool = False,
    ) -> Trimmed:
        """Remove the oldest messages: those recorded more than `older_than` seconds ago, or beyond `max_bytes`.

        Stops before the first message that some group has not passed, and says which group; with
        `force` it does not stop. The count of each key's sequence goes on where it was.
        """
        ...
