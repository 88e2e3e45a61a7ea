"""A function's arguments as JSON, checked against its annotations when they are sent and when they are read."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from eventmill.core.codec import write_json
from eventmill.core.errors import ConfigurationError, DecodeError, EncodeError
from eventmill.core.message import Message
from eventmill.patterns.tasks.context import TaskContext
from eventmill.runtime.handler import Context
from eventmill.runtime.transaction import SyncTransaction, Transaction

INJECTED: Mapping[object, str] = {
    Transaction: "transaction",
    SyncTransaction: "sync",
    Context: "context",
    TaskContext: "context",
    Message: "message",
}
"""Parameters of these types are given by the worker; all others are the task's arguments."""


class Arguments:
    """What a function takes: what its caller gives, and what the worker gives.

    wants: one entry a parameter, in order: the name of an argument, or what of INJECTED it is, with a leading `@`.
    keywords: the last of the parameters, where they can only be given by their names.
    """

    def __init__(self, function: Callable[..., Any], name: str) -> None:
        self._name = name
        try:
            hints = typing.get_type_hints(function, include_extras=True)
        except NameError as error:
            raise ConfigurationError(
                f"task {name}: an annotation cannot be resolved: {error}; import the name it uses"
            ) from error
        self.wants: list[str] = []
        self.keywords: list[str] = []
        fields: list[tuple[str, Any] | tuple[str, Any, Any]] = []
        for parameter in inspect.signature(function).parameters.values():
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
                raise ConfigurationError(
                    f"task {name}: parameter {parameter.name!r} must be a plain one that can be given by its name"
                )
            if parameter.kind is parameter.KEYWORD_ONLY:
                self.keywords.append(parameter.name)
            hint = hints.get(parameter.name, Any)
            given = INJECTED.get(hint) if isinstance(hint, type) else None
            if given is not None:
                self.wants.append(f"@{given}")
                continue
            self.wants.append(parameter.name)
            _refuse_foreign(name, parameter.name, hint)
            if parameter.default is parameter.empty:
                fields.append((parameter.name, hint))
            else:
                fields.append((parameter.name, hint, msgspec.field(default_factory=_constant(parameter.default))))
        self.names = [field[0] for field in fields]
        self._empty = not fields
        try:
            struct = msgspec.defstruct("Arguments", fields, kw_only=True, forbid_unknown_fields=True)
            self._decode = msgspec.json.Decoder(struct).decode
        except (TypeError, NameError) as error:
            raise ConfigurationError(f"task {name}: its arguments cannot be read from JSON: {error}") from error

    def encode(self, positional: Sequence[object], named: Mapping[str, object]) -> bytes:
        """The arguments of a call as JSON. Raises EncodeError, naming the argument, where they do not fit the annotations."""
        if self._empty and not positional and not named:
            return b"{}"
        if len(positional) > len(self.names):
            raise EncodeError(f"task {self._name} takes {len(self.names)} arguments, and was given {len(positional)}")
        values = dict(zip(self.names, positional, strict=False))
        for argument, value in named.items():
            if argument in values:
                raise EncodeError(f"task {self._name}: argument {argument!r} was given twice")
            values[argument] = value
        try:
            data = write_json(values)
            self._decode(data)
        except MemoryError:
            raise
        except Exception as error:
            raise EncodeError(f"task {self._name}: {_told(error)}") from error
        return data

    def decode(self, data: bytes) -> Any:
        """An object with the arguments as attributes. Raises DecodeError, naming the argument."""
        try:
            return self._decode(data)
        except MemoryError:
            raise
        except Exception as error:
            raise DecodeError(f"task {self._name}: {_told(error)}") from error

    @property
    def none(self) -> bool:
        """Whether there is nothing to give: neither by the caller nor by the worker."""
        return not self.wants


def _told(error: Exception) -> str:
    """msgspec names the place as `$.order_id`."""
    return str(error).replace("`$.", "`").replace("Object ", "the call ").replace(" field ", " argument ")


def _constant(value: object) -> Callable[[], object]:
    return lambda: value


def _refuse_foreign(name: str, argument: str, hint: object) -> None:
    """Types that JSON and msgspec know nothing of would only fail at the first call."""
    try:
        found = msgspec.inspect.type_info(hint)
    except Exception as error:
        raise ConfigurationError(f"task {name}: argument {argument!r} cannot be written as JSON: {error}") from error
    if isinstance(found, msgspec.inspect.CustomType):
        raise ConfigurationError(
            f"task {name}: argument {argument!r} is of {found.cls.__qualname__}, which JSON does not hold; "
            "give an id, or a dataclass, Struct or TypedDict of plain fields"
        )
