"""What exchanges, queues and bindings are called."""

from __future__ import annotations

from collections.abc import Iterator

from eventmill.core.errors import ConfigurationError
from eventmill.core.message import Partition
from eventmill.core.reading import Types

LONGEST = 255
"""Bytes of a name on the server."""


class Names:
    """All begin with the prefix, so that several systems can share a vhost."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self.register = self._checked(f"{prefix}.topics")

    def exchange(self, topic: str) -> str:
        """Where a topic is published to, with the routing key `partition.type`."""
        return self._checked(f"{self._prefix}.{topic}")

    def queue(self, group: str, partition: Partition) -> str:
        """What is kept for a group. Its end is `/topic/number`, so that no two groups can share one."""
        return self._checked(f"{self._prefix}.{group}/{partition}")

    def bindings(self, types: Types | None, number: int) -> Iterator[str]:
        """The routing keys a queue waits for. A prefix lets its bare name through as well: whoever reads looks again."""
        if types is None:
            yield f"{number}.#"
            return
        for name in sorted(types.names):
            yield self._checked(f"{number}.{name}")
        for prefix in sorted(types.prefixes):
            yield self._checked(f"{number}.{prefix}#")

    def _checked(self, name: str) -> str:
        if len(name.encode()) > LONGEST:
            raise ConfigurationError(
                f"{name[:60]!r}…: {len(name.encode())} bytes; RabbitMQ's names have {LONGEST} at most: "
                "give the group, the topic or the prefix a shorter name"
            )
        return name
