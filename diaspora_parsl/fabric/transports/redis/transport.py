"""Redis and Valkey by redis-py; the only file that imports ``redis``."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit

import redis
from redis import connection as redis_connection
from redis.backoff import NoBackoff
from redis.retry import Retry

from diaspora_parsl.errors import FabricUnavailableError, FabricURLError
from diaspora_parsl.events import TOPICS, Event
from diaspora_parsl.fabric.base import Position, redacted
from diaspora_parsl.fabric.transports.redis.redis_streams import Command, StreamSubscription, appends

DEFAULT_MAXLEN: Final = 100_000
DEFAULT_PREFIX: Final = "diaspora:"
DEFAULT_TIMEOUT: Final = 1.0
_OWN_OPTIONS: Final = ("maxlen", "prefix", "timeout")


# redis-py leaves these without types.
_parse_url: Any = redis_connection.parse_url
_plain_connection: Any = redis_connection.Connection


class _Options(NamedTuple):
    """Parsed URL."""

    url: str
    maxlen: int
    prefix: str
    timeout: float
    connection: Any
    arguments: dict[str, Any]

    def __repr__(self) -> str:
        return f"<options of {redacted(self.url)}>"  # tools that show local variables find their way into logs


def _options(url: str) -> _Options:
    """Parse a URL.

    Raises:
        FabricURLError: The URL is invalid; the message hides its password.
    """
    try:
        parts = urlsplit(url)
        query = parse_qsl(parts.query, keep_blank_values=True)
        own = {key: value for key, value in query if key in _OWN_OPTIONS}
        others = urlencode([(key, value) for key, value in query if key not in _OWN_OPTIONS])
        maxlen, timeout = int(own.get("maxlen", DEFAULT_MAXLEN)), float(own.get("timeout", DEFAULT_TIMEOUT))
        _check(parts, maxlen, timeout)
        arguments = _parse_url(parts._replace(query=others).geturl())
        connection = arguments.pop("connection_class", _plain_connection)
        arguments |= {
            "socket_timeout": timeout,
            "socket_connect_timeout": timeout,
            # The defaults of redis-py retry ten times: 3.9 s for one XADD to a dead server. The publisher retries.
            "retry": Retry(NoBackoff(), 0),
            "protocol": 2,  # one shape of replies with every version of the server
        }
        connection(**arguments)  # does not connect yet, but refuses unknown options
    except (ValueError, TypeError, redis.RedisError) as error:
        # Omit the error, which may quote parts of the URL, if the URL holds a secret.
        reason = "" if redacted(url) != url else f" ({error})"
        example = '"redis://user:password@host:6379/0", or rediss:// for TLS, with %-escapes in user and password'
        raise FabricURLError(f'fabric="{redacted(url)}" cannot be used{reason}. Write {example}.') from None
    return _Options(url, maxlen, own.get("prefix", DEFAULT_PREFIX), timeout, connection, arguments)


def _check(parts: SplitResult, maxlen: int, timeout: float) -> None:
    if not parts.hostname or parts.fragment or not re.fullmatch(r"/?\d*", parts.path):
        raise ValueError("it needs a host and at most a database number")
    if maxlen < 1 or not 0.01 <= timeout <= 60:  # noqa: PLR2004 - the message names the limits
        raise ValueError("maxlen is in entries, 1 or more; timeout in seconds, 0.01 to 60")


class _Link:
    """Connection, opened on demand and dropped after errors and forks. One thread at a time."""

    def __init__(self, options: _Options) -> None:
        self._options = options
        self._connection: Any = None
        self._pid = 0
        self.connects = 0

    @property
    def is_live(self) -> bool:
        return self._connection is not None and self._pid == os.getpid()

    def run(self, *commands: Command) -> list[Any]:
        try:
            if not self.is_live:
                self._connect()
            connection = self._connection
            connection.send_packed_command(connection.pack_commands(commands))
            return [self._reply(connection) for _ in commands]
        except (redis.RedisError, OSError) as error:
            self.drop()
            raise self._unavailable(error) from error
        except BaseException:
            self.drop()  # interrupted between a command and its reply: the rest of the stream makes no sense
            raise

    @staticmethod
    def _reply(connection: Any) -> Any:
        try:
            return connection.read_response()
        except redis.ResponseError as error:
            return error

    def _connect(self) -> None:
        self.drop()  # after a fork the socket is the parent's; redis-py closes only our copy of it
        connection = self._options.connection(**self._options.arguments)
        connection.connect()
        try:
            # A server that still loads its data refuses commands one by one, until it does not: of a batch it would
            # take the end, and the whole of it, sent again, would come after that.
            connection.send_command("PING")
            connection.read_response()
        except BaseException:
            connection.disconnect()
            raise
        self._connection, self._pid = connection, os.getpid()
        self.connects += 1

    def _unavailable(self, error: Exception) -> FabricUnavailableError:
        where, text = redacted(self._options.url), str(error)
        if isinstance(error, redis.AuthenticationError) or text.startswith(("NOAUTH", "WRONGPASS")):
            return FabricUnavailableError(f"{where} refuses the user name or password that the URL gives")
        return FabricUnavailableError(f"{where} cannot be reached: {text}")

    def refused(self, error: Exception) -> FabricUnavailableError:
        return FabricUnavailableError(f"{redacted(self._options.url)} refuses: {error}")

    def interrupt(self) -> None:
        # There is no public way to the socket; without it, the reader wakes at the end of its slice.
        sock = getattr(self._connection, "_sock", None)
        if isinstance(sock, socket.socket) and self._pid == os.getpid():
            with contextlib.suppress(OSError):  # not connected any more: nobody waits
                sock.shutdown(socket.SHUT_RDWR)

    def drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.disconnect()


class RedisFabric:
    """``redis://`` and ``rediss://``: one stream per topic.

    Options in the URL: ``maxlen`` (entries kept per topic, about; default 100000), ``prefix`` (of the stream names,
    default ``diaspora:``), ``timeout`` (seconds until a silent server counts as gone, default 1), and those of
    redis-py, such as ``ssl_ca_certs``.

    Raises:
        FabricURLError: The URL is invalid. The server is contacted later.
    """

    def __init__(self, url: str) -> None:
        self._options = _options(url)
        self._link = _Link(self._options)
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._closed = False
        self._subscriptions: list[StreamSubscription] = []

    def __repr__(self) -> str:
        return f"<RedisFabric {redacted(self._options.url)}>"

    @property
    def url(self) -> str:
        """See `diaspora_parsl.fabric.base.Fabric.url`."""
        return self._options.url

    @contextlib.contextmanager
    def _alone(self) -> Iterator[_Link]:
        if self._closed:
            raise FabricUnavailableError(f"{redacted(self._options.url)} was closed")
        if self._pid != os.getpid():  # forked: another thread of the parent may have held the lock
            self._lock, self._pid = threading.Lock(), os.getpid()
        with self._lock:
            yield self._link

    def ping(self) -> None:
        """Check that the server answers.

        Raises:
            FabricUnavailableError: The server did not answer.
        """
        with self._alone() as link:
            (reply,) = link.run(("PING",))
        if isinstance(reply, Exception):
            raise link.refused(reply)

    def publish(self, events: Sequence[Event]) -> None:
        """See `diaspora_parsl.fabric.base.Fabric.publish`.

        Raises:
            FabricUnavailableError: The server did not reply within the socket timeout, or refused the command.
        """
        commands = appends(events, self._options.prefix, self._options.maxlen)
        if not commands:
            return
        if len(commands) > 1:  # all or nothing: a part that is refused must not come after what follows it
            commands = [("MULTI",), *commands, ("EXEC",)]
        with self._alone() as link:
            error = _first_error(self._run_again(link, commands))
            if isinstance(error, redis.OutOfMemoryError):
                self._make_room(link)
                error = _first_error(link.run(*commands))
        if error is not None:
            raise link.refused(error)

    def _run_again(self, link: _Link, commands: list[Command]) -> list[Any]:
        """Retry once on a connection that the server closed while idle, which is no outage."""
        was_live, started = link.is_live, time.monotonic()
        try:
            return link.run(*commands)
        except FabricUnavailableError:
            if not was_live or time.monotonic() - started > self._options.timeout / 2:
                raise
            return link.run(*commands)

    def _make_room(self, link: _Link) -> None:
        """Trim the older half of the streams if the server is out of memory. Readers count a resync."""
        keys = [self._options.prefix + topic for topic in TOPICS]
        lengths = link.run(*(("XLEN", key) for key in keys))
        halves = [(key, n // 2) for key, n in zip(keys, lengths, strict=True) if isinstance(n, int) and n > 1]
        if halves:
            link.run(*(("XTRIM", key, "MAXLEN", half) for key, half in halves))

    def subscribe(self, topics: Sequence[str], position: Position = "latest") -> StreamSubscription:
        """See `diaspora_parsl.fabric.base.Fabric.subscribe`.

        Raises:
            ConfigurationError: The position holds a cursor of another transport.
            FabricUnavailableError: "latest" could not be asked for now, or the fabric was closed.
        """
        if self._closed:
            raise FabricUnavailableError(f"{redacted(self._options.url)} was closed")
        link = _Link(self._options)
        wait = self._options.timeout / 2
        subscription = StreamSubscription(link, self._options.prefix, topics, position, wait)
        self._subscriptions = [one for one in self._subscriptions if not one.is_closed] + [subscription]
        return subscription

    def close(self) -> None:
        """See `diaspora_parsl.fabric.base.Fabric.close`; subscriptions opened here are closed too."""
        for subscription in self._subscriptions:
            subscription.close()
        if not self._closed:
            with self._alone() as link:
                self._closed = True
                link.drop()


def _first_error(replies: list[Any]) -> Exception | None:
    within = [one for reply in replies if isinstance(reply, list) for one in reply]  # of EXEC
    return next((reply for reply in replies + within if isinstance(reply, Exception)), None)


def open_url(url: str, run_dir: Path) -> RedisFabric:  # noqa: ARG001 - signature of all transports
    """Open ``redis://[user:password@]host:port/db`` or ``rediss://...``; the server is contacted later.

    Raises:
        FabricURLError: The URL is invalid; the message hides its password.
    """
    return RedisFabric(url)
