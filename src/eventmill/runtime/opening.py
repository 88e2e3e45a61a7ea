"""What a handler of events is shown of a delivery: its personal fields readable, as far as they still are."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from eventmill.core.envelope import Envelopes
from eventmill.runtime.delivery import Delivery


async def make_readable(deliveries: Sequence[Delivery], envelopes: Envelopes) -> None:
    """Fill in what is read of each delivery. What is stored of its message stays as it was received.

    Raises DecodeError for data that is no JSON at all.
    """
    sealer = envelopes.sealer
    for delivery in deliveries:
        message = delivery.message
        if sealer is not None and envelopes.personal((message,)):
            data = await sealer.open(message.type, message.version, message.data)
            delivery.readable = msgspec.structs.replace(message, data=data)
