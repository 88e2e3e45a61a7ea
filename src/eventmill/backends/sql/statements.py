"""SQL lives in `.sql` files, each statement under a name: `-- name: append`, then what it does, then the SQL."""

from __future__ import annotations

import re
from importlib.resources import files

_HEAD = re.compile(r"^-- (name|part): (\w+)\s*$", re.MULTILINE)


def load(package: str, file: str) -> dict[str, str]:
    """The statements of a file by their names. What is headed `-- part: NAME` stands in for `{NAME}` in those after it."""
    text = files(package).joinpath(file).read_text(encoding="utf-8")
    pieces = _HEAD.split(text)[1:]
    parts: dict[str, str] = {}
    statements: dict[str, str] = {}
    for kind, name, body in zip(pieces[::3], pieces[1::3], pieces[2::3], strict=True):
        whole = body.strip().rstrip(";")
        for part, its_text in parts.items():
            whole = whole.replace(f"{{{part}}}", its_text)
        (parts if kind == "part" else statements)[name] = whole
    return statements
