"""Old payloads to new ones: a chain of functions, each from one version of a type to the next."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from eventmill.core.codec import write_json
from eventmill.core.errors import ConfigurationError, DecodeError
from eventmill.core.names import check_name

Upcaster = Callable[[dict[str, Any]], dict[str, Any]]
"""The payload of one version as a dict, to that of the next version."""

_read_object = msgspec.json.Decoder(dict[str, Any]).decode


class Upcasters:
    """Every upcaster, by the name of the type and the version it starts from."""

    def __init__(self) -> None:
        self._steps: dict[tuple[str, int], Upcaster] = {}

    def add(self, name: str, from_version: int, step: Upcaster) -> None:
        """Keep a step. A second one for the same place is refused, unless a reloaded module defines it again."""
        check_name(name, "name")
        check_version(from_version, "from_version")
        known = self._steps.get((name, from_version))
        if known is not None and _place(known) != _place(step):
            raise ConfigurationError(
                f"two upcasters for {name} from version {from_version}: {_place(known)} and {_place(step)}; remove one"
            )
        self._steps[name, from_version] = step

    def raised(self, name: str, data: bytes, stored: int, wanted: int) -> bytes:
        """The payload as JSON of version `wanted`.

        Raises DecodeError where a step is missing or fails, and where the payload is newer than the code.
        """
        if stored > wanted:
            raise DecodeError(
                f"{name} was stored as version {stored}, but this code knows version {wanted}: deploy the newer code"
            )
        if stored < 1:
            raise DecodeError(f"{name}: version {stored} does not exist; versions start at 1")
        missing = [version for version in range(stored, wanted) if (name, version) not in self._steps]
        if missing:
            raise DecodeError(
                f"{name} was stored as version {stored}, the code wants version {wanted}, and the step from version "
                f"{missing[0]} is missing: write a function with @upcast({name!r}, from_version={missing[0]})"
            )
        try:
            payload = _read_object(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise DecodeError(f"{name} version {stored} cannot be read: {error}") from error
        for version in range(stored, wanted):
            step = self._steps[name, version]
            where = f"upcaster {_place(step)} of {name} from version {version}"
            try:
                payload = step(payload)
            except MemoryError:
                raise
            except Exception as error:
                raise DecodeError(f"{where} failed: {type(error).__name__}: {error}") from error
            if not isinstance(payload, dict):
                raise DecodeError(f"{where} returned {type(payload).__name__}: return the dict of the next version")
        try:
            return write_json(payload)
        except Exception as error:
            raise DecodeError(f"{name}: its upcasters returned what JSON cannot hold: {error}") from error


def check_version(version: object, what: str) -> None:
    """Refuse a version that is not a whole number from 1 on."""
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise ConfigurationError(f"{what}={version!r}: give a whole number from 1 on")


def _place(step: Upcaster) -> str:
    return f"{step.__module__}.{getattr(step, '__qualname__', type(step).__qualname__)}"
