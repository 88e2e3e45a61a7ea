"""The replication connection: bytes in, entries out, and how far they are safe back to the server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from struct import Struct
from time import monotonic
from typing import Any

import psycopg
from psycopg import pq, sql

from eventmill.backends.postgres import faults
from eventmill.backends.postgres.replication.lsn import lsn_text
from eventmill.backends.postgres.replication.pgoutput import EPOCH, Decoder, Relations
from eventmill.backends.postgres.replication.tables import AGAIN
from eventmill.backends.postgres.replication.types import UnknownTypesError
from eventmill.core.changes import Emitted, Entry, Marked, Passed
from eventmill.core.clock import Clock
from eventmill.core.errors import BackendError, BackendUnavailableError, ConfigurationError

MARK = "eventmill.mark"
"""Prefix of the messages by which `Source.mark` finds its place in the stream: `<capture> <mark>`."""

MOST_BYTES = 8 << 20
"""Bytes of one read, about, however few entries they are."""

FEEDBACK = 5.0
"""Seconds between reports to the server, which takes a silent reader for lost after wal_sender_timeout."""

_xlog = Struct("!QQq").unpack_from
_keepalive = Struct("!QqB").unpack_from
_status = Struct("!cQQQqB").pack


class ReplicationStream:
    """Entries of one slot. While it is read, the server learns by itself that the reader lives.

    learn: has types asked for that `relations` does not know.
    """

    def __init__(
        self,
        connection: psycopg.AsyncConnection[Any],
        where: str,
        name: str,
        position: int,
        relations: Relations,
        learn: Callable[[Collection[int]], Awaitable[None]],
        prefixes: Collection[str],
        clock: Clock,
    ) -> None:
        self._connection = connection
        self._pgconn = connection.pgconn
        self._where = where
        self._name = name
        self._learn = learn
        self._again = b""
        self._prefixes = frozenset(prefixes)
        self._clock = clock
        self._decoder = Decoder(relations, self._emitted)
        self._confirmed = position
        self._head = position
        self._passed = position
        self._reported = 0.0
        self._loop = asyncio.get_running_loop()
        self._beat: asyncio.Task[None] | None = None

    async def begin(self, slot: str, publication: str) -> None:
        """Start what the server sends. Raises psycopg.Error where it refuses."""
        options = sql.SQL("proto_version '1', publication_names {}, messages 'true'").format(
            sql.Literal(sql.Identifier(publication).as_string(None))
        )
        command = sql.SQL("START_REPLICATION SLOT {} LOGICAL {} ({})").format(
            sql.Identifier(slot), sql.SQL(lsn_text(self._confirmed)), options
        )
        self._pgconn.send_query(command.as_string(None).encode())
        self._pgconn.flush()  # a short command fits into the socket of a fresh connection
        while self._pgconn.is_busy():
            await self._wait(None)
        result = self._pgconn.get_result()
        if result is None or result.status != pq.ExecStatus.COPY_BOTH:
            raise faults.of_result(result) if result is not None else psycopg.OperationalError("no answer")
        self._beat = asyncio.create_task(self._report_now_and_then())

    async def close(self) -> None:
        if self._beat is not None:
            self._beat.cancel()
        await self._connection.close()

    async def _wait(self, timeout: float | None) -> bool:
        """Until the server has sent something; False when the time is up."""
        arrived = asyncio.Event()
        socket = self._pgconn.socket
        # Only while waiting: what is not read yet would wake the loop again and again.
        self._loop.add_reader(socket, arrived.set)
        try:
            async with asyncio.timeout(timeout):
                await arrived.wait()
        except TimeoutError:
            return False
        finally:
            self._loop.remove_reader(socket)
        self._pgconn.consume_input()
        return True

    async def read(self, limit: int, timeout: float) -> Sequence[Entry]:
        entries: list[Entry] = []
        deadline = monotonic() + timeout
        try:
            while not entries:
                try:
                    self._take(entries, limit)
                except UnknownTypesError as unknown:
                    await self._learn(unknown.oids)
                    continue
                if not entries and not await self._wait(max(0.0, deadline - monotonic())):
                    break
        except psycopg.Error as error:
            raise faults.translated(error, self._where) from error
        if not entries and not self._decoder.within and self._head > self._passed:
            # All before the server's place in its log was sent, and nothing of it is ours.
            self._passed = self._head
            entries.append(Passed(self._head))
        return entries

    def _take(self, entries: list[Entry], limit: int) -> None:
        """What has arrived already; a transaction's end is not waited for."""
        get, decode = self._pgconn.get_copy_data, self._decode
        room = MOST_BYTES
        if self._again:
            decode(self._again, entries)
            self._again = b""
        while len(entries) < limit and room > 0:
            size, view = get(1)
            if size == 0:
                self._pgconn.consume_input()
                size, view = get(1)
                if size == 0:
                    return
            if size < 0:
                self._ended()
            data = bytes(view)
            room -= size
            if data[0] == 119:  # w
                position, _, _ = _xlog(data, 1)
                self._passed = max(self._passed, position)
                decode(data, entries)
            elif data[0] == 107:  # k
                head, _, reply = _keepalive(data, 1)
                self._head = max(self._head, head)
                if reply:
                    self._report(ask=False)

    def _decode(self, data: bytes, entries: list[Entry]) -> None:
        try:
            self._decoder.decode(data[25:], entries)
        except UnknownTypesError:
            self._again = data
            raise
        except (ValueError, KeyError, IndexError) as error:
            (position, _, _) = _xlog(data, 1)
            raise BackendError(
                f"{self._where}: what pgoutput sent at {lsn_text(position)} cannot be read: {error!r}"
            ) from error

    def _ended(self) -> None:
        result = self._pgconn.get_result()
        if result is not None and result.status == pq.ExecStatus.FATAL_ERROR:
            error = faults.of_result(result)
            if isinstance(error, psycopg.errors.UndefinedObject):
                # The publication was not there when something was changed, and is not for that however often one is made.
                raise ConfigurationError(
                    f"{self._where}: {error.diag.message_primary}, or did not when something was changed, which cannot be read now; "
                    f"begin anew with a new snapshot: {AGAIN}"
                )
            raise faults.translated(error, self._where)
        raise BackendUnavailableError(f"{self._where}: the server has ended the stream")

    def _emitted(self, prefix: str, content: bytes, position: int | None) -> Entry | None:
        if prefix == MARK:
            name, _, mark = content.decode("utf-8", "replace").partition(" ")
            return Marked(mark) if name == self._name else None
        return Emitted(prefix, content, position) if prefix in self._prefixes else None

    # Feedback

    def confirm(self, position: int) -> None:
        if position > self._confirmed:
            self._confirmed = position
            if monotonic() - self._reported > 0.2:
                self._report(ask=False)

    def _report(self, *, ask: bool) -> None:
        """Never blocks: what the socket does not take now goes with the next report."""
        self._reported = monotonic()
        now = int(self._clock.now() * 1_000_000) - EPOCH
        done = self._confirmed
        try:
            self._pgconn.put_copy_data(_status(b"r", max(done, self._passed), done, done, now, ask))
            self._pgconn.flush()
        except psycopg.Error:
            return  # the next read tells

    async def _report_now_and_then(self) -> None:
        """Asks for the server's place each time, so that an idle table's slot can follow it."""
        while True:
            await asyncio.sleep(FEEDBACK)
            self._report(ask=True)
