"""Documents: keyed values that are compared before they are set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from eventmill.core.document import ABSENT, Document
from eventmill.core.errors import ConflictError


@dataclass(frozen=True, slots=True)
class Put:
    """One staged write; data None deletes, expected None overwrites."""

    key: str
    data: bytes | None
    expected: int | None


class MemoryDocuments:
    """All documents of one store."""

    def __init__(self) -> None:
        self._stored: dict[str, Document] = {}

    def seen(self, key: str, puts: Sequence[Put]) -> Document | None:
        """The document as a unit with these staged writes sees it."""
        return self._after([put for put in puts if put.key == key]).get(key, self._stored.get(key))

    def listed(self, prefix: str, after: str, limit: int) -> Sequence[Document]:
        """Those of a prefix, beyond a key, in order."""
        keys = sorted(key for key in self._stored if key.startswith(prefix) and key > after)
        return [self._stored[key] for key in keys[:limit]]

    def checked(self, puts: Sequence[Put]) -> Mapping[str, Document | None]:
        """What the writes make of each document. Raises ConflictError where another version is found."""
        return self._after(puts, check=True)

    def _after(self, puts: Sequence[Put], *, check: bool = False) -> dict[str, Document | None]:
        changed: dict[str, Document | None] = {}
        for put in puts:
            found = changed.get(put.key) if put.key in changed else self._stored.get(put.key)
            version = found.version if found else ABSENT
            if check and put.expected is not None and put.expected != version:
                raise ConflictError(
                    f"document {put.key!r}", expected=put.expected, actual=found.version if found else None
                )
            changed[put.key] = None if put.data is None else Document(put.key, version + 1, put.data)
        return changed

    def write(self, changed: Mapping[str, Document | None]) -> None:
        for key, document in changed.items():
            if document is None:
                self._stored.pop(key, None)
            else:
                self._stored[key] = document
