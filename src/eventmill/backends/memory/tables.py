"""The user's own tables: a private SQLite database in memory, so that handlers run the SQL they will run for real."""

from __future__ import annotations

import sqlite3
import weakref
from collections.abc import Sequence

from eventmill.core.errors import BackendError, ConfigurationError
from eventmill.core.rows import Rows, SqlParameters

_CONTROL = frozenset({"BEGIN", "COMMIT", "END", "ROLLBACK", "SAVEPOINT", "RELEASE", "ATTACH", "DETACH", "VACUUM"})


class Tables:
    """One connection; one unit at a time has a savepoint open on it."""

    def __init__(self) -> None:
        # Statements run on the thread of the loop that has the place open, which may change between two openings.
        self._connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        weakref.finalize(self, self._connection.close)

    def begin(self) -> None:
        self._connection.execute("SAVEPOINT eventmill")

    def keep(self) -> None:
        """Keep what the unit wrote. A deferred constraint may still refuse it: then the unit is undone."""
        self._connection.execute("RELEASE eventmill")

    def undo(self) -> None:
        # A statement with ON CONFLICT ROLLBACK has undone the unit by itself.
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK TO eventmill")
            self._connection.execute("RELEASE eventmill")

    def execute(self, sql: str, parameters: SqlParameters) -> Rows:
        self._require_unit(sql)
        cursor = self._connection.execute(sql, parameters)
        rows = Rows(cursor.fetchall())
        rows.rowcount = cursor.rowcount
        rows.columns = tuple(column[0] for column in cursor.description or ())
        return rows

    def executemany(self, sql: str, rows: Sequence[SqlParameters]) -> int:
        self._require_unit(sql)
        return self._connection.executemany(sql, rows).rowcount

    def primary_key(self, table: str) -> list[str]:
        rows = self._connection.execute("SELECT name FROM pragma_table_info(?) WHERE pk > 0 ORDER BY pk", (table,))
        return [name for (name,) in rows.fetchall()]

    def _require_unit(self, sql: str) -> None:
        word = sql.lstrip().partition(" ")[0].rstrip("; \n").upper()
        if word in _CONTROL:
            raise ConfigurationError(
                f"execute({word}): the unit of work begins and ends by itself; leave its block or raise instead"
            )
        if not self._connection.in_transaction:
            raise BackendError(
                "a statement with ON CONFLICT ROLLBACK has undone this unit; leave its block and try again"
            )
