"""Numbered, forward-only migrations, each remembered with the checksum of its text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import files

from eventmill.core.errors import SchemaVersionError

_FILE = re.compile(r"^(\d{4})_\w+\.sql$")


@dataclass(frozen=True, slots=True)
class Migration:
    """One step of the schema."""

    version: int
    name: str
    text: str
    statements: Sequence[str]
    """The text in parts, where no statement of it contains a semicolon at the end of a line."""
    checksum: str


def load(package: str) -> list[Migration]:
    """The migrations of a package folder, in order."""
    found = []
    for entry in files(package).iterdir():
        if match := _FILE.match(entry.name):
            text = entry.read_text(encoding="utf-8")
            statements = [part.strip() for part in text.split(";\n") if part.strip()]
            checksum = sha256(text.encode()).hexdigest()
            found.append(Migration(int(match[1]), entry.name, text, statements, checksum))
    return sorted(found, key=lambda migration: migration.version)


def pending(known: Iterable[Migration], applied: Mapping[int, str], where: str) -> list[Migration]:
    """Those of the known migrations that `applied` (version to checksum) lacks.

    Raises SchemaVersionError when the database is ahead of the code, or was built by other texts.
    """
    steps = {migration.version: migration for migration in known}
    for version, checksum in applied.items():
        if version not in steps:
            raise SchemaVersionError(
                f"{where} has schema version {version}, this eventmill knows up to {max(steps)}: "
                "upgrade eventmill, or use another database"
            )
        if steps[version].checksum != checksum:
            raise SchemaVersionError(
                f"{where}: schema step {steps[version].name} was applied with another text (checksum differs): "
                "this database was made by a different build; restore it or use another one"
            )
    return [migration for version, migration in sorted(steps.items()) if version not in applied]
