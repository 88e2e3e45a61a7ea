"""Each handler's own note of what it handled, in the handler's transaction: what the verdict rests on.

Nothing is unique in this table on purpose: a message handled twice must show.
"""

from __future__ import annotations

from eventmill import Message, Transaction

from .wiring import NUMBER

_TABLE = f"""
CREATE TABLE IF NOT EXISTS handled (
    {NUMBER},
    consumer TEXT NOT NULL,
    source TEXT NOT NULL,
    id TEXT NOT NULL,
    topic TEXT NOT NULL,
    key TEXT,
    sequence BIGINT
)
"""


async def prepare(tx: Transaction) -> None:
    await tx.execute(_TABLE)


async def handled(tx: Transaction, consumer: str, message: Message) -> None:
    """Note that the consumer group handles the message; `n` is the order of handling."""
    await tx.execute(
        "INSERT INTO handled (consumer, source, id, topic, key, sequence) VALUES (?, ?, ?, ?, ?, ?)",
        (consumer, message.source, message.id, message.topic, message.key, message.sequence),
    )
