"""A user's function, and what it asks for."""

from __future__ import annotations

import asyncio
import inspect
import typing
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from eventmill.core.errors import ConfigurationError, DecodeError
from eventmill.core.message import Message
from eventmill.core.outcome import DeadLetter, Outcome, Released, Retry, Snooze
from eventmill.core.registry import Registry
from eventmill.runtime.delivery import Delivery
from eventmill.runtime.stages import Stages
from eventmill.runtime.thread import in_thread
from eventmill.runtime.transaction import SyncTransaction, Transaction


@dataclass(frozen=True, slots=True)
class Context:
    """What a handler may know about the handling itself.

    idempotency_key stays the same over all attempts of the message in this group: hand it to whatever
    outside system could otherwise be charged twice. attempt counts from 1. positions: of all messages, in a batch.
    """

    group: str
    attempt: int
    idempotency_key: str
    position: int | None
    positions: Sequence[int | None] = ()


class Handling(Protocol):
    """What a consumer does with deliveries: a user's function, or what a pattern makes of several."""

    name: str
    plain: bool
    """Whether `call_plain` will do, for a single delivery."""
    event_class: object
    """The annotation of the event parameter; None where there is none, or more than one."""
    staged: bool
    """Whether it commits more than once, by the stages it is handed."""

    def call_plain(self, message: Message, transaction: Transaction) -> Awaitable[Any]:
        """Begin to handle one message, with nothing but its event and the transaction."""
        ...

    def call(
        self,
        deliveries: Sequence[Delivery],
        transaction: Transaction,
        context: Callable[[], Context],
        stages: Stages | None = None,
    ) -> Awaitable[Any]:
        """Begin to handle deliveries as one unit; what it returns is to be awaited. Raises DecodeError."""
        ...

    def refusal(self, result: object) -> Outcome | None:
        """What a returned value asks for: a Retry or a DeadLetter; anything else means done."""
        ...


class Handler:
    """Calls a function with what its annotations ask for.

    The event is the parameter annotated with an event type, or with nothing; `Message`, `Transaction`,
    `SyncTransaction` and `Context` are given by type. With `batch` the first parameter takes a list.
    """

    def __init__(self, function: Callable[..., Any], registry: Registry, *, batch: bool) -> None:
        self.function = function
        self.name = function.__qualname__
        self.sync = not inspect.iscoroutinefunction(function)
        self.batch = batch
        self._by_name = registry.by_name
        self.wants, self.event_class = _parameters(function, batch=batch, sync=self.sync)
        self.staged = "stages" in self.wants
        """Whether it commits more than once."""
        self._and_transaction = self.wants == ["event", "transaction"]
        self.plain = (self._and_transaction or self.wants == ["event"]) and not batch and not self.sync
        """Whether `call_plain` will do: the two commonest signatures, called without a loop over their parameters."""

    def call_plain(self, message: Message, transaction: Transaction) -> Awaitable[Any]:
        """Decode, and begin the call of a handler that takes one event, and perhaps the transaction."""
        kind = self._by_name.get(message.type)
        event = self._decode(message) if kind is None else kind.decode(message.data, message.version)
        called: Awaitable[Any] = self.function(event, transaction) if self._and_transaction else self.function(event)
        return called

    def call(
        self,
        deliveries: Sequence[Delivery],
        transaction: Transaction,
        context: Callable[[], Context],
        stages: Stages | None = None,
    ) -> Awaitable[Any]:
        """Decode, and begin the call; what it returns is to be awaited. Raises DecodeError."""
        arguments: list[object] = []
        for want in self.wants:
            if want == "event":
                events = [
                    self._decode(delivery.readable) for delivery in (deliveries if self.batch else deliveries[:1])
                ]
                arguments.append(events if self.batch else events[0])
            elif want == "message":
                # As they are stored: what is passed on, as by the relay, must not be opened on the way.
                messages = [delivery.message for delivery in deliveries]
                arguments.append(messages if self.batch else messages[0])
            elif want == "transaction":
                arguments.append(transaction)
            elif want == "stages":
                arguments.append(stages)
            elif want == "sync":
                arguments.append(SyncTransaction(transaction, asyncio.get_running_loop()))
            else:
                arguments.append(context())
        if self.sync:
            return in_thread(None, partial(self.function, *arguments))
        return self.function(*arguments)  # type: ignore[no-any-return]

    def refusal(self, result: object) -> Outcome | None:
        """What the function's return value asks for: a Retry, a Snooze, a DeadLetter, Released; anything else means done."""
        if isinstance(result, Retry | DeadLetter | Snooze | Released):
            return result
        if isinstance(result, Awaitable):
            raise TypeError(f"{self.name} returned something to await; make it `async def`, or await it inside")
        return None

    def _decode(self, message: Message) -> object:
        kind = self._by_name.get(message.type)
        if kind is None:
            raise DecodeError(
                f"{message.type}: no event type of this name is registered here; "
                "register one, or take the `Message` itself as parameter"
            )
        return kind.decode(message.data, message.version)


_BY_TYPE: dict[object, str] = {
    Message: "message",
    Transaction: "transaction",
    SyncTransaction: "sync",
    Context: "context",
    Stages: "stages",
}


def _parameters(function: Callable[..., Any], *, batch: bool, sync: bool) -> tuple[list[str], object]:
    """What each parameter wants, and the annotation of the event parameter (None without one)."""
    name = function.__qualname__
    try:
        hints = typing.get_type_hints(function)
    except NameError as error:
        raise ConfigurationError(
            f"{name}: an annotation cannot be resolved: {error}; import the name it uses"
        ) from error
    wants: list[str] = []
    event: object = None
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.KEYWORD_ONLY):
            raise ConfigurationError(f"{name}: parameter {parameter.name!r} must be a plain positional parameter")
        hint = hints.get(parameter.name)
        if batch and typing.get_origin(hint) in (list, Sequence):
            (hint,) = typing.get_args(hint)
        elif batch and hint is not None and _BY_TYPE.get(hint) in (None, "message"):
            raise ConfigurationError(f"{name}: with batch=, {parameter.name!r} takes list[…], not {hint}")
        want = _BY_TYPE.get(hint, "event")
        if want == "event":
            if "event" in wants:
                raise ConfigurationError(
                    f"{name}: {parameter.name!r} is a second event parameter; annotate it as "
                    "Message, Transaction, SyncTransaction or Context, or remove it"
                )
            event = hint
        if want == "transaction" and sync:
            raise ConfigurationError(f"{name} is a plain `def`: annotate {parameter.name!r} as SyncTransaction")
        if want == "stages" and (sync or batch):
            raise ConfigurationError(f"{name}: Stages are for `async def` handlers of one message at a time")
        if want == "sync" and not sync:
            raise ConfigurationError(f"{name} is `async def`: annotate {parameter.name!r} as Transaction")
        wants.append(want)
    return wants, event
