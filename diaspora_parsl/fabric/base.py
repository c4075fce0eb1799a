"""The fabric protocol of all transports, and `open_fabric`, which opens one by its URL."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Final, Literal, Protocol, runtime_checkable
from urllib.parse import urlsplit

from diaspora_parsl.errors import FabricURLError
from diaspora_parsl.events import Event

#: Where a subscription starts: at the oldest stored event, after the newest one, or at saved cursors by topic.
Position = Literal["earliest", "latest"] | dict[str, str]

_TRANSPORTS: Final = {
    "memory": "diaspora_parsl.fabric.transports.memory",
    "redis": "diaspora_parsl.fabric.transports.redis.transport",
    "rediss": "diaspora_parsl.fabric.transports.redis.transport",
    "embedded": "diaspora_parsl.fabric.transports.redis.embedded",
    "diaspora+mofka": "diaspora_parsl.fabric.transports.diaspora_stream.transport",
    "diaspora+files": "diaspora_parsl.fabric.transports.diaspora_stream.transport",
    "kafka": "diaspora_parsl.fabric.transports.kafka.transport",
    "octopus": "diaspora_parsl.fabric.transports.octopus.transport",
    "octopus+https": "diaspora_parsl.fabric.transports.octopus.rest",
}

# Options whose name indicates a credential, or is %-escaped and may hide one.
_SECRET_OPTION: Final = re.compile(
    r"([?&][^=&#]*(?:user|pass|secret|token|key|assertion|credential|oauthbearer\.config|pem|%)[^=&#]*=)[^&#]*",
    re.IGNORECASE,
)


@runtime_checkable
class Subscription(Protocol):
    """An independent reader of topics. Not thread-safe: one thread reads."""

    #: Cursor per topic, after the last event that `read` returned. Pass it to `subscribe` to continue there.
    position: dict[str, str]
    #: Number of times that entries were trimmed before this subscription read them.
    resyncs: int
    #: Number of skipped entries that were not events.
    malformed: int

    def read(self, timeout: float) -> list[Event]:
        """Wait at most ``timeout`` seconds for events; an empty list proves that the fabric answers and has none.

        Raises:
            FabricUnavailableError: The fabric did not answer; the next call retries from the same position.
        """
        ...

    def close(self) -> None:
        """Close the connection and wake a blocked `read`; idempotent, callable from another thread."""
        ...


@runtime_checkable
class Fabric(Protocol):
    """One event bus, opened by `open_fabric`. Thread-safe."""

    @property
    def url(self) -> str:
        """URL that another process can open, credentials included. Never log it: see `redacted`."""
        ...

    def publish(self, events: Sequence[Event]) -> None:
        """Append events to their topics in the given order; return when the fabric has stored them.

        Raises:
            FabricUnavailableError: The events may not have arrived; publish the batch again (readers drop duplicates).
        """
        ...

    def subscribe(self, topics: Sequence[str], position: Position = "latest") -> Subscription:
        """Return an independent subscription: each one receives every event.

        Raises:
            FabricUnavailableError: The fabric did not answer for the position "latest".
        """
        ...

    def close(self) -> None:
        """Close all connections within a few seconds; idempotent."""
        ...


def open_fabric(url: str, run_dir: str | Path | None = None) -> Fabric:
    """Open a fabric by its URL.

    Args:
        url: ``embedded`` (a private server on this host that ends with the run and keeps its data),
            ``embedded:///path/to/run_dir`` (the embedded server or stored data of another run),
            ``memory://name`` (this process only), ``redis://[user:password@]host:port/db`` or ``rediss://...`` (Redis
            or Valkey Streams), ``diaspora+mofka:///path/to/group_file`` (Mofka, by the Diaspora Stream API),
            ``diaspora+files:///folder`` (the files of that API),
            ``kafka://[user:password@]host:port[,host:port]/prefix`` (Kafka), ``octopus://namespace`` and
            ``octopus+https://namespace`` (Octopus, a hosted Kafka, and its web service where the ports of Kafka are
            closed). ``docs/fabric.md`` lists the options of each.
        run_dir: Directory for the data of an embedded fabric; the current directory if not given.

    Raises:
        FabricURLError: No transport can open this URL; the message says what to write instead.
        ConfigurationError: The platform has no embedded server, a package of the transport is missing, or Octopus has
            no login.
        FabricUnavailableError: The embedded server did not start. (Remote servers are contacted later.)
    """
    if not isinstance(url, str) or not url.strip():
        raise FabricURLError(f'fabric={url!r} is not a URL. Write fabric="embedded" or "redis://host:6379/0".')
    scheme = "embedded" if url == "embedded" else url.partition("://")[0] if "://" in url else ""
    if scheme not in _TRANSPORTS:
        known = ", ".join(f'"{name}://..."' for name in _TRANSPORTS if name != "embedded")
        raise FabricURLError(f'fabric="{redacted(url)}" has no known scheme. Write "embedded", or one of {known}.')
    try:
        urlsplit(url)
    except ValueError:  # the error may quote credentials
        raise FabricURLError(f'fabric="{redacted(url)}" is not a URL. Write "redis://host:6379/0".') from None
    opened: Fabric = import_module(_TRANSPORTS[scheme]).open_url(url, Path(run_dir) if run_dir else Path.cwd())
    return opened


def redacted(url: str) -> str:
    """Return the URL without its password, for logs, errors and reprs.

    It hides too much rather than too little: a password may hold characters that no URL parser expects.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        return url
    secrets, at, host = rest.rpartition("@")
    user = secrets.partition(":")[0] if ":" in secrets else ""
    shown = f"{user}:***@{host}" if at else rest
    return f"{scheme}://" + _SECRET_OPTION.sub(r"\1***", shown)
