"""The fabric protocol: what every transport does, and how one is opened by URL."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Final, Literal, Protocol, runtime_checkable
from urllib.parse import urlsplit

from diaspora_parsl.errors import FabricURLError
from diaspora_parsl.events import Event

#: Where a reader starts: before everything kept, after everything there is now, or at a saved cursor.
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

# Options whose name tells of a credential, or is %-escaped so that it could.
_SECRET_OPTION: Final = re.compile(
    r"([?&][^=&#]*(?:user|pass|secret|token|key|assertion|credential|oauthbearer\.config|pem|%)[^=&#]*=)[^&#]*",
    re.IGNORECASE,
)


@runtime_checkable
class Subscription(Protocol):
    """One independent reader. Not thread-safe: one thread reads."""

    #: Cursor per topic: the position after the last event that `read` returned. Feed it to `subscribe` to go on there.
    position: dict[str, str]
    #: Times that entries were trimmed away before this reader saw them: a resync is needed, silence it was not.
    resyncs: int
    #: Entries that were no events; they were skipped.
    malformed: int

    def read(self, timeout: float) -> list[Event]:
        """Wait at most ``timeout`` seconds for events; an empty list is a proof that the fabric is alive and quiet.

        Raises:
            FabricUnavailableError: the fabric could not be asked; the next call tries again, from the same position.
        """
        ...

    def close(self) -> None:
        """Let go of the connection; idempotent, callable from another thread, wakes a blocked `read`."""
        ...


@runtime_checkable
class Fabric(Protocol):
    """One event bus, opened by `open_fabric`. Thread-safe."""

    @property
    def url(self) -> str:
        """The address that another process can open, credentials included. Never log it: see `redacted`."""
        ...

    def publish(self, events: Sequence[Event]) -> None:
        """Append events, each to its own topic, in the given order; returns when the fabric has them.

        Raises:
            FabricUnavailableError: not known to have arrived; publish the same batch again (readers drop doubles).
        """
        ...

    def subscribe(self, topics: Sequence[str], position: Position = "latest") -> Subscription:
        """A reader of its own: two subscriptions both see everything.

        Raises:
            FabricUnavailableError: "latest" could not be asked for now.
        """
        ...

    def close(self) -> None:
        """Let go of everything, within a few seconds; idempotent."""
        ...


def open_fabric(url: str, run_dir: str | Path | None = None) -> Fabric:
    """Open a fabric by its URL.

    Args:
        url: ``embedded`` (a private server for this host, gone when the run ends, its data kept),
            ``embedded:///path/to/run_dir`` (what another run's embedded server tells or has kept),
            ``memory://name`` (this process only), ``redis://[user:password@]host:port/db`` or ``rediss://...`` (Redis
            or Valkey Streams), ``diaspora+mofka:///path/to/group_file`` (Mofka, by the Diaspora Stream API),
            ``diaspora+files:///folder`` (that API's own files),
            ``kafka://[user:password@]host:port[,host:port]/prefix`` (Kafka), ``octopus://namespace`` and
            ``octopus+https://namespace`` (Octopus, a hosted Kafka, and its web service where the ports of Kafka are
            closed). What may stand in each: ``docs/fabric.md``.
        run_dir: where an embedded fabric keeps its data; the current directory if not given.

    Raises:
        FabricURLError: no transport can open this; the message says what to write instead.
        ConfigurationError: ``embedded``, and there is no server program for this platform; a package is missing that
            the transport needs; Octopus, and nobody is logged in.
        FabricUnavailableError: an embedded server could not be started. (A remote one is not asked here.)
    """
    if not isinstance(url, str) or not url.strip():
        raise FabricURLError(f'fabric={url!r} is not a URL. Write fabric="embedded" or "redis://host:6379/0".')
    scheme = "embedded" if url == "embedded" else url.partition("://")[0] if "://" in url else ""
    if scheme not in _TRANSPORTS:
        known = ", ".join(f'"{name}://..."' for name in _TRANSPORTS if name != "embedded")
        raise FabricURLError(f'fabric="{redacted(url)}" has no known scheme. Write "embedded", or one of {known}.')
    try:
        urlsplit(url)
    except ValueError:  # it may quote what stands before the host
        raise FabricURLError(f'fabric="{redacted(url)}" is not a URL. Write "redis://host:6379/0".') from None
    opened: Fabric = import_module(_TRANSPORTS[scheme]).open_url(url, Path(run_dir) if run_dir else Path.cwd())
    return opened


def redacted(url: str) -> str:
    """The URL without its password: for logs, errors and reprs.

    Rather too much than too little is hidden: a password may hold characters that no URL parser expects there.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        return url
    secrets, at, host = rest.rpartition("@")
    user = secrets.partition(":")[0] if ":" in secrets else ""
    shown = f"{user}:***@{host}" if at else rest
    return f"{scheme}://" + _SECRET_OPTION.sub(r"\1***", shown)
