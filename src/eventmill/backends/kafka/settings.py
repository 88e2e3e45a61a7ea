"""What the URL says, as the client library wants to hear it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from eventmill.backends.kafka.failures import LibraryLog
from eventmill.backends.url import Url

Config = dict[str, str | int | float | bool]

SECURITY = ("plaintext", "ssl", "sasl_plaintext", "sasl_ssl")
MECHANISMS = ("plain", "scram-sha-256", "scram-sha-512")
COMPRESSION = ("none", "gzip", "snappy", "lz4", "zstd")

OPTIONS = (
    "security", "mechanism", "cafile", "certfile", "keyfile", "prefix", "replication", "compression",
    "connect_timeout", "publish_timeout", "debezium",
)  # fmt: skip

NAMES = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
"""What Kafka allows in the name of a topic."""

LONGEST_NAME = 249

ANSWER_MS = 6_000
"""Milliseconds after which a request counts as lost and its connection as dead: a half-open one must not be
waited for much longer than a working broker takes to answer."""

CONNECTION: Mapping[str, str | int | bool] = {
    "client.id": "eventmill",
    "socket.timeout.ms": ANSWER_MS,
    "socket.connection.setup.timeout.ms": 5_000,
    "socket.keepalive.enable": True,
    "reconnect.backoff.ms": 50,
    "reconnect.backoff.max.ms": 1_000,
    "retry.backoff.ms": 50,
    "retry.backoff.max.ms": 1_000,
    "topic.metadata.refresh.fast.interval.ms": 100,
    "allow.auto.create.topics": False,
}
"""For all clients: find a broker again within a second or two of its return."""


@dataclass(frozen=True, slots=True)
class Settings:
    """One Kafka cluster, and how this program uses it. Times in seconds.

    prefix: put before the name of each topic and each reported group. replication: of topics that
    are created, or None for the broker's default. debezium: first parts of the names of topics that hold
    Debezium's changes, to be read and written as such. connection: for the client library; holds secrets,
    and is therefore no part of the repr. library_log: where the library's own lines go.
    """

    prefix: str
    replication: int | None
    compression: str
    connect_timeout: float
    publish_timeout: float
    connection: Config = field(repr=False)
    library_log: LibraryLog = field(repr=False)
    debezium: tuple[str, ...] = ()

    @classmethod
    def of(cls, url: Url) -> Self:
        """Raises ConfigurationError for whatever cannot be meant."""
        url.allow(*OPTIONS)
        if url.path.strip("/"):
            raise url.refusal(f"{url.path!r}: a Kafka URL has no path; topics are named by their events")
        hosts = ",".join(f"{host}:{port}" for host, port in url.hosts(9092))
        prefix = url.get("prefix") or ""
        if not NAMES.issuperset(prefix):
            raise url.refusal(f"prefix={prefix!r}; Kafka's names are of letters, digits, '.', '_' and '-'")
        return cls(
            prefix=prefix,
            replication=url.number("replication", 1, most=32_767) if url.get("replication") else None,
            compression=url.choice("compression", COMPRESSION, "none"),
            connect_timeout=url.seconds("connect_timeout", 30.0),
            publish_timeout=url.seconds("publish_timeout", 20.0),
            connection={"bootstrap.servers": hosts, **CONNECTION, **_security(url)},
            library_log=LibraryLog(url.password),
            debezium=_servers(url),
        )

    def name(self, topic: str) -> str:
        """What Kafka calls a topic of ours."""
        return self.prefix + topic

    def changes(self, topic: str) -> bool:
        """Whether a topic holds Debezium's changes."""
        return topic.partition(".")[0] in self.debezium

    def topic(self, name: str) -> str | None:
        """The topic of ours that Kafka calls so; None where it is none."""
        if name.startswith("__") or not name.startswith(self.prefix):
            return None
        return name.removeprefix(self.prefix) or None


def _servers(url: Url) -> tuple[str, ...]:
    text = url.get("debezium")
    if text is None:
        return ()
    names = tuple([name.strip() for name in text.split(",")])
    if not all(name and NAMES.issuperset(name) and "." not in name for name in names):
        raise url.refusal(
            f"debezium={text!r}; give topic prefixes (topic.prefix of the connectors), such as legacy,shop"
        )
    return names


def _security(url: Url) -> Config:
    security = url.choice("security", SECURITY, "plaintext" if url.user is None else "sasl_ssl")
    config: Config = {"security.protocol": security}
    if security.startswith("sasl"):
        if url.user is None or not url.password:
            raise url.refusal(f"security={security} needs a login: kafka://user:password@host:9092")
        mechanism = url.choice("mechanism", MECHANISMS, "plain").upper()
        config |= {"sasl.mechanism": mechanism, "sasl.username": url.user, "sasl.password": url.password}
    else:
        if url.user is not None:
            raise url.refusal(f"security={security} has no login; write security=sasl_ssl, or leave the user out")
        if url.get("mechanism") is not None:
            raise url.refusal("mechanism= is for security=sasl_ssl and sasl_plaintext")
    if (url.get("certfile") is None) != (url.get("keyfile") is None):
        raise url.refusal("certfile= and keyfile= belong together: give both")
    files = {"cafile": "ssl.ca.location", "certfile": "ssl.certificate.location", "keyfile": "ssl.key.location"}
    for option, property_ in files.items():
        path = url.get(option)
        if path is None:
            continue
        if not security.endswith("ssl"):
            raise url.refusal(f"{option}= is for security=ssl and sasl_ssl")
        if not Path(path).is_file():
            raise url.refusal(f"{option}={path}: there is no such file")
        config[property_] = path
    return config
