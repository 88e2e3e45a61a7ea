"""Where the server is, how to log in, and how to treat it: all that the URL says."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import unquote

from eventmill.backends.url import Url

OPTIONS = (
    "cafile", "certfile", "connect_timeout", "heartbeat", "keyfile", "prefetch", "prefix", "unroutable", "verify",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Address:
    """`amqp://user:password@host:port/vhost?option=value`; several hosts are tried in turn.

    cafile, certfile, keyfile, verify: TLS, for `amqps://` only. heartbeat: seconds after which a silent
    server counts as gone is twice this. prefetch: messages of one queue that a member has unacknowledged at
    a time; all members of a group shall have the same. prefix: of all names of exchanges and queues.
    unroutable: whether a message that no queue waits for is refused or dropped. connect_timeout: seconds.
    """

    url: Url = field(repr=False)
    hosts: tuple[tuple[str, int], ...]
    user: str
    password: str = field(repr=False)
    vhost: str
    tls: ssl.SSLContext | None
    external: bool
    heartbeat: int
    prefetch: int
    prefix: str
    refuse: bool
    connect_timeout: float

    @classmethod
    def of(cls, url: Url) -> Self:
        """Raises ConfigurationError for what is unknown, missing or no good."""
        url.allow(*OPTIONS)
        secure = url.scheme == "amqps"
        tls = _tls(url) if secure else None
        if not secure:
            for name in ("cafile", "certfile", "keyfile", "verify"):
                if url.get(name) is not None:
                    raise url.refusal(f"{name} is for TLS; write amqps:// instead of {url.scheme}://")
        prefix = url.get("prefix") or "eventmill"
        if len(prefix.encode()) > 40 or not prefix.isprintable() or prefix.startswith("amq."):
            raise url.refusal(f"prefix={prefix!r}; give up to 40 printable characters that do not begin with 'amq.'")
        return cls(
            url=url,
            hosts=tuple(url.hosts(5671 if secure else 5672)),
            user=url.user or "guest",
            password=url.password if url.password is not None else "guest",
            vhost=unquote(url.path[1:]) or "/",
            tls=tls,
            external=secure and url.user is None and url.get("certfile") is not None,
            heartbeat=max(1, round(url.seconds("heartbeat", 10.0))),
            prefetch=url.number("prefetch", 200, most=65_535),
            prefix=prefix,
            refuse=url.choice("unroutable", ("refuse", "drop"), "refuse") == "refuse",
            connect_timeout=url.seconds("connect_timeout", 30.0),
        )


def _tls(url: Url) -> ssl.SSLContext:
    cafile, certfile, keyfile = url.get("cafile"), url.get("certfile"), url.get("keyfile")
    try:
        context = ssl.create_default_context(cafile=cafile)
    except (OSError, ssl.SSLError) as error:
        raise url.refusal(f"cafile={cafile!r}: {error}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if certfile is not None:
        try:
            context.load_cert_chain(certfile, keyfile)
        except (OSError, ssl.SSLError) as error:
            raise url.refusal(f"certfile={certfile!r}, keyfile={keyfile!r}: {error}") from error
    elif keyfile is not None:
        raise url.refusal("keyfile without certfile; give both, or the key within certfile alone")
    if url.choice("verify", ("full", "ca", "none"), "full") != "full":
        context.check_hostname = False
    if url.get("verify") == "none":
        context.verify_mode = ssl.CERT_NONE
    return context
