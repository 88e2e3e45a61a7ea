"""The house: who may import whom, and what the core must not do. Read from the sources, nothing is imported."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = "eventmill"
SOURCE = Path(__file__).resolve().parents[1] / "src" / PACKAGE

LONGEST_FILE = 400

MAY_IMPORT: dict[str, set[str]] = {
    "core": {"core"},
    "settings": {"core"},
    "runtime": {"core", "runtime"},
    "patterns": {"core", "runtime", "patterns", "settings"},
    "backends.sql": {"core", "backends.sql"},
    "backends.url": {"core"},
    "backends.memory": {"core", "backends.url", "backends.memory"},
    "backends.sqlite": {"core", "backends.url", "backends.sql", "backends.sqlite"},
    "backends.kafka": {"core", "backends.url", "backends.kafka"},
    "backends.rabbitmq": {"core", "backends.url", "backends.rabbitmq"},
    "backends.postgres": {"core", "backends.url", "backends.sql", "backends.postgres"},
    # From a URL to a backend. It loads them by name, since their drivers may be missing.
    "backends.connect": {"core", "backends.url"},
    "backends": set(),
    "app": {"core", "runtime", "patterns", "backends.connect", "settings"},
    "outbox": {"patterns"},
    "sync": {"core", "runtime", "patterns", "app"},
    "testing": {
        "core", "runtime", "patterns", "settings", "app", "sync", "testing",
        "backends.connect", "backends.memory", "backends.sqlite",
    },
    "cli": {
        "", "core", "runtime", "patterns", "settings", "app", "sync", "cli",
        "backends.url", "backends.connect", "backends.memory", "backends.sqlite",
    },
    "__main__": {"cli"},
    # The public names.
    "": {"core", "runtime", "patterns", "app", "outbox", "settings", "sync"},
}  # fmt: skip
"""Each layer, and the layers it may import; the first ones stand lowest. The package itself is ''."""

EXCEPTIONS = {
    # It writes through connections that are the user's own, so it has to know the tables of their kind of database.
    ("eventmill.patterns.outbox", "eventmill.backends.sqlite.foreign"),
    ("eventmill.patterns.outbox", "eventmill.backends.sqlite.schema"),
    ("eventmill.patterns.foreign_connections", "eventmill.backends.sqlite.foreign"),
    ("eventmill.patterns.foreign_connections", "eventmill.backends.postgres.foreign"),
}

DEPENDENCIES = {"msgspec", "click"}
OPTIONAL = {"cronsim", "sqlalchemy", "pydantic", "attr", "attrs", "psycopg", "cryptography"}
"""Third-party packages that may be missing: imported for types only, or inside functions."""

DRIVERS = {
    "backends.kafka": {"confluent_kafka"},
    "backends.postgres": {"psycopg"},
    "backends.rabbitmq": {"pamqp"},
}
"""What a backend's own package may import: it is loaded only for a URL of its kind."""

PURE = {"time", "os", "socket", "threading", "secrets", "subprocess", "signal", "sqlite3", "pathlib", "tempfile", "io"}
"""Modules through which the core would reach the world outside."""

OUTWARD = {
    # Time and chance, for everybody to be handed.
    ("eventmill.core.clock", "time"),
    ("eventmill.core.clock", "os"),
    # Registers to be told of a fork, and asks nothing.
    ("eventmill.core.fork", "os"),
}


@dataclass(frozen=True)
class Import:
    """One imported module: where, whether inside a function, whether for types only."""

    module: str
    line: int
    nested: bool
    typing_only: bool


@cache
def modules() -> dict[str, ast.Module]:
    """Every module of the package by its dotted name."""
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    return found


def is_package(name: str) -> bool:
    return SOURCE.parent.joinpath(*name.split("."), "__init__.py").is_file()


def layer_of(name: str) -> str:
    """`eventmill.backends.sqlite.unit` is of the layer `backends.sqlite`, `eventmill.app` of `app`."""
    _, *rest = name.split(".")
    if rest and rest[0] == "backends":
        return ".".join(rest[:2])
    return rest[0] if rest else ""


@cache
def imports(name: str) -> Sequence[Import]:
    return list(_imports(name, modules()[name], nested=False, typing_only=False))


def _imports(name: str, node: ast.AST, *, nested: bool, typing_only: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(alias.name, child.lineno, nested, typing_only)
        elif isinstance(child, ast.ImportFrom):
            base = _absolute(name, child)
            for alias in child.names:
                whole = f"{base}.{alias.name}"
                yield Import(whole if whole in modules() else base, child.lineno, nested, typing_only)
        elif isinstance(child, ast.If) and ast.unparse(child.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            yield from _imports(name, child, nested=nested, typing_only=True)
        else:
            inside = nested or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from _imports(name, child, nested=inside, typing_only=typing_only)


def _absolute(name: str, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    parts = name.split(".")
    up = node.level - 1 if is_package(name) else node.level
    return ".".join([*parts[: len(parts) - up], *([node.module] if node.module else [])])


def ours(module: str) -> bool:
    return module == PACKAGE or module.startswith(f"{PACKAGE}.")


def core_modules() -> list[str]:
    return [name for name in modules() if layer_of(name) == "core"]


def test_every_layer_has_its_rule() -> None:
    assert {layer_of(name) for name in modules()} == set(MAY_IMPORT)


def test_layers_import_downwards_only() -> None:
    wrong = [
        f"{name}:{each.line} imports {each.module}"
        for name in modules()
        for each in imports(name)
        if ours(each.module)
        and layer_of(each.module) not in MAY_IMPORT[layer_of(name)]
        and (name, each.module) not in EXCEPTIONS
    ]
    assert not wrong, wrong


def test_exceptions_are_still_needed() -> None:
    real = {(name, each.module) for name in modules() for each in imports(name)}
    assert real >= EXCEPTIONS


def test_imports_have_no_cycle() -> None:
    """Not even among imports made for types only."""
    graph = {name: {each.module for each in imports(name) if ours(each.module)} for name in modules()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"a cycle of imports: {' <- '.join(error.args[1])}")


def test_own_modules_are_imported_at_the_top() -> None:
    """Commands are loaded by name when they are asked for; everything else says at its top what it stands on."""
    wrong = [f"{name}:{each.line}" for name in modules() for each in imports(name) if each.nested and ours(each.module)]
    assert not wrong, wrong


def test_the_core_dependencies_are_all_it_takes() -> None:
    allowed = {*sys.stdlib_module_names, *DEPENDENCIES, PACKAGE}
    wrong = []
    for name in modules():
        testing = {"pytest", "hypothesis"} if layer_of(name) == "testing" else set()
        for each in imports(name):
            top = each.module.partition(".")[0]
            lazily = OPTIONAL if each.nested or each.typing_only else set()
            if top not in allowed | testing | lazily | DRIVERS.get(layer_of(name), set()):
                wrong.append(f"{name}:{each.line} imports {each.module}")
    assert not wrong, wrong


def test_standard_library_is_imported_at_the_top() -> None:
    wrong = [
        f"{name}:{each.line} imports {each.module}"
        for name in modules()
        for each in imports(name)
        if each.nested and each.module.partition(".")[0] in sys.stdlib_module_names
    ]
    assert not wrong, wrong


def test_files_are_short() -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCE.rglob("*.py")}
    wrong = {str(path.relative_to(SOURCE)): lines for path, lines in lengths.items() if lines > LONGEST_FILE}
    assert not wrong, wrong


def test_core_reaches_nothing_outside() -> None:
    wrong = [
        f"{name}:{each.line} imports {each.module}"
        for name in core_modules()
        for each in imports(name)
        if each.module.partition(".")[0] in PURE and (name, each.module) not in OUTWARD
    ]
    assert not wrong, wrong


def test_core_makes_no_chance_of_its_own() -> None:
    """`random.Random` is the type of what is injected; its functions and other classes draw from the machine."""
    wrong = [
        f"{name}:{node.lineno} uses {ast.unparse(node)}"
        for name in core_modules()
        if name != "eventmill.core.clock"
        for node in ast.walk(modules()[name])
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "random" and node.attr != "Random"
    ]
    assert not wrong, wrong


def test_core_reads_no_date() -> None:
    reading = {"now", "utcnow", "today"}
    wrong = [
        f"{name}:{node.lineno} calls {ast.unparse(node.func)}"
        for name in core_modules()
        for node in ast.walk(modules()[name])
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in reading
        and ast.unparse(node.func.value) in ("datetime", "date", "datetime.datetime", "datetime.date")
    ]
    assert not wrong, wrong


def test_core_awaits_nothing() -> None:
    """Its coroutines are promises without a body, for backends to keep; the clock's are the exception."""
    wrong = [
        f"{name}:{node.lineno} async def {node.name}"
        for name in core_modules()
        if name != "eventmill.core.clock"
        for node in ast.walk(modules()[name])
        if isinstance(node, ast.AsyncFunctionDef) and not all(_says_nothing(part) for part in node.body)
    ]
    assert not wrong, wrong


def _says_nothing(statement: ast.stmt) -> bool:
    """A docstring, or `...`."""
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


@pytest.mark.parametrize("word", ["utils", "util", "helper", "helpers", "manager", "common", "base", "misc"])
def test_modules_are_called_after_what_they_are(word: str) -> None:
    assert not [name for name in modules() if word in name.split(".")[-1].split("_")]
