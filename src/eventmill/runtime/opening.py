"""Deliveries as a handler of events is shown them: with personal fields readable, as far as they still are."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy

import msgspec

from eventmill.core.envelope import Envelopes
from eventmill.core.message import Message
from eventmill.runtime.delivery import Delivery


async def readable(deliveries: Sequence[Delivery], envelopes: Envelopes) -> Sequence[Delivery]:
    """The deliveries, or copies of them that can be read. What is stored of them stays as it was received."""
    if not envelopes.personal(delivery.message for delivery in deliveries):
        return deliveries
    found = []
    for delivery in deliveries:
        shown = copy(delivery)
        shown.message = await opened(delivery.message, envelopes)
        found.append(shown)
    return found


async def opened(message: Message, envelopes: Envelopes) -> Message:
    """A message with its personal fields readable, or redacted. Raises DecodeError where its data is no JSON at all."""
    sealer = envelopes.sealer
    if sealer is None or not envelopes.personal((message,)):
        return message
    return msgspec.structs.replace(message, data=await sealer.open(message.type, message.version, message.data))
