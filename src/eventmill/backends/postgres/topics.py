"""The partition counts of topics, which never change once they are declared."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from eventmill.backends.postgres.reader import Reader
from eventmill.backends.postgres.values import number, text
from eventmill.backends.sql.prepared import PreparedMessage
from eventmill.core.clock import Clock
from eventmill.core.partition import DEFAULT_PARTITIONS


class Topics:
    """Remembers what it has learned; a topic nobody declared gets the default count."""

    def __init__(self, reader: Reader, clock: Clock) -> None:
        self.clock = clock
        self.counts: dict[str, int] = {}
        self._reader = reader

    def known(self, messages: Sequence[PreparedMessage]) -> bool:
        counts = self.counts
        return all(message.topic in counts for message, _ in messages)

    async def learn(self, messages: Sequence[PreparedMessage]) -> None:
        """Look their topics up, and declare those that are not there."""
        await self.learn_names({message.topic for message, _ in messages})

    async def learn_names(self, topics: Collection[str]) -> None:
        await self.look()
        missing = sorted(set(topics) - self.counts.keys())
        if missing:
            await self.declare(dict.fromkeys(missing, DEFAULT_PARTITIONS))
            await self.look()

    async def look(self) -> Mapping[str, int]:
        self.counts.update(await self._reader.fetch("topics"))
        return self.counts

    async def declare(self, topics: Mapping[str, int]) -> None:
        for topic, partitions in topics.items():
            await self._reader.fetch("declare", [text(topic), number(partitions)])
