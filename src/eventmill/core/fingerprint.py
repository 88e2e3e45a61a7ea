"""What a stored state depends on, in a few characters: its schema, and the code that folded it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from types import CodeType, FunctionType
from typing import Any

import msgspec

from eventmill.core.errors import ConfigurationError


def fingerprint(state: type, folding: Iterable[Callable[..., Any]], version: int) -> str:
    """Another one whenever the fields of the state, their types, or the code of its fold have changed.

    Another release of Python compiles to other code, and so makes another one as well: to replay is always right.
    Raises ConfigurationError for a state whose types have no JSON schema.
    """
    digest = hashlib.sha256(f"{version}".encode())
    try:
        schema = msgspec.json.schema(state)
    except (TypeError, NameError) as error:
        raise ConfigurationError(
            f"{state.__qualname__}: snapshot_every= needs a state of types that have a JSON schema: {error}"
        ) from error
    digest.update(msgspec.json.encode(schema, order="deterministic"))
    for function in folding:
        if isinstance(function, FunctionType):
            _add(digest, function.__code__)
    return digest.hexdigest()[:16]


def _add(digest: Any, code: CodeType) -> None:
    digest.update(code.co_code)
    digest.update(repr((code.co_names, code.co_varnames, code.co_freevars)).encode())
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            _add(digest, constant)
        elif isinstance(constant, frozenset):
            digest.update(repr(sorted(map(repr, constant))).encode())  # their order differs from process to process
        else:
            digest.update(repr(constant).encode())
