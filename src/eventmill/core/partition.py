"""Which partition a key lives in."""

from __future__ import annotations

from zlib import crc32

DEFAULT_PARTITIONS = 16


def partition_of(key: str | None, message_id: str, partitions: int) -> int:
    """The partition of a key: CRC-32 of its UTF-8 bytes modulo the count, the same on every machine.

    A message without a key is spread by its id.
    """
    return crc32((message_id if key is None else key).encode()) % partitions
