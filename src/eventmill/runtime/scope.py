"""What `async with app.transaction()` enters and leaves."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from contextvars import Token
from types import TracebackType

from eventmill.core.capabilities import Unit
from eventmill.core.envelope import Envelopes
from eventmill.runtime.transaction import Transaction, current


class Scope(AbstractAsyncContextManager[Transaction]):
    """The running handler's transaction, or else one of its own.

    That commits where the block ends well, and leaves nothing where it does not.

    unit: makes the backend's unit of work. opening: what to await before that, where the store is not open yet.

    Written out rather than as a generator, which costs each transaction several microseconds.
    """

    __slots__ = ("_envelopes", "_make", "_opening", "_token", "_transaction")

    def __init__(
        self, unit: Callable[[], Unit], envelopes: Envelopes, opening: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        self._make = unit
        self._envelopes = envelopes
        self._opening = opening
        self._transaction: Transaction
        self._token: Token[Transaction | None] | None = None

    async def __aenter__(self) -> Transaction:
        running = current.get()
        if running is not None and running.open and running.belongs_to(self._envelopes):
            return running
        if self._opening is not None:
            await self._opening()
        self._transaction = Transaction(self._make(), self._envelopes)
        self._token = current.set(self._transaction)
        return self._transaction

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._token is None:
            return  # whose transaction it is will end it
        transaction = self._transaction
        try:
            if kind is not None:
                await transaction.unit.discard()
                return
            durable = await transaction.finish()
        finally:
            transaction.close()
            current.reset(self._token)
        await durable
