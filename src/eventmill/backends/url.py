"""A backend's address: read, checked, and shown without its secrets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import parse_qsl, unquote, urlsplit

from eventmill.core.errors import ConfigurationError

SECRET = ("password", "secret", "token")
"""Options whose names contain one of these are never shown."""


@dataclass(frozen=True, slots=True)
class Url:
    """The parts of `scheme://user:password@location/path?option=value`.

    location: hosts and ports as they stand, several separated by commas where a backend takes them.
    `str` and `repr` hide the password and secret options, so that either may go into a log.
    """

    scheme: str
    location: str = ""
    path: str = ""
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    options: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ConfigurationError where it is no URL, or gives an option twice."""
        try:
            parts = urlsplit(text)
        except ValueError as error:
            raise ConfigurationError(f"not a URL: {error}") from None
        login, at, location = parts.netloc.rpartition("@")
        user, colon, password = login.partition(":")
        options = tuple(parse_qsl(parts.query, keep_blank_values=True))
        url = cls(
            parts.scheme,
            location,
            parts.path,
            unquote(user) if at else None,
            unquote(password) if colon else None,
            options,
        )
        names = [name for name, _ in options]
        for name in names:
            if names.count(name) > 1:
                raise url.refusal(f"option {name!r} is given {names.count(name)} times; give it once")
        return url

    def __str__(self) -> str:
        login = "" if self.user is None else self.user + (":***" if self.password is not None else "") + "@"
        shown = [f"{name}={'***' if _secret(name) else value}" for name, value in self.options]
        scheme = f"{self.scheme}://" if self.scheme else ""
        return f"{scheme}{login}{self.location}{self.path}" + ("?" + "&".join(shown) if shown else "")

    def __repr__(self) -> str:
        return str(self)

    def refusal(self, why: str) -> ConfigurationError:
        """The error that names this URL, without its secrets, and what is wrong with it."""
        return ConfigurationError(f"{self}: {why}")

    def allow(self, *names: str) -> None:
        """Refuse every option that is not one of these."""
        for name, _ in self.options:
            if name not in names:
                raise self.refusal(f"unknown option {name!r}; {self.scheme} knows {', '.join(sorted(names)) or 'none'}")

    def get(self, name: str) -> str | None:
        """An option's text, or None where it is not given."""
        return dict(self.options).get(name)

    def choice(self, name: str, choices: Sequence[str], default: str) -> str:
        value = (self.get(name) or default).lower()
        if value not in choices:
            raise self.refusal(f"{name}={value!r}; choose from {', '.join(choices)}")
        return value

    def seconds(self, name: str, default: float) -> float:
        """A time above 0 and below a day."""
        text = self.get(name)
        if text is None:
            return default
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if not 0 < value < 86_400:
            raise self.refusal(f"{name}={text!r}; give seconds above 0")
        return value

    def number(self, name: str, default: int, *, least: int = 1, most: int = 1 << 31) -> int:
        """A whole number within bounds."""
        text = self.get(name)
        if text is None:
            return default
        if not (text.isascii() and text.isdigit() and least <= int(text) <= most):
            raise self.refusal(f"{name}={text!r}; give a whole number from {least} to {most}")
        return int(text)

    def hosts(self, port: int) -> list[tuple[str, int]]:
        """The hosts of the location, with this port where none is given."""
        found = []
        for part in self.location.split(","):
            host, colon, number = part.rpartition(":")
            if not colon or part.endswith("]"):
                host, number = part, str(port)
            if not host or not (number.isascii() and number.isdigit() and 0 < int(number) < 65_536):
                raise self.refusal(f"{part!r} is no host:port")
            found.append((host, int(number)))
        return found


def _secret(name: str) -> bool:
    return any(word in name.lower() for word in SECRET)
