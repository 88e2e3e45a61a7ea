"""Aggregates: entities whose commands yield facts, and whose state is the fold of them."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar, dataclass_transform

import msgspec

from eventmill.core.branches import called
from eventmill.core.codec import described, write_json
from eventmill.core.entity import Decided, Entity, kinds_of, no_snapshots
from eventmill.core.errors import ConfigurationError
from eventmill.core.fingerprint import fingerprint
from eventmill.core.names import check_name
from eventmill.core.registry import REGISTRY, Registry
from eventmill.core.stream import StoredEvent

A = TypeVar("A", bound="Aggregate")

_OWN_FIELDS = ("id", "version")
_classes: dict[str, type[Aggregate]] = {}


class AggregateMeta(msgspec.StructMeta):
    """Takes the class keywords of `Aggregate`, and refuses at import what could not work."""

    _given: _Given

    def __new__(
        mcls,
        clsname: str,
        bases: tuple[type, ...],
        namespace: dict[str, Any],
        /,
        *,
        name: str | None = None,
        topic: str | None = None,
        events: Sequence[type] = (),
        snapshot_every: int | None = None,
        snapshot_version: int = 1,
    ) -> AggregateMeta:
        cls = super().__new__(mcls, clsname, bases, namespace, kw_only=True)
        if name is not None:
            given = _Given(
                check_name(name, "name"),
                name if topic is None else check_name(topic, "topic"),
                tuple(events),
                snapshot_every,
                snapshot_version,
            )
            _check(cls, given)
            cls._given = given
            _classes[name] = cls  # type: ignore[assignment]
        elif topic is not None or events or snapshot_every is not None or snapshot_version != 1:
            raise ConfigurationError(f"{described(cls)}: its keywords need name= beside them, such as name='order'")
        return cls


class _Given(msgspec.Struct, frozen=True):
    """The class keywords."""

    name: str
    topic: str
    events: tuple[type, ...]
    snapshot_every: int | None
    snapshot_version: int


@dataclass_transform(kw_only_default=True, field_specifiers=(msgspec.field,))
class Aggregate(msgspec.Struct, metaclass=AggregateMeta):
    """Base of entities that live from their events.

    The annotated fields are the state, each with a default: what it is before the first event, copied for each entity. A command is a
    generator method: it may refuse by raising, and yields facts. Each is folded in at the yield, so that the lines after it
    see it; what it returns is the command's value. `evolve` is the fold: it runs on every replay, and holds no rules.

        class Account(Aggregate, name="account"):
            balance: int = 0

            def deposit(self, amount: int) -> Iterator[Deposited]:
                if amount <= 0:
                    raise Refused("amount must be positive")
                yield Deposited(amount=amount)

            def evolve(self, event: Deposited) -> None:
                match event:
                    case Deposited(amount=amount):
                        self.balance += amount

    Class keywords: `name` is the aggregate's name. `topic` is that of its events, by default the name: the events
    of one aggregate are those of this topic with its id as their key. `events` are the types it lives from, where the
    annotation of `evolve` does not say it. `snapshot_every=N` stores the state after each N events, so that loading reads
    only what came after; 0 stores it only when asked (`app.snapshot`). `snapshot_version`: raise it where something that
    `evolve` calls outside of the class has changed; a change of the fields or of `evolve` itself is noticed.

    Refused at import with ConfigurationError: an event without a branch in `evolve`, an event of another topic, a name used
    twice, a field without a default, an `async` method.
    """

    id: str = ""
    """The entity's id: the key of its events."""
    version: int = 0
    """How many events the state is made of; 0 for an entity that does not exist yet."""

    def evolve(self, event: Any) -> None:
        """Take one fact into the state. Never refuses: what is in the log has happened."""
        raise NotImplementedError

    def restore(self, past: Any) -> Iterator[Any]:
        """The facts that make this state that of `past`, an earlier one: a command, for `app.revert`. Yours to write."""
        raise ConfigurationError(
            f"{described(type(self))} cannot be reverted: write `def restore(self, past)`, a command that yields the facts "
            "which lead from this state to that of `past`"
        )
        yield


class AggregateEntity(Entity[A]):
    """An Aggregate class, as event sourcing works on it."""

    def __init__(self, cls: type[A], registry: Registry) -> None:
        given: _Given | None = vars(cls).get("_given")
        if given is None:
            raise ConfigurationError(f'{described(cls)} has no name: write class …(Aggregate, name="order")')
        self.cls = cls
        self.name = given.name
        self.topic = given.topic
        self.snapshot_every = given.snapshot_every
        self.kinds = _kinds(cls, given, registry)
        self.fields = [field for field in cls.__struct_fields__ if field not in _OWN_FIELDS]
        self._registry = registry
        self._snapshot_version = given.snapshot_version
        self._fingerprint: str | None = None
        self._decoder: msgspec.json.Decoder[A] | None = None
        self._shared = _shared(cls, self.fields)
        self._commands = {each for base in cls.__mro__ for each in vars(base).values() if inspect.isfunction(each)}

    def __repr__(self) -> str:
        return described(self.cls)

    def new(self, id_: str) -> A:
        state = self.cls(id=id_)
        for field, default in self._shared.items():
            setattr(state, field, copy.deepcopy(default))
        return state

    def version(self, state: A) -> int | None:
        return state.version

    def fold(self, state: A, events: Iterable[StoredEvent]) -> A:
        kinds = self.kinds
        evolve = state.evolve
        for version, type_, schema, data, _ in events:
            kind = kinds.get(type_) or self.known(type_)
            if kind is not None:
                try:
                    evolve(kind.decode(data, schema))
                except Exception as error:
                    error.add_note(f"while {self.name} {state.id} was folded, at version {version}")
                    raise
            state.version = version
        return state

    def decide(self, state: A, arguments: Sequence[Any], named: Mapping[str, Any]) -> Decided:
        if not arguments:
            raise ConfigurationError(f"{self.name}: say which command: app.execute({self.cls.__name__}, id, …)")
        command, *rest = arguments
        if not inspect.isgeneratorfunction(command):
            raise ConfigurationError(
                f"{getattr(command, '__qualname__', command)!s} is no command: a command is a generator method, "
                f"given as {self.cls.__name__}.name; it yields events"
            )
        if command not in self._commands and _method(command):
            raise ConfigurationError(
                f"{command.__qualname__} is no command of {self.cls.__name__}, but of another class"
            )
        return self._run(state, command(state, *rest, **named))

    def restoring(self, state: A, past: A) -> Decided:
        return self._run(state, state.restore(past))

    def _run(self, state: A, facts: Iterator[Any]) -> Decided:
        events: list[object] = []
        while True:
            try:
                event = next(facts)
            except StopIteration as stop:
                return Decided(events, stop.value)
            self.check(event)
            state.evolve(event)
            state.version += 1
            events.append(event)

    def fingerprint(self) -> str:
        if self._fingerprint is None:
            self._fingerprint = fingerprint(self.cls, _folding(self.cls), self._snapshot_version)
        return self._fingerprint

    def restore(self, data: bytes) -> A:
        if self._decoder is None:
            self._decoder = msgspec.json.Decoder(self.cls)
        return self._decoder.decode(data)


def _check(cls: Any, given: _Given) -> None:
    other = _classes.get(given.name)
    if other is not None and described(other) != described(cls):
        raise ConfigurationError(
            f"name={given.name!r} is used by both {described(other)} and {described(cls)}: give one another name"
        )
    where = described(cls)
    try:
        state = cls()
    except TypeError as error:
        raise ConfigurationError(
            f"{where}: {error}: give each field a default, the state before the first event"
        ) from error
    if given.snapshot_every is not None and given.snapshot_every < 0:
        raise ConfigurationError(f"{where}: snapshot_every={given.snapshot_every}: give a number of events, or 0")
    if cls.evolve is Aggregate.evolve:
        raise ConfigurationError(
            f"{where} has no evolve: write `def evolve(self, event)`, with a branch for each event"
        )
    for name, method in inspect.getmembers(cls, inspect.isfunction):
        if inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(method):
            raise ConfigurationError(
                f"{where}.{name} is async: a command is a plain generator that decides on what it is given; "
                "do the waiting before it"
            )
    if given.snapshot_every is not None:
        try:
            write_json(state)
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"{where}: snapshot_every= needs a state that JSON can hold: {error}") from error
    try:
        _kinds(cls, given, REGISTRY)
    except NameError:
        # An event that is defined further down: looked at again when the aggregate is first used.
        return


def _shared(cls: type[Aggregate], fields: Sequence[str]) -> Mapping[str, Any]:
    """Defaults that all instances of the class have in common and that could be changed in place."""
    one, other = cls(), cls()
    common = {field: getattr(one, field) for field in fields if getattr(one, field) is getattr(other, field)}
    return {field: default for field, default in common.items() if copy.deepcopy(default) is not default}


def _kinds(cls: type[Aggregate], given: _Given, registry: Registry) -> Mapping[str, Any]:
    commands = [method for _, method in inspect.getmembers(cls, inspect.isgeneratorfunction)]
    kinds = kinds_of(
        given.name,
        given.topic,
        registry,
        declared=given.events,
        evolve=cls.evolve,
        folding=_folding(cls),
        deciding=commands,
    )
    no_snapshots(given.name, kinds, given.snapshot_every)
    return kinds


def _method(function: Callable[..., Any]) -> bool:
    """Whether a function was written in a class."""
    return function.__qualname__.rpartition(".")[0].rpartition(".")[2] not in ("", "<locals>")


def _folding(cls: type[Aggregate]) -> list[Callable[..., Any]]:
    """`evolve` of the class and of those it inherits from, and the methods that they call."""
    found: dict[str, list[Callable[..., Any]]] = {}
    waiting = ["evolve"]
    while waiting:
        name = waiting.pop()
        if name not in found:
            ours = [base for base in cls.__mro__ if base not in (Aggregate, msgspec.Struct, object)]
            found[name] = [vars(base)[name] for base in ours if inspect.isfunction(vars(base).get(name))]
            for function in found[name]:
                waiting += [each for each in called(function) if inspect.isfunction(getattr(cls, each, None))]
    return [function for functions in found.values() for function in functions]
