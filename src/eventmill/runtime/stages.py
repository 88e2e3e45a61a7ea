"""A delivery that is handled in several commits, one after another."""

from __future__ import annotations

from collections.abc import Callable

from eventmill.runtime.transaction import Transaction, current


class Stages:
    """Transactions that all stand on one claim; the last of them carries the mark that the message was handled.

    A handler that asks for it by annotation commits as often as it likes; what is open when it returns is committed by
    the runtime, with the mark. A crash in between delivers the message again: the handler must find out from what it has
    stored how far it had come. Its claim is checked at each commit: a worker that lost it commits nothing more.
    """

    __slots__ = ("_begin", "transaction")

    def __init__(self, first: Transaction, begin: Callable[[], Transaction]) -> None:
        self._begin = begin
        self.transaction = first
        """The one that is open now."""

    async def commit(self, *, durable: bool = False) -> None:
        """Commit, and go on in a transaction of its own. Raises what `Unit.finish` raises; nothing is kept then.

        durable: return only when the disk has it. Without, what follows is never durable before it, nor without it.
        """
        try:
            end = await self.transaction.finish()
            if durable:
                await end
        finally:
            self._next()

    async def undo(self) -> None:
        """Let go of what was written since the last commit, and begin anew."""
        await self.transaction.unit.discard()
        self._next()

    def _next(self) -> None:
        self.transaction.close()
        self.transaction = self._begin()
        current.set(self.transaction)
