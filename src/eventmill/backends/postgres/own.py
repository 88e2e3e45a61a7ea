"""A transaction of the caller's own: on a connection of its own, for as long as the caller likes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Collection, Mapping, Sequence
from typing import TypeVar

import psycopg
from psycopg import pq

from eventmill.backends.postgres import faults
from eventmill.backends.postgres.address import Address
from eventmill.backends.postgres.answers import conflict
from eventmill.backends.postgres.append import prepare
from eventmill.backends.postgres.outcome import Outcomes
from eventmill.backends.postgres.pipeline import Pipeline, answer, tally
from eventmill.backends.postgres.placeholders import in_order, translate
from eventmill.backends.postgres.pool import Pool
from eventmill.backends.postgres.session import Lock, begin
from eventmill.backends.postgres.sql import statements
from eventmill.backends.postgres.staged import Staged
from eventmill.backends.postgres.staging import Staging
from eventmill.backends.postgres.topics import Topics
from eventmill.backends.postgres.values import Value, blob, number, text, texts
from eventmill.backends.postgres.writer import Writer
from eventmill.core.crash import point
from eventmill.core.document import Document
from eventmill.core.errors import ConfigurationError
from eventmill.core.message import Partition
from eventmill.core.rows import Rows, SqlParameters
from eventmill.core.stream import CLOSED, all_of

T = TypeVar("T")
_Reply = asyncio.Future[pq.abc.PGresult]


class OwnUnit(Staging):
    """Needs a connection only when it runs a statement or may be refused; else its messages join others' commit."""

    __slots__ = (
        "_address",
        "_begun",
        "_entering",
        "_hurried",
        "_outcomes",
        "_over",
        "_pipeline",
        "_pool",
        "_topics",
        "_writer",
    )

    def __init__(self, address: Address, pool: Pool, writer: Writer, topics: Topics, outcomes: Outcomes) -> None:
        super().__init__(None, None)
        self._address = address
        self._pool = pool
        self._writer = writer
        self._topics = topics
        self._outcomes = outcomes
        self._pipeline: Pipeline | None = None
        self._begun = False
        self._hurried = False
        self._over: Exception | None = None
        self._entering: asyncio.Future[None] | None = None

    @property
    def _touched(self) -> bool:
        return self._pipeline is not None or self._entering is not None

    async def enter(self) -> Pipeline:
        """The connection, its transaction open."""
        while self._pipeline is None:
            if self._entering is not None:
                await self._entering
                continue
            self._refuse_if_ended()
            self._entering = asyncio.get_running_loop().create_future()
            try:
                pipeline = await self._pool.take()
                for sql, values in begin(self._address, Lock.USERS):
                    pipeline.call(sql, self._ran, values)
                self._pipeline = pipeline
            finally:
                self._entering.set_result(None)
                self._entering = None
        if self._over is not None:
            raise ConfigurationError(
                "a statement of this transaction has failed, and PostgreSQL takes no further ones after that: let it end"
            ) from self._over
        return self._pipeline

    def _ran(self, result: pq.abc.PGresult | None, error: Exception | None) -> None:
        if error is not None and self._over is None:
            self._over = error

    async def _told(self, reply: asyncio.Future[T]) -> T:
        try:
            return await reply
        except psycopg.Error as error:
            self._over = self._over or error
            if faults.environmental(error) or (self._hurried and error.sqlstate == faults.LOCKED):
                raise faults.translated(error, str(self._address)) from error
            raise
        except Exception as error:
            first = self._over
            self._over = first or error
            raise faults.translated(first, str(self._address)) if first is not None else error from error

    async def execute(self, sql: str, parameters: SqlParameters = ()) -> Rows:
        self._refuse_if_ended()
        translated = translate(sql)
        ordered = in_order(translated, parameters)
        pipeline = self._pipeline if self._pipeline is not None and self._over is None else await self.enter()
        if translated.defines:
            # CREATE TABLE IF NOT EXISTS by several processes at once collides in PostgreSQL: one after another.
            await self.fetch("lock_definitions")
        reply: _Reply = asyncio.get_running_loop().create_future()
        pipeline.send(translated.sql, answer(reply), *pipeline.dump(ordered), binary=0)
        return pipeline.user_rows(await self._told(reply))

    async def executemany(self, sql: str, rows: Sequence[SqlParameters]) -> int:
        self._refuse_if_ended()
        translated = translate(sql)
        ordered = [in_order(translated, row) for row in rows]
        if not ordered:
            return 0
        pipeline = await self.enter()
        if translated.defines:
            await self.fetch("lock_definitions")
        dumped = [pipeline.dump(each) for each in ordered]
        reply: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        settle = tally(reply, len(dumped))
        for each in dumped:
            pipeline.send(translated.sql, settle, *each, binary=0)
        return await self._told(reply)

    async def fetch(self, name: str, *values: Value) -> list[tuple[object, ...]]:
        """One of eventmill's own statements within the transaction."""
        pipeline = await self.enter()
        reply: _Reply = asyncio.get_running_loop().create_future()
        pipeline.call(statements(self._address.quoted)[name], answer(reply), values)
        result = await self._told(reply)
        return pipeline.rows(result) if result.ntuples else []

    async def hurry(self, seconds: float) -> None:
        self._hurried = True
        await self.fetch("set_lock_timeout", text(str(max(1, int(seconds * 1000)))))

    async def cursors(self, group: str) -> Mapping[Partition, int]:
        rows = await self.fetch("lock_cursors", text(group))
        return {Partition(topic, part): position for topic, part, position in rows}  # type: ignore[arg-type, misc]

    async def get(self, key: str) -> Document | None:
        await self.fetch("lock_document", text(key))
        rows = await self.fetch("document", text(key))
        return self._as_staged(key, Document(key, rows[0][0], rows[0][1]) if rows else None)  # type: ignore[arg-type]

    async def get_many(self, keys: Collection[str]) -> Mapping[str, Document]:
        return self._many_as_staged(keys, await self.fetch("some_documents", texts(list(keys))))

    async def finish(self) -> Awaitable[object]:
        self._refuse_if_ended()
        try:
            return await self._finish()
        except BaseException:
            await self.discard()  # the connection goes back in any case
            raise

    async def _finish(self) -> Awaitable[object]:
        entries = self._entries or ()
        messages = prepare(all_of(entries)) if entries else []
        if messages and not self._topics.known(messages):
            await self._topics.learn(messages)
        if self._pipeline is None and not (
            self._documents or self._inbox or self._settlements or self._marks or self._held or self._let_go
        ):
            self._ended = True
            checked = entries if self._to_check else None
            return self._writer.stage(messages, self._jobs or (), checked, self._conditions or ())
        pipeline = await self.enter()
        staged: Staged[object] = Staged()
        self._fill(staged, int(self._topics.clock.now() * 1000))
        if self._to_check:
            staged.appends.add(self, entries, messages, self._conditions or ())
        else:
            staged.appends.messages += messages
        staged.jobs += self._jobs or ()
        documents = self._documents or ()
        await self._put([each for each in documents if not each[0].startswith(CLOSED)])
        for name, values in staged.calls(self._topics.counts, int(self._topics.clock.now() * 1000)):
            try:
                rows = await self.fetch(name, *values)
            except psycopg.Error as error:
                if getattr(error, "sqlstate", None) in faults.REFUSED:
                    places = json.loads(error.diag.message_detail or "[]")
                    for told in staged.blame(name, places).values():
                        raise told from error
                raise
            if name in ("append", "append_to"):
                staged.appends.answered(name, rows[0])
        # Those that close streams come last: they are no obstacle to what is appended with them.
        await self._put([each for each in documents if each[0].startswith(CLOSED)])
        await self._commit(pipeline, writes=bool(not staged.empty or self._documents))
        staged.appends.committed()
        self._writer.committed(bool(messages))
        self._ended = True
        self._pipeline = None
        self._pool.give_back(pipeline, clean=True)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    async def _put(self, documents: Sequence[tuple[str, bytes | None, int | None]]) -> None:
        for key, data, expected in documents:
            try:
                await self.fetch("put", text(key), blob(data), number(expected))
            except psycopg.Error as error:
                raise conflict(key, expected, error) from error

    async def _commit(self, pipeline: Pipeline, *, writes: bool) -> None:
        """Whether it was done is known even where the answer is lost: by the transaction's number."""
        ((xid,),) = await self.fetch("xid")
        point("commit.before")
        reply: _Reply = asyncio.get_running_loop().create_future()
        pipeline.send(b"COMMIT", answer(reply))
        try:
            result = await self._told(reply)
        except faults.ConnectionLost as error:
            if xid is None or await self._outcomes.committed(str(xid), pipeline.backend_pid, error):
                return
            raise
        point("commit.after")
        if result.command_status != b"COMMIT":
            raise faults.ConnectionLost(f"{self._address}: the transaction was undone by the server") from self._over

    async def discard(self) -> None:
        if self._ended:
            return
        self._ended = True
        while self._entering is not None:
            await self._entering
        pipeline, self._pipeline = self._pipeline, None
        if pipeline is None:
            return
        reply: _Reply = asyncio.get_running_loop().create_future()
        pipeline.sync()
        pipeline.send(b"ROLLBACK", answer(reply))
        clean = False
        try:
            async with asyncio.timeout(5):
                await reply
            clean = True
        except (TimeoutError, psycopg.Error, faults.ConnectionLost):
            clean = False  # closing it undoes the transaction as well
        finally:
            self._pool.give_back(pipeline, clean=clean)
