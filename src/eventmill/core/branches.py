"""Which event classes a function speaks of: found in its compiled code, so no source is needed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from types import CodeType, FunctionType, ModuleType
from typing import Any, get_args, get_type_hints


def spoken_of(functions: Iterable[Callable[..., Any]]) -> set[type]:
    """Every class that the code of these functions names: in a `case`, an `isinstance`, a call, or as a table's key.

    Names that are not defined yet are passed over.
    """
    found: set[type] = set()
    for function in functions:
        if isinstance(function, FunctionType):
            names = set(_names(function.__code__))
            for value in _values(function, names):
                found.update(_classes(value))
    return found


def called(function: Callable[..., Any]) -> frozenset[str]:
    """The names a function's code reads: of what it may call, among others."""
    return frozenset(_names(function.__code__)) if isinstance(function, FunctionType) else frozenset()


def annotated(function: Callable[..., Any], parameter: int) -> tuple[type, ...]:
    """The classes that a parameter's annotation names: one, or several joined by `|`. Empty without an annotation.

    Raises NameError for one that is not defined.
    """
    if not isinstance(function, FunctionType):
        return ()
    names = function.__code__.co_varnames[: function.__code__.co_argcount]
    if parameter >= len(names) or names[parameter] not in function.__annotations__:
        return ()
    # Only this one: what the others or the result are annotated with need not exist at run time.
    wanted = function.__annotations__[names[parameter]]

    class _Only:
        __annotations__ = {"wanted": wanted}

    hint = get_type_hints(_Only, globalns=function.__globals__, localns=_enclosed(function))["wanted"]
    return tuple(each for each in (get_args(hint) or (hint,)) if isinstance(each, type))


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    yield from code.co_freevars
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _enclosed(function: FunctionType) -> dict[str, object]:
    """What the function has of the functions around it."""
    found = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            found[name] = cell.cell_contents
        except ValueError:
            continue  # not assigned yet
    return found


def _values(function: FunctionType, names: set[str]) -> Iterator[object]:
    around = {**function.__globals__, **_enclosed(function)}
    for name in names:
        if name in around:
            value = around[name]
            yield value
            if isinstance(value, ModuleType):
                # `case events.Paid()` names the module and the class, one beside the other.
                yield from (vars(value)[each] for each in names if each in vars(value))


def _classes(value: object) -> Iterator[type]:
    if isinstance(value, type):
        yield value
    elif isinstance(value, tuple | list | set | frozenset | Mapping):
        yield from (each for each in value if isinstance(each, type))
