"""Undoing one unit of a shared transaction, without a savepoint for each."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping

from eventmill.core.rows import SqlParameters

Step = tuple[str, SqlParameters] | Callable[[], None]


class Journal:
    """What the finished units of a transaction have written since its savepoint.

    A unit is undone by going back to the savepoint and writing the others' part again. Units run one
    after another under the file's write lock, so that the same statements meet the same state and do
    the same. What somebody may have seen is never written a second time, where a clock or chance could make
    it different: after a unit that has read, or that was not only plain statements, the savepoint moves on.
    """

    __slots__ = ("_begun", "_connection", "_sealed", "_start", "steps")

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.steps: list[Step] = []
        """Append each write of the unit whose turn it is, when it has succeeded."""
        self._start = 0
        self._begun = False
        self._sealed = False

    def begin(self) -> None:
        """A unit is about to run its first statement."""
        if not self._begun:
            self._connection.execute("SAVEPOINT unit")
            self._begun = True
        self._start = len(self.steps)
        self._sealed = False

    def seal(self) -> None:
        """What this unit does must not be done a second time, once it has ended well."""
        self._sealed = True

    def end(self) -> None:
        """The unit has ended well."""
        if self._sealed:
            self._connection.execute("RELEASE unit")
            self._connection.execute("SAVEPOINT unit")
            self.steps.clear()

    def undo(self) -> None:
        """Take the unit back. Raises sqlite3.Error where the others' part cannot be restored: then nothing stands."""
        execute = self._connection.execute
        execute("ROLLBACK TO unit")
        del self.steps[self._start :]
        for step in self.steps:
            if isinstance(step, tuple):
                execute(*step)
            else:
                step()

    def forget(self) -> None:
        """The commit is over. The steps hold their units, whose messages would stay in memory with them, in circles."""
        self.steps.clear()


def kept(parameters: SqlParameters) -> SqlParameters:
    """Parameters that their owner may go on to change."""
    return dict(parameters) if isinstance(parameters, Mapping) else tuple(parameters)
