"""One value, sealed with one key: AES-256-GCM."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from typing import Any

from eventmill.core.errors import ConfigurationError

KEY_BYTES = 32
NONCE_BYTES = 12


class Cipher:
    """random: makes so many random bytes. Raises ConfigurationError where `cryptography` is not installed."""

    def __init__(self, random: Callable[[int], bytes]) -> None:
        try:
            from cryptography.exceptions import InvalidTag
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        except ImportError as error:
            raise ConfigurationError(
                "events with personal fields need cryptography, which is not installed; run: "
                "pip install 'eventmill[privacy]'"
            ) from error
        self._random = random
        self._aes: Callable[[bytes], Any] = AESGCM
        self._invalid: type[Exception] = InvalidTag

    def key(self) -> bytes:
        """A new key."""
        return self._random(KEY_BYTES)

    def seal(self, key: bytes, value: bytes, context: str) -> str:
        """The value as text. context: what it belongs to, so that it cannot be put anywhere else."""
        nonce = self._random(NONCE_BYTES)
        return urlsafe_b64encode(nonce + self._aes(key).encrypt(nonce, value, context.encode())).decode()

    def open(self, key: bytes, text: str, context: str) -> bytes | None:
        """The value, or None where it was not sealed with this key, for this."""
        try:
            sealed = urlsafe_b64decode(text)
            opened: bytes = self._aes(key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], context.encode())
        except (ValueError, self._invalid):
            return None
        return opened
