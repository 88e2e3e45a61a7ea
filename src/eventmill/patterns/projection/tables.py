"""The tables of one generation: what `{name}` stands for in the SQL of a projection."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache

from eventmill.core.errors import ConfigurationError

STATEMENTS = 2_048
"""Texts whose resolved form is remembered."""


class Tables:
    """Names of a projection's tables in one generation, beside those of others.

    generation: None where there is but one, and its tables have their plain names.
    """

    def __init__(self, names: Sequence[str], generation: int | None) -> None:
        self.names = tuple(names)
        self.generation = generation
        choice = "|".join(sorted(map(re.escape, names), key=len, reverse=True))
        self._placeholder = re.compile(rf"\{{({choice})\}}")
        self._plain = re.compile(
            rf'\b(?:into|update|from|join|table|exists|references)\s+"?({choice})"?(?![\w{{.])|\bon\s+"?({choice})"?\s*\(',
            re.IGNORECASE,
        )
        self.resolve: Callable[[str], str] = lru_cache(STATEMENTS)(self._resolve)
        """The statement with the real names; raises ConfigurationError where one is written plainly."""

    def name(self, table: str) -> str:
        """What the table is really called."""
        return table if self.generation is None else f"{table}__{self.generation}"

    def _resolve(self, sql: str) -> str:
        plain = self._plain.search(sql)
        if plain is not None:
            table = plain[1] or plain[2]
            raise ConfigurationError(
                f"{table!r} is what readers see; a projection writes {{{table}}}, which is the table it is building: "
                f"{sql[:200]}"
            )
        return self._placeholder.sub(lambda found: self.name(found[1]), sql)
