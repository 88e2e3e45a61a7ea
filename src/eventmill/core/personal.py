"""Personal data in events: which fields are whose, and how a field looks that cannot, or can no longer, be read."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Mapping, Sequence
from typing import Annotated, Any, NamedTuple, Protocol, get_type_hints, is_typeddict

import msgspec

from eventmill.core.capabilities import Transaction
from eventmill.core.codec import described, write_json
from eventmill.core.errors import ConfigurationError, EncodeError
from eventmill.core.message import Message

FORGOTTEN = "[forgotten]"
"""What stands in place of a text whose subject was forgotten."""

_PREFIX = "[sealed:"
_SEALED = b'"' + _PREFIX.encode()
_read = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_read_text = msgspec.json.Decoder(str).decode
_read_subject = msgspec.json.Decoder(str | int).decode


class Personal(msgspec.Struct, frozen=True):
    """A field that is personal to somebody.

    subject: the field that says to whom. redacted: what is read when the subject was forgotten; by default
    "[forgotten]" where the field may hold a text, else None where it may hold that.
    """

    subject: str
    redacted: Any = msgspec.UNSET


PersonalFields = Mapping[str, "str | Personal"]
"""How a type names them: each field with the field that says whose it is, or with a `Personal`."""


class Sealed(NamedTuple):
    """A value in its sealed form: whose it is, which field it was stored as, and the cipher text."""

    subject: str
    cipher: str


class Sealer(Protocol):
    """Whoever holds the keys."""

    def seal(self, messages: Sequence[Message], unit: Transaction | None) -> Awaitable[list[Message]]:
        """The messages with their personal fields sealed. New keys are made in `unit`, or in a commit of their own."""
        ...

    def open(self, kind: str, version: int, data: bytes) -> Awaitable[bytes]:
        """The data of an event with its personal fields readable, or redacted where they no longer are. Never raises
        for a value that cannot be opened."""
        ...

    def secrets(self, kind: str, version: int, data: bytes) -> Awaitable[Sequence[str]]:
        """The personal values in an event's data, as the texts that they would appear as elsewhere."""
        ...


class PersonalData:
    """The personal fields of one event type, by their names in JSON."""

    __slots__ = ("_fields", "_name")

    def __init__(self, given: PersonalFields, cls: type, *, name: str, fields: Sequence[str]) -> None:
        self._name = name
        wire = _wire_names(cls, fields)
        self._fields: dict[str, tuple[str, bytes]] = {}
        for field, said in given.items():
            personal = said if isinstance(said, Personal) else Personal(said)
            for each, what in ((field, "is no field"), (personal.subject, "is to name a subject, and is no field")):
                if each not in fields:
                    raise ConfigurationError(f"{name}: personal: {each!r} {what}; its fields are {', '.join(fields)}")
            if field == personal.subject or personal.subject in given:
                raise ConfigurationError(
                    f"{name}: personal: {personal.subject!r} says whose data it is, so it is stored as it is: "
                    "let an id be the subject, not a name or an address"
                )
            self._fields[wire[field]] = (wire[personal.subject], write_json(_redacted(cls, field, personal, name)))

    def parts(self, data: bytes) -> tuple[dict[str, msgspec.Raw], list[tuple[str, str]]]:
        """An event's members, and which of them are to be sealed for whom. Raises EncodeError without a subject."""
        members = _read(data)
        found = []
        for field, (subject, _) in self._fields.items():
            raw = bytes(members.get(field, b"null"))
            if raw != b"null" and not raw.startswith(
                _SEALED
            ):  # which a message that is only passed on has been already
                try:
                    found.append((field, str(_read_subject(members[subject]))))
                except (KeyError, msgspec.DecodeError) as error:
                    raise EncodeError(
                        f"{self._name}: {field} is personal to {subject}, which is no text and no number here"
                    ) from error
        return members, found

    def redacted(self, field: str) -> msgspec.Raw:
        """What stands for a field that cannot be read; one of an older version is a text."""
        known = self._fields.get(field)
        return msgspec.Raw(write_json(FORGOTTEN) if known is None else known[1])

    def sealed(self, data: bytes, *, every: bool) -> tuple[dict[str, msgspec.Raw], dict[str, Sealed]]:
        """An event's members, and those of them that are sealed. every: also fields that the type has no more."""
        members = _read(data)
        found = {}
        for field in members if every else self._fields:
            raw = members.get(field)
            if raw is not None and bytes(raw).startswith(_SEALED):
                text = _read_text(raw)
                cipher, colon, subject = text.removeprefix(_PREFIX).removesuffix("]").partition(":")
                if colon:
                    found[field] = Sealed(subject, cipher)
        return members, found

    def plain(self, data: bytes) -> list[bytes]:
        """The values of its fields in data that is readable."""
        members = _read(data)
        return [bytes(members[field]) for field in self._fields if field in members]


def sealed_text(subject: str, cipher: str) -> msgspec.Raw:
    """A sealed value as JSON."""
    return msgspec.Raw(write_json(f"{_PREFIX}{cipher}:{subject}]"))


def _wire_names(cls: Any, fields: Sequence[str]) -> Mapping[str, str]:
    """What each field is called in JSON."""
    if issubclass(cls, msgspec.Struct):
        return dict(zip(cls.__struct_fields__, cls.__struct_encode_fields__, strict=True))
    pydantic: Any = sys.modules.get("pydantic.main")
    if pydantic is not None and issubclass(cls, pydantic.BaseModel):
        return {name: field.serialization_alias or field.alias or name for name, field in cls.model_fields.items()}
    return {field: field for field in fields}


def _redacted(cls: Any, field: str, personal: Personal, name: str) -> Any:
    """What may stand for the field, tried on its type."""
    given = personal.redacted is not msgspec.UNSET
    for value in [personal.redacted] if given else [FORGOTTEN, None]:
        if _accepts(cls, field, value, name):
            return value
    said = repr(personal.redacted) if given else f"neither {FORGOTTEN!r} nor None"
    raise ConfigurationError(
        f"{name}: personal: {field} may not hold {said}, so nothing could be read once its subject was forgotten: "
        f'personal={{"{field}": Personal("{personal.subject}", redacted=…)}} with a value that it may hold'
    )


def _accepts(cls: Any, field: str, value: Any, name: str) -> bool:
    pydantic: Any = sys.modules.get("pydantic.main")
    try:
        if pydantic is not None and not is_typeddict(cls) and issubclass(cls, pydantic.BaseModel):
            info = cls.model_fields[field]
            hint = Annotated[(info.annotation, *info.metadata)] if info.metadata else info.annotation
            sys.modules["pydantic"].TypeAdapter(hint).validate_python(value)
        else:
            msgspec.convert(value, get_type_hints(cls, include_extras=True)[field])
    except NameError as error:
        raise ConfigurationError(
            f"{name}: personal: the type of {described(cls)}.{field} is not defined yet ({error}): define it above"
        ) from error
    except (ValueError, TypeError):
        return False
    return True
