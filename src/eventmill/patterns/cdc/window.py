"""Which rows of a chunk may be told, when changes came in while it was read.

A chunk's rows are told at a mark in the stream which lies behind everything that the chunk's reader could see. What has
been told before the mark by transactions that the reader could not see is newer than the chunk: those rows are left out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from eventmill.core.changes import Chunk, Key, Row, View


class Window:
    """Notes what the stream tells of one table, from before a chunk is read until it is told.

    As soon as the chunk is read only what concerns its rows is kept, however much the stream tells. reshaped: whether the
    table's columns were others since.
    """

    def __init__(self, table: str) -> None:
        self.table = table
        self.reshaped = False
        self._changes: dict[Key, set[int]] = {}
        self._truncates: set[int] = set()
        self._keys: set[Key] | None = None
        self._view: View | None = None

    def read(self, chunk: Chunk) -> None:
        """The chunk is read: these are its rows, and what its reader could see."""
        self._view = chunk.view
        self._keys = {key for key, _ in chunk.rows}
        noted, self._changes = self._changes, {}
        for key in noted.keys() & self._keys:
            for transaction in noted[key]:
                self.changed(key, transaction)

    def changed(self, key: Key, transaction: int) -> bool:
        """Note a change; whether the chunk's row of this key may be left out for it."""
        if self._keys is not None and self._view is not None and (key not in self._keys or self._view.saw(transaction)):
            return False
        self._changes.setdefault(key, set()).add(transaction)
        return True

    def truncated(self, transaction: int) -> None:
        self._truncates.add(transaction)

    def rows(self, chunk: Chunk) -> Iterator[tuple[Key, Row]]:
        """The chunk's rows that nothing newer was told of."""
        if any(not chunk.view.saw(transaction) for transaction in self._truncates):
            return
        for key, row in chunk.rows:
            transactions = self._changes.get(key)
            if transactions is None or all(map(chunk.view.saw, transactions)):
                yield key, row


class Recent:
    """Transactions of which something was told, and that some view might still not see.

    A transaction is in the source's log a moment before it is visible (with a synchronous standby, a long moment). A
    chunk that was read in between must be read again: its window did not see the transaction's changes.
    """

    def __init__(self, transactions: Collection[int] = ()) -> None:
        self._told = dict.fromkeys(transactions)

    def told(self, transaction: int) -> None:
        self._told[transaction] = None

    def copy(self) -> Recent:
        return Recent(self._told)

    def all_seen_by(self, view: View) -> bool:
        return all(map(view.saw, self._told))

    def forget(self, view: View) -> None:
        """Drop what every later view sees."""
        self._told = {transaction: None for transaction in self._told if not view.forgettable(transaction)}

    def clear(self) -> None:
        self._told.clear()

    @property
    def transactions(self) -> list[int]:
        return list(self._told)
