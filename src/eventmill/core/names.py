"""What may be called what on the wire."""

from __future__ import annotations

import re

from eventmill.core.errors import ConfigurationError

MAX_NAME = 200
"""Characters in a name of an event type or a topic."""

MAX_EXTENSION_NAME = 20
"""Characters in the name of an extension attribute, as CloudEvents recommends."""

_NAME = re.compile(r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*")
_ATTRIBUTE = re.compile(r"[a-z0-9]+")

ATTRIBUTES = frozenset(
    {
        "specversion",
        "id",
        "source",
        "type",
        "subject",
        "time",
        "datacontenttype",
        "partitionkey",
        "correlationid",
        "causationid",
        "traceparent",
        "sequence",
        "schemaversion",
        "tags",
        "data",
    }
)
"""CloudEvents attributes that are fields of a `Message`, so no extension may carry their name."""


def check_name(name: object, what: str) -> str:
    """The name, if it keeps the rule: lower-case segments of a-z, 0-9, `_` and `-` joined by dots.

    what: how the text of the ConfigurationError calls it, such as `name` or `topic`.
    """
    if not isinstance(name, str):
        raise ConfigurationError(f"{what}={name!r}: give a string such as 'order.placed'")
    if len(name) > MAX_NAME:
        raise ConfigurationError(f"{what}={name[:40]!r}…: {len(name)} characters; the limit is {MAX_NAME}")
    if not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"{what}={name!r}: use lower-case segments of a-z, 0-9, _ and - joined by dots, such as 'order.placed'"
        )
    return name


def check_topic(topic: object) -> str:
    """A topic that somebody has named, which may be another program's: the same rule, and capital letters."""
    check_name(topic.lower() if isinstance(topic, str) else topic, "topic")
    return str(topic)


def topic_of(name: str) -> str:
    """Where a type's messages are kept unless it says otherwise: its name up to the first dot."""
    return name.partition(".")[0] or name


def is_attribute_name(name: str) -> bool:
    """Whether CloudEvents allows an attribute to be called this: a-z and 0-9, at least one character."""
    return _ATTRIBUTE.fullmatch(name) is not None


def is_json(contenttype: str) -> bool:
    """Whether a media type means JSON: `application/json`, `text/json` or anything ending in `+json`."""
    media = contenttype.partition(";")[0].strip().lower()
    return media in ("application/json", "text/json") or media.endswith("+json")
