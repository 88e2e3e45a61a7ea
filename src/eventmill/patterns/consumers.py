"""Competing consumers: from what the user writes to what a subscription needs."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal, get_args

from eventmill.core.capabilities import Capability
from eventmill.core.checks import check_number, check_seconds
from eventmill.core.errors import CapabilityError, ConfigurationError
from eventmill.core.event import Event
from eventmill.core.message import Message
from eventmill.core.reading import Types
from eventmill.core.registry import Registry
from eventmill.core.retry import RetryPolicy, check_policy, exponential
from eventmill.runtime.consumer import Consumer
from eventmill.runtime.handler import Handler
from eventmill.runtime.resequencing import ResequencePolicy

_PLAIN = (bool, int, float, str, bytes)
"""Annotations that no event has."""

_PATTERN = re.compile(r"^(\*|([a-z0-9_-]+\.)+\*|[a-z0-9_-]+(\.[a-z0-9_-]+)*)$")


def consumer(
    function: Callable[..., Any],
    wanted: Sequence[object],
    *,
    registry: Registry,
    group: str,
    where: Callable[[Message], bool] | None = None,
    retry: RetryPolicy | None = None,
    concurrency: int = 8,
    batch: int | None = None,
    on_dead: Literal["park", "skip"] = "park",
    timeout: float | None = None,
    resequence: ResequencePolicy | None = None,
    replay: bool = False,
    prefetch: int | None = None,
) -> Consumer:
    """What `@app.on` makes of a function; see there for the meaning of each option."""
    name = function.__qualname__
    check_number(concurrency, name, "concurrency")
    if batch is not None:
        check_number(batch, name, "batch")
    if retry is not None:
        check_policy(retry, name)
    if on_dead not in ("park", "skip"):
        raise ConfigurationError(f"{name}: on_dead={on_dead!r}; choose 'park' or 'skip'")
    if timeout is not None:
        check_seconds(timeout, name, "timeout")
    handler = Handler(function, registry, batch=batch is not None)
    _check_annotation(handler, wanted)
    types = types_wanted(name, wanted or annotated_types(handler), registry)
    return Consumer(
        group=group,
        types=types,
        topics=topics_of(types, registry),
        handler=handler,
        where=where,
        retry=retry or exponential(),
        concurrency=concurrency,
        batch=batch,
        prefetch=prefetch or 0,
        timeout=timeout,
        on_dead=on_dead,
        resequence=resequence,
        needs=Capability.LOG if replay else Capability.SUBSCRIBER,
    )


def with_parentheses(decorator: str, *given: object) -> None:
    """Refuse a decorator that was written without its parentheses, and so was given the function itself."""
    for each in given:
        if inspect.isfunction(each):
            raise ConfigurationError(f"{each.__qualname__}: write @app.{decorator}(...) above it, with the parentheses")


def _check_annotation(handler: Handler, wanted: Sequence[object]) -> None:
    """Refuse a handler of events of one class that is annotated with another; of names and patterns nothing is known."""
    annotation = handler.event_class
    if not (isinstance(annotation, type) and (annotation in _PLAIN or issubclass(annotation, Event))):
        return
    mistaken = [want for want in wanted if isinstance(want, type) and not issubclass(want, annotation)]
    if mistaken and len(mistaken) == len(wanted):
        raise ConfigurationError(
            f"{handler.name} handles {' and '.join(want.__name__ for want in mistaken)}, but its parameter is annotated as "
            f"{annotation.__name__}: make them the same"
        )


def check_needs(consumers: Sequence[Consumer], offers: Collection[Capability], broker: str) -> None:
    """Raise CapabilityError where a handler needs what the broker cannot do, naming both, and who can."""
    for each in consumers:
        if each.needs not in offers and not each.own:
            raise CapabilityError(
                f"{each.group}: {each.handler.name} needs a {each.needs}, to read from its beginning (replay=True, or "
                f"a projection); {broker} offers {', '.join(sorted(offers))}. Use kafka://, postgresql:// or sqlite:/// "
                "as the broker, keep what a projection reads in the service's own log with app.record(...), or let a "
                "handler without replay= begin with what is published after it"
            )


def annotated_types(handler: Handler) -> Sequence[object]:
    """The event types the handler's own annotation names: `event: OrderPlaced | OrderPaid`."""
    return get_args(handler.event_class) or ([handler.event_class] if handler.event_class is not None else [])


def types_wanted(name: str, wanted: Sequence[object], registry: Registry) -> Types | None:
    """What event types, names and patterns come to; None for all. name: how errors call who wants them."""
    names: set[str] = set()
    prefixes: set[str] = set()
    everything = False
    for want in wanted:
        if not isinstance(want, str):
            if not isinstance(want, type):
                raise ConfigurationError(f"{name}: {want!r} is neither an event type nor a name pattern")
            names.add(registry.type_for(want).name)
        elif not _PATTERN.match(want):
            raise ConfigurationError(f"{name}: {want!r} is no name pattern; write 'order.placed', 'order.*' or '*'")
        elif want == "*":
            everything = True
        elif want.endswith(".*"):
            prefixes.add(want[:-1])
        else:
            names.add(want)
    if not (names or prefixes or everything):
        raise ConfigurationError(
            f"{name}: say what it handles: @app.on(OrderPlaced), @app.on('order.*') or an annotation"
        )
    return None if everything else Types(frozenset(names), frozenset(prefixes))


def topics_of(types: Types | None, registry: Registry) -> Callable[[Mapping[str, int]], frozenset[str]]:
    """Where messages of these types are: the topics their types declare, else the name up to its first dot."""

    def topics(present: Mapping[str, int]) -> frozenset[str]:
        if types is None:
            return frozenset(present)
        found = {prefix.split(".", 1)[0] for prefix in types.prefixes}
        for name in types.names:
            kind = registry.named(name)
            found.add(kind.topic if kind is not None else name.split(".", 1)[0])
        for kind in registry.types.values():
            if types.accepts(kind.name):
                found.add(kind.topic)
        return frozenset(found)

    return topics
