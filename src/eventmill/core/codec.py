"""Events to JSON and back, for each kind of class that users write their events as."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from typing import Any, NamedTuple, cast, is_typeddict

import msgspec

from eventmill.core.errors import ConfigurationError

write_json: Callable[[Any], bytes] = msgspec.json.Encoder().encode
"""Any value that msgspec writes as JSON; it needs no type."""


class Codec(NamedTuple):
    """What was compiled for one class.

    fields: names that `key=` may give. item: fields are read as `event["field"]`, not as attributes.
    """

    fields: tuple[str, ...]
    item: bool
    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]


def codec_of(cls: type) -> Codec:
    """Compile the codec of a Struct, dataclass, attrs class, TypedDict or pydantic model.

    Anything else is refused with ConfigurationError, and so is a class whose fields JSON cannot hold.
    """
    # A class can only be pydantic's when that module is loaded, so it is never imported from here.
    pydantic: Any = sys.modules.get("pydantic.main")
    if pydantic is not None and issubclass(cls, pydantic.BaseModel):
        return _of_pydantic(cls)
    # Looked up in the class itself: a subclass that was not decorated has inherited its parent's fields.
    own = vars(cls)
    if "__pydantic_validator__" in own:
        raise ConfigurationError(
            f"{described(cls)} is a pydantic dataclass: make it a pydantic BaseModel or a standard dataclass"
        )
    if issubclass(cls, msgspec.Struct):
        return Codec(cls.__struct_fields__, False, write_json, _decoder(cls))
    if "__attrs_attrs__" in own:
        return Codec(tuple(field.name for field in own["__attrs_attrs__"]), False, write_json, _decoder(cls))
    if "__dataclass_fields__" in own:
        return Codec(
            tuple(field.name for field in dataclasses.fields(cast(Any, cls))), False, write_json, _decoder(cls)
        )
    if is_typeddict(cls):
        return Codec(tuple(cls.__annotations__), True, write_json, _decoder(cls))
    raise ConfigurationError(
        f"{described(cls)} is not an event class: derive it from Event, or make it a dataclass, attrs class, "
        "pydantic model or TypedDict, with @event(...) above (outside of) @dataclass or @define"
    )


def described(cls: type) -> str:
    """The class as errors name it: module and qualified name."""
    return f"{cls.__module__}.{cls.__qualname__}"


def _decoder(cls: type) -> Callable[[bytes], Any]:
    try:
        return msgspec.json.Decoder(cls).decode
    except NameError:
        # A field's type is defined further down in the module, or is the class itself.
        return _LateDecoder(cls)
    except TypeError as error:
        raise ConfigurationError(f"{described(cls)} cannot be read from JSON: {error}") from error


class _LateDecoder:
    """Compiles at the first use, when every name that the annotations mention exists."""

    __slots__ = ("_cls", "_decode")

    def __init__(self, cls: type) -> None:
        self._cls = cls
        self._decode: Callable[[bytes], Any] | None = None

    def __call__(self, data: bytes) -> Any:
        if self._decode is None:
            try:
                self._decode = msgspec.json.Decoder(self._cls).decode
            except (NameError, TypeError) as error:
                raise ConfigurationError(
                    f"{described(self._cls)} cannot be read from JSON: {error}; "
                    "define the types of its fields at module level"
                ) from error
        return self._decode(data)


def _of_pydantic(cls: Any) -> Codec:
    for name, field in cls.model_fields.items():
        written = field.serialization_alias or field.alias or name
        read = field.validation_alias or field.alias or name
        choices = getattr(read, "choices", None) or [read]
        by_name = cls.model_config.get("populate_by_name") or cls.model_config.get("validate_by_name")
        if written not in choices and not (by_name and written == name):
            raise ConfigurationError(
                f"{described(cls)}: field {name!r} is written as {written!r} but read as {read!r}; "
                "use alias= for both, so that what is published can be read"
            )

    def encode(event: Any) -> bytes:
        text: str = event.model_dump_json(by_alias=True)
        return text.encode()

    return Codec(tuple(cls.model_fields), False, encode, cls.model_validate_json)
