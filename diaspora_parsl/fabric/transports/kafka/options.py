"""Parsing of ``kafka://`` URLs and Kafka cursors, independent of the client library."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

from diaspora_parsl.errors import ConfigurationError, FabricURLError
from diaspora_parsl.fabric.base import redacted

DEFAULT_PREFIX: Final = "diaspora"
DEFAULT_TIMEOUT: Final = 5.0
_OWN_OPTIONS: Final = ("timeout", "partitions", "replication", "create")
_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,200}")
_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):\d{1,5}")
_PROPERTY: Final = re.compile(r"[a-z0-9.]+")
_CURSOR: Final = re.compile(r"\d{1,10}:\d{1,19}(,\d{1,10}:\d{1,19})*")
_EXAMPLE: Final = (
    '"kafka://host:9092/prefix", or "kafka://user:password@host:9093/prefix?sasl.mechanism=SCRAM-SHA-256", with '
    "%-escapes in user and password; further options are properties of librdkafka"
)

# Our defaults where those of librdkafka do not fit.
_COMMON: Final[Mapping[str, Any]] = {
    # The defaults wait up to 10 s before the next attempt: a broker that came back would be missed for so long.
    "reconnect.backoff.ms": 50,
    "reconnect.backoff.max.ms": 1000,
    # A broker answers one request after the other: questions wait behind a fetch that waits for news.
    "fetch.wait.max.ms": 100,
    # librdkafka writes to standard error by itself; what matters comes as an error of a call.
    "log_level": 0,
}
# What the transport relies on; no URL may change it.
PRODUCER: Final[Mapping[str, Any]] = {
    "enable.idempotence": True,
    "delivery.report.only.error": True,  # a call of Python per event would cost more than the rest
}
CONSUMER: Final[Mapping[str, Any]] = {
    "group.id": "diaspora-parsl",  # librdkafka wants one; no group is joined, and nothing committed
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "auto.offset.reset": "error",  # an offset that is gone is a resync, not a silent jump
    "allow.auto.create.topics": False,
}


class KafkaOptions(NamedTuple):
    """Parsed URL."""

    url: str
    prefix: str
    timeout: float
    """Seconds after which a silent broker is considered down."""
    partitions: int
    """Number of partitions of created topics."""
    replication: int
    """Replication factor of created topics; -1 for the default of the broker."""
    create: bool
    """Whether to create missing topics."""
    properties: dict[str, Any]
    """Properties of librdkafka."""


def parse(url: str, config: Mapping[str, Any] | None = None) -> KafkaOptions:
    """Parse a URL.

    Args:
        url: ``kafka://[user:password@]host:port[,host:port]/prefix?option=value``.
        config: Properties of librdkafka that override the URL; may hold objects such as ``oauth_cb``.

    Raises:
        FabricURLError: The URL is invalid; the message hides its password.
    """
    try:
        return _parse(url, dict(config or {}))
    except ValueError as error:
        # Omit the error, which may quote parts of the URL, if the URL holds a secret.
        reason = "" if redacted(url) != url else f" ({error})"
        raise FabricURLError(f'fabric="{redacted(url)}" cannot be used{reason}. Write {_EXAMPLE}.') from None


def _parse(url: str, config: dict[str, Any]) -> KafkaOptions:
    parts = urlsplit(url)
    if parts.fragment:
        raise ValueError("a # in it must be written as %23")
    credentials, at, hosts = parts.netloc.rpartition("@")
    servers = hosts.split(",")
    if "bootstrap.servers" not in config and not all(_HOST.fullmatch(server) for server in servers):
        raise ValueError("it needs a host and a port, or several with commas between them")
    prefix = parts.path.strip("/") or DEFAULT_PREFIX
    if not _NAME.fullmatch(prefix):
        raise ValueError("the prefix is one word of letters, digits, '.', '_' and '-'")
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    timeout = float(query.pop("timeout", DEFAULT_TIMEOUT))
    partitions, replication = int(query.pop("partitions", 1)), int(query.pop("replication", -1))
    create = query.pop("create", "true")
    if not 0.1 <= timeout <= 60:  # noqa: PLR2004 - the message names the limits
        raise ValueError("timeout is in seconds, 0.1 to 60")
    if partitions < 1 or replication == 0 or replication < -1 or create not in ("true", "false"):
        raise ValueError("partitions and replication are 1 or more, create is true or false")
    if unknown := [name for name in query if not _PROPERTY.fullmatch(name)]:
        raise ValueError(f"{unknown[0]!r} is no option; there are {', '.join(_OWN_OPTIONS)}, and librdkafka's own")
    secured = _secured(query, credentials if at else None)
    properties = {**_COMMON, "bootstrap.servers": hosts, **secured, **config}
    return KafkaOptions(url, prefix, timeout, partitions, replication, create == "true", properties)


def _secured(query: Mapping[str, str], credentials: str | None) -> dict[str, Any]:
    """Return the properties of the URL and their implied defaults."""
    properties: dict[str, Any] = dict(query)
    if credentials is not None:
        user, colon, password = credentials.partition(":")
        if not user or not colon or not password:
            raise ValueError("it names a user without a password, or the reverse")
        # A password goes over the wire in the clear only if somebody says so.
        properties.setdefault("security.protocol", "SASL_SSL")
        properties.setdefault("sasl.mechanism", "PLAIN")
        properties |= {"sasl.username": unquote(user), "sasl.password": unquote(password)}
    elif any(name.startswith("sasl.") for name in query):
        properties.setdefault("security.protocol", "SASL_SSL")
    elif any(name.startswith("ssl.") for name in query):
        properties.setdefault("security.protocol", "SSL")
    return properties


def write_cursor(offsets: Mapping[int, int]) -> str:
    """Return the next offset of every partition as comma-separated ``partition:offset``."""
    return ",".join(f"{partition}:{offset}" for partition, offset in sorted(offsets.items())) or "0:0"


def read_cursor(cursor: str) -> dict[int, int]:
    """Parse a cursor of `write_cursor`.

    Raises:
        ConfigurationError: The cursor is from another transport.
    """
    if not _CURSOR.fullmatch(cursor):
        raise ConfigurationError(f"{cursor!r} is no cursor of Kafka. Give back what `position` was here.")
    return {int(partition): int(offset) for partition, _, offset in (one.partition(":") for one in cursor.split(","))}
