"""The public names: all there, sorted, and explained."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest

import eventmill

SOURCE = Path(eventmill.__file__).parent


def rank(name: str) -> tuple[int, str]:
    """Constants, then classes, then functions, each by the alphabet."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)


def documented_assignments() -> set[str]:
    """Module-level names of the package whose assignment is followed by a docstring."""
    found = set()
    for path in SOURCE.rglob("*.py"):
        body = ast.parse(path.read_text(encoding="utf-8")).body
        for statement, after in pairwise(body):
            if not (isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)):
                continue
            if isinstance(statement, ast.Assign):
                found |= {target.id for target in statement.targets if isinstance(target, ast.Name)}
            elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                found.add(statement.target.id)
    return found


def members(cls: type) -> Iterator[tuple[str, object]]:
    """The public methods and properties that a class of ours defines itself."""
    for name, value in vars(cls).items():
        function = value.__func__ if isinstance(value, classmethod | staticmethod) else value
        if not name.startswith("_") and (inspect.isfunction(function) or isinstance(function, property)):
            yield name, function


def test_all_is_sorted() -> None:
    assert list(eventmill.__all__) == sorted(eventmill.__all__, key=rank)


def test_all_is_complete() -> None:
    # Submodules become attributes of the package by being imported somewhere; `outbox` alone is meant to be used.
    names = {
        name
        for name, value in vars(eventmill).items()
        if not name.startswith("_") and (not isinstance(value, ModuleType) or name == "outbox")
    }
    assert names == set(eventmill.__all__)


@pytest.mark.parametrize("name", eventmill.__all__)
def test_public_name_is_explained(name: str) -> None:
    value = getattr(eventmill, name)
    if not (inspect.isclass(value) or inspect.isroutine(value) or inspect.ismodule(value)):
        assert name in documented_assignments(), f"{name}: write what it is in a string after its assignment"
        return
    text = value.__doc__ or ""
    assert text.strip(), f"{name} has no docstring"
    assert not text.startswith(f"{name}("), f"{name} has only the signature that @dataclass wrote"
    if inspect.isclass(value):
        silent = [member for member, function in members(value) if not (function.__doc__ or "").strip()]
        assert not silent, f"{name}: no docstring on {', '.join(silent)}"


def test_the_version_is_the_installed_one() -> None:
    lines = (SOURCE.parents[1] / "pyproject.toml").read_text(encoding="utf-8").splitlines()
    assert f'version = "{eventmill.__version__}"' in lines
