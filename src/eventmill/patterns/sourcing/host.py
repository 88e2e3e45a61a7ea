"""What event sourcing asks of the App that it is a part of."""

from __future__ import annotations

import random
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

from eventmill.core.aggregate import Aggregate, AggregateEntity
from eventmill.core.capabilities import Store
from eventmill.core.clock import Clock
from eventmill.core.decider import Decider, DeciderEntity
from eventmill.core.entity import Entity
from eventmill.core.envelope import Envelopes
from eventmill.core.errors import ConfigurationError, MessageError
from eventmill.core.limits import MAX_KEY_BYTES, check_text
from eventmill.core.registry import Registry
from eventmill.core.stream import Stream
from eventmill.patterns.privacy.vault import Vault
from eventmill.patterns.sourcing.turns import Turns
from eventmill.runtime.transaction import Transaction, current

S = TypeVar("S")


class Host:
    """The App's own parts, by the names they have there."""

    store: Store
    clock: Clock
    registry: Registry
    _envelopes: Envelopes
    _vault: Vault
    _rng: random.Random
    _opened: bool

    def __init__(self) -> None:
        self._entities: dict[object, Entity[Any]] = {}
        self._turns = Turns()

    async def open(self) -> None:
        """See `App.open`."""
        raise NotImplementedError

    def transaction(self) -> AbstractAsyncContextManager[Transaction]:
        """See `App.transaction`."""
        raise NotImplementedError

    def _entity(self, kind: object) -> Entity[Any]:
        if isinstance(kind, Aggregate):
            raise ConfigurationError(f"give the class {type(kind).__name__} and an id, not an instance")
        entity = self._entities.get(kind)
        if entity is None:
            if isinstance(kind, type) and issubclass(kind, Aggregate):
                entity = AggregateEntity(kind, self.registry)
            elif isinstance(kind, Decider):
                entity = DeciderEntity(kind, self.registry)
            else:
                raise ConfigurationError(f"{kind!r} is neither an Aggregate class nor a Decider")
            self._entities[kind] = entity
        return entity

    def _joined(self) -> Transaction | None:
        """The transaction of this App that the caller stands in, if any."""
        transaction = current.get()
        if transaction is not None and transaction.open and transaction.belongs_to(self._envelopes):
            return transaction
        return None


def stream_of(stream: Stream | str) -> Stream:
    """The stream, from its text where it is one. Raises ConfigurationError."""
    return Stream.parse(stream) if isinstance(stream, str) else stream


def checked_id(id_: object, name: str) -> str:
    """An entity's id. Raises ConfigurationError for what could be no key."""
    try:
        check_text(id_, "id", MAX_KEY_BYTES)
    except MessageError as error:
        raise ConfigurationError(f"{name}: {error}") from error
    return str(id_)
