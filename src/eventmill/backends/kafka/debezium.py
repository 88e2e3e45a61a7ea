"""Records of the topics that hold Debezium's changes, which the URL names: `kafka://host?debezium=legacy`."""

from __future__ import annotations

from eventmill.backends.kafka.record import OVERHEAD, KafkaMessage, Record, unreadable
from eventmill.core.debezium import from_debezium, to_debezium, type_of
from eventmill.core.errors import MessageError
from eventmill.core.message import Message, Partition, Recorded
from eventmill.core.reading import Types


def to_records(message: Message) -> list[Record]:
    """The record of a change, and after a delete a tombstone. Raises EncodeError for what is no change."""
    key, value = to_debezium(message, message.topic.partition(".")[0])
    text = None if key is None else key.decode()
    size = OVERHEAD + len(value) + len(key or b"")
    records = [Record(text, value, [], size)]
    if b'"op":"d"' in value and text is not None:
        records.append(Record(text, None, [], OVERHEAD + len(text)))
    return records


def from_record(record: KafkaMessage, partition: Partition, types: Types | None) -> Recorded | None:
    """None for a tombstone, which says nothing that the delete before it has not said, and for other types."""
    value = record.value()
    offset, (_, created) = record.offset(), record.timestamp()
    assert offset is not None
    if value is None or (types is not None and not types.accepts(type_of(partition.topic))):
        return None
    try:
        message = from_debezium(
            record.key(), value, topic=partition.topic, identity=f"{partition}@{offset}", arrived=created * 1000
        )
    except MessageError as error:
        return unreadable(record, partition, f"{partition} offset {offset}: {error}")
    return Recorded(offset + 1, partition, created, message)
