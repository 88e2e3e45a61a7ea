"""The keys of subjects, one each, as documents of the store; and what is sealed with them."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Mapping, Sequence

import msgspec

from eventmill.core.capabilities import Store, Transaction
from eventmill.core.clock import Clock
from eventmill.core.codec import write_json
from eventmill.core.document import ABSENT
from eventmill.core.errors import ConflictError, DecodeError
from eventmill.core.limits import check_text
from eventmill.core.message import Message, Recorded
from eventmill.core.personal import PersonalData, sealed_text
from eventmill.core.registry import Registry
from eventmill.patterns.privacy.cipher import Cipher

log = logging.getLogger("eventmill")

KEPT = 1.0
"""Seconds for which a key is held in memory: so long another process may go on reading what was forgotten in this one."""

MAX_SUBJECT_BYTES = 300

GONE = b""
"""What is left of a key: its subject was forgotten."""

_read = msgspec.json.Decoder().decode


class Vault:
    """Seals the personal fields of messages on their way to the store, and opens them on their way out.

    A subject's key is made when it is first needed. Forgetting a subject destroys the key, and with it the meaning of
    everything that was sealed with it, wherever a copy of it is.
    """

    def __init__(
        self, store: Store, clock: Clock, registry: Registry, random: Callable[[int], bytes] = secrets.token_bytes
    ) -> None:
        self._store = store
        self._clock = clock
        self._registry = registry
        self._random = random
        self._cipher: Cipher | None = None
        self._keys: dict[str, tuple[float, bytes]] = {}

    @property
    def cipher(self) -> Cipher:
        """Raises ConfigurationError where the library for it is missing."""
        if self._cipher is None:
            self._cipher = Cipher(self._random)
        return self._cipher

    async def seal(self, messages: Sequence[Message], unit: Transaction | None) -> list[Message]:
        """The messages with their personal fields sealed; see `Sealer`."""
        return [await self._sealed(message, unit) for message in messages]

    async def _sealed(self, message: Message, unit: Transaction | None) -> Message:
        kind = self._registry.personal.get(message.type)
        if kind is None:
            return message
        members, found = kind.parts(message.data)
        if not found:
            return message
        for field, subject in found:
            check_text(subject, f"{message.type}: the subject of {field}", MAX_SUBJECT_BYTES)
            key = await self._key(subject, unit)
            if key == GONE:
                members[field] = kind.redacted(field)
            else:
                context = _context(message.type, field, subject)
                members[field] = sealed_text(subject, self.cipher.seal(key, bytes(members[field]), context))
        return msgspec.structs.replace(message, data=write_json(members))

    async def open(self, kind: str, version: int, data: bytes) -> bytes:
        """The data with its personal fields readable, or redacted; see `Sealer`."""
        personal = self._registry.personal.get(kind)
        if personal is None:
            return data
        try:
            return await self._opened(personal, kind, version, data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise DecodeError(f"{kind} version {version} cannot be read: {error}") from error

    async def opened(self, record: Recorded) -> Recorded:
        """A record with its personal fields readable, or redacted."""
        message = record.message
        if message.type not in self._registry.personal:
            return record
        data = await self.open(message.type, message.version, message.data)
        return msgspec.structs.replace(record, message=msgspec.structs.replace(message, data=data))

    async def _opened(self, personal: PersonalData, kind: str, version: int, data: bytes) -> bytes:
        current = self._registry.by_name[kind].version
        members, sealed = personal.sealed(data, every=version != current)
        if not sealed:
            return data
        for field, (subject, text) in sealed.items():
            key = await self._known(subject)
            value = self.cipher.open(key, text, _context(kind, field, subject)) if key else None
            if key and value is None:
                log.warning("%s: %s of subject %s does not fit its key: redacted", kind, field, subject)
            members[field] = personal.redacted(field) if value is None else msgspec.Raw(value)
        return write_json(members)

    async def secrets(self, kind: str, version: int, data: bytes) -> Sequence[str]:
        """The personal values in the data, as texts; see `Sealer`."""
        personal = self._registry.personal.get(kind)
        if personal is None:
            return ()
        values = [_read(raw) for raw in personal.plain(await self.open(kind, version, data))]
        return [text for value in values for text in _texts(value)]

    async def forget(self, subject: str, unit: Transaction) -> bool:
        """Stage the end of a subject's key; returns False where that was its end already."""
        check_text(subject, "subject", MAX_SUBJECT_BYTES)
        stands = await unit.get(_key_of(subject))
        if stands is not None and stands.data == GONE:
            return False
        # Deleted first, so that the place where it was is overwritten, not only reused.
        unit.put(_key_of(subject), None, expected=None)
        unit.put(_key_of(subject), GONE, expected=None)
        return True

    def drop(self, subject: str) -> None:
        """Let a key go that is held in memory."""
        self._keys.pop(subject, None)

    async def _known(self, subject: str) -> bytes | None:
        """A subject's key as it is stored; GONE for one that was forgotten, None where there never was one."""
        now = self._clock.now()
        held = self._keys.get(subject)
        if held is not None and held[0] <= now < held[0] + KEPT:
            return held[1]
        document = await self._store.document(_key_of(subject))
        if document is None:
            return None
        if len(self._keys) >= 10_000:
            self._keys.clear()
        self._keys[subject] = (now, document.data)
        return document.data

    async def _key(self, subject: str, unit: Transaction | None) -> bytes:
        """A subject's key, made where there is none; GONE for one that was forgotten."""
        known = await self._known(subject)
        if known is not None:
            return known
        if unit is not None:
            # Made in the unit, it is there exactly if the message is. It is not held: the unit may yet be undone.
            return await self._made(subject, unit)
        try:
            async with self._store.transaction() as own:
                return await self._made(subject, own)
        except ConflictError:
            return await self._key(subject, None)

    async def _made(self, subject: str, unit: Transaction) -> bytes:
        document = await unit.get(_key_of(subject))
        if document is not None:
            return document.data
        key = self.cipher.key()
        unit.put(_key_of(subject), key, expected=ABSENT)
        return key


def _key_of(subject: str) -> str:
    return f"subject-key {subject}"


def _context(kind: str, field: str, subject: str) -> str:
    return f"{kind}\n{field}\n{subject}"


def _texts(value: object) -> list[str]:
    """A value, or what it is made of, as texts that could be found in an error's message."""
    if isinstance(value, Mapping):
        return [text for each in value.values() for text in _texts(each)]
    if isinstance(value, list):
        return [text for each in value for text in _texts(each)]
    return [] if value is None or isinstance(value, bool) else [str(value)]
