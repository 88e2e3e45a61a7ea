"""From `module:attribute` to Apps, with errors that say what was probably meant."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from types import ModuleType

from eventmill.app import App
from eventmill.core.errors import ConfigurationError, EventmillError


def is_url(target: str) -> bool:
    """Whether a target names a store rather than an App."""
    return "://" in target


def load_apps(targets: Sequence[str]) -> list[App]:
    """The Apps of all the import strings, each once."""
    apps: list[App] = []
    for target in targets:
        apps += [app for app in _load(target) if app not in apps]
    return apps


def load_app(target: str) -> App:
    """The one App of an import string."""
    apps = _load(target)
    if len(apps) != 1:
        names = ", ".join(app.name for app in apps) or "none"
        raise ConfigurationError(f"{target}: one App is needed here, this gives {len(apps)} ({names})")
    return apps[0]


def _load(target: str) -> list[App]:
    if is_url(target):
        raise ConfigurationError(f"{target}: an App is needed here (module:attribute), not the URL of a store")
    name, colon, path = target.partition(":")
    file = name.endswith(".py") or "/" in name
    if file or not all(part.isidentifier() for part in name.split(".")) or (colon and not path):
        hint = f"; for a file write {_dotted(name)}" if file else ""
        raise ConfigurationError(f"{target!r} is no import string: write module:attribute, such as shop:app{hint}")
    module = _import(name, target)
    return _apps(_attribute(module, path, target), target) if path else _only(module, target)


def _dotted(name: str) -> str:
    return ".".join(part for part in name.removesuffix(".py").split("/") if part not in ("", "."))


def _import(name: str, target: str) -> ModuleType:
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if name == missing or name.startswith(f"{missing}."):
            raise ConfigurationError(f"{target}: {_unknown(name, missing)}") from error
        raise ConfigurationError(f"{target}: {_failure(error, name)}") from error
    except EventmillError:
        raise
    except (Exception, SystemExit) as error:
        # Whatever the user's module does when it is imported, the person wants the line of it.
        raise ConfigurationError(f"{target}: {_failure(error, name)}") from error


def _unknown(name: str, missing: str) -> str:
    """What to say about a module that is not there."""
    folder = Path.cwd().joinpath(*missing.split(".")[:-1])
    near = [entry.stem for entry in folder.glob("*.py")]
    near += [entry.name for entry in folder.iterdir() if entry.is_dir()] if folder.is_dir() else []
    leaf = missing.split(".")[-1]
    close = get_close_matches(leaf, [name for name in near if name.isidentifier()], n=1)
    prefix = missing[: len(missing) - len(leaf)]
    hint = f"; did you mean {prefix}{close[0]}{name[len(missing) :]}?" if close else ""
    return f"there is no module {missing} in {folder} nor installed{hint}"


def _failure(error: BaseException, name: str) -> str:
    """Why importing failed, with the place in the user's own code."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
    frames = [frame for frame in frames if frame.filename != __file__]
    where = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    return f"module {name} cannot be imported: {type(error).__name__}: {error}{where}"


def _attribute(module: ModuleType, path: str, target: str) -> object:
    found: object = module
    for part in path.split("."):
        try:
            found = getattr(found, part)
        except AttributeError as error:
            here = {key: value for key, value in vars(module).items() if not key.startswith("_")}
            apps = [key for key, value in here.items() if isinstance(value, App)]
            close = get_close_matches(part, apps, n=1, cutoff=0.1) or get_close_matches(part, here, n=1)
            hint = f"; did you mean {module.__name__}:{close[0]}?" if close else ""
            raise ConfigurationError(f"{target}: module {module.__name__} has no {part!r}{hint}") from error
    return found


def _only(module: ModuleType, target: str) -> list[App]:
    apps = {key: value for key, value in vars(module).items() if isinstance(value, App)}
    if len(set(map(id, apps.values()))) == 1:
        return [next(iter(apps.values()))]
    if apps:
        choices = ", ".join(f"{target}:{key}" for key in apps)
        raise ConfigurationError(f"{target} has several Apps; say which: {choices}")
    raise ConfigurationError(
        f"{target}: module {module.__name__} has no App; name it, or its factory: {target}:attribute"
    )


def _apps(value: object, target: str) -> list[App]:
    if callable(value) and not isinstance(value, App):
        try:
            value = value()
        except EventmillError:
            raise
        except Exception as error:
            raise ConfigurationError(f"{target}: calling it failed: {type(error).__name__}: {error}") from error
    apps: list[App] = []
    for one in value if isinstance(value, list | tuple) else [value]:
        if not isinstance(one, App):
            kind = type(one).__name__
            raise ConfigurationError(f"{target} is {kind}, not an App, a list of Apps, or a function that makes them")
        apps.append(one)
    return apps
