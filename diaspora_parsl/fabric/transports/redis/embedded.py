"""The default transport: a private server as a child process, with its data in the run directory."""

from __future__ import annotations

import fcntl
import ipaddress
import os
import shutil
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

from diaspora_parsl.errors import FabricUnavailableError, FabricURLError
from diaspora_parsl.events import Event
from diaspora_parsl.fabric.address import DATA, find_fabric, has_data, live_url, write_record
from diaspora_parsl.fabric.base import Position, redacted
from diaspora_parsl.fabric.transports.redis.embedded_server import LOOPBACK, Server, private_copy
from diaspora_parsl.fabric.transports.redis.redis_streams import StreamSubscription
from diaspora_parsl.fabric.transports.redis.transport import RedisFabric

__all__ = ["EmbeddedFabric", "find_fabric", "open_url"]

_OTHER_STARTS_SECONDS: Final = 5.0


class _Shared:
    """A server and its users in this process; it ends with the last of them."""

    def __init__(self, server: Server, key: Path, temporary: Path | None = None) -> None:
        self.server = server
        self.key = key
        self.temporary = temporary
        self.users = 0


_shared: dict[Path, _Shared] = {}
_guard = threading.Lock()


def _after_fork_in_child() -> None:
    """Drop the servers in a forked child, because the parent owns them."""
    global _guard  # noqa: PLW0603 - another thread of the parent may have held it
    _guard = threading.Lock()
    _shared.clear()


os.register_at_fork(after_in_child=_after_fork_in_child)


class EmbeddedFabric:
    """Fabric on a private server, with the Streams code of `redis`; opened by `open_url`."""

    def __init__(self, url: str, shared: _Shared | None) -> None:
        self._client = RedisFabric(url)
        self._shared = shared
        self._pid = os.getpid()

    def __repr__(self) -> str:
        return f"<EmbeddedFabric {self._client!r}>"

    @property
    def url(self) -> str:
        """See `diaspora_parsl.fabric.base.Fabric.url`; a ``redis://`` URL, valid while the server runs."""
        return self._client.url

    @property
    def server_pid(self) -> int | None:
        """Process id of the server if it is a child of this process."""
        return self._shared.server.server_pid if self._shared else None

    def publish(self, events: Sequence[Event]) -> None:
        """See `diaspora_parsl.fabric.base.Fabric.publish`.

        Raises:
            FabricUnavailableError: The server did not answer.
        """
        self._client.publish(events)

    def subscribe(self, topics: Sequence[str], position: Position = "latest") -> StreamSubscription:
        """See `diaspora_parsl.fabric.base.Fabric.subscribe`.

        Raises:
            ConfigurationError: The position holds a cursor of another transport.
            FabricUnavailableError: The server did not answer.
        """
        return self._client.subscribe(topics, position)

    def close(self) -> None:
        """See `diaspora_parsl.fabric.base.Fabric.close`; the last user ends the server and keeps its data."""
        self._client.close()
        with _guard:
            shared, self._shared = self._shared, None
            if shared is None or self._pid != os.getpid():
                return
            shared.users -= 1
            if shared.users:
                return
            _shared.pop(shared.key, None)
            shared.server.stop()
        if shared.temporary:
            shutil.rmtree(shared.temporary, ignore_errors=True)


def open_url(url: str, run_dir: Path) -> EmbeddedFabric:
    """Open ``embedded[://[/path/to/run_dir][?bind=address]]``.

    Without a path: the fabric of this run. Its server keeps its data in ``<run_dir>/fabric`` and its address in
    ``<run_dir>/fabric.json``; who opens it second, in this process or another on this host, shares it. With a
    path: the fabric of that run if it is live, else a server on a copy of what it kept. ``bind`` is the one address
    besides loopback where workers on other nodes reach it.

    Raises:
        FabricURLError: The URL is invalid, or the path holds no fabric.
        FabricUnavailableError: The server did not start.
        ConfigurationError: The platform has no server program.
    """
    path, bind = _parts(url)
    with _guard:
        if path is None:
            return _own(run_dir.resolve(), bind)
        return _of_run(path.resolve(), url)


def _parts(url: str) -> tuple[Path | None, str]:
    parts = urlsplit(url if "://" in url else "embedded://")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    bind = options.pop("bind", LOOPBACK)
    try:
        ipaddress.ip_address(bind)
    except ValueError:
        raise FabricURLError(
            f'fabric="{redacted(url)}": bind={bind!r} is no IP address. Write that of one interface.'
        ) from None
    if parts.netloc or options:
        raise FabricURLError(
            f'fabric="{redacted(url)}" makes no sense. Write "embedded", or "embedded:///path/to/run_dir".'
        )
    return (Path(unquote(parts.path)) if parts.path.strip("/") else None), bind


def _use(shared: _Shared) -> EmbeddedFabric:
    fabric = EmbeddedFabric(shared.server.url, shared)
    _shared[shared.key] = shared
    shared.users += 1
    return fabric


def _own(run_dir: Path, bind: str) -> EmbeddedFabric:
    if run_dir in _shared:
        return _use(_shared[run_dir])
    folder = run_dir / DATA
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise FabricUnavailableError(f"the fabric cannot keep its data in {folder}: {error}") from error
    try:
        if not _locked(lock):
            return EmbeddedFabric(_wait_for_other(run_dir), None)
        # The supervisor inherits the lock and holds it as long as a server may use the data.
        server = Server(folder, bind, record=run_dir / "fabric.json", keep_open=lock)
        try:
            write_record(run_dir, server.url)
        except OSError as error:
            server.stop()
            raise FabricUnavailableError(f"the fabric cannot write its address to {run_dir}: {error}") from error
        return _use(_Shared(server, run_dir))
    finally:
        os.close(lock)


def _locked(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # a file system without locks: run directories are made for one process each anyhow
    return True


def _wait_for_other(run_dir: Path) -> str:
    deadline = time.monotonic() + _OTHER_STARTS_SECONDS
    while time.monotonic() < deadline:
        if url := live_url(run_dir):
            return url
        time.sleep(0.02)
    raise FabricUnavailableError(
        f"another process holds {run_dir / DATA}, but its fabric does not answer from here. Use another run directory, "
        "or end that process."
    )


def _of_run(run_dir: Path, url: str) -> EmbeddedFabric:
    if run_dir in _shared:
        return _use(_shared[run_dir])
    if live := live_url(run_dir):
        return EmbeddedFabric(live, None)
    if not has_data(run_dir):
        raise FabricURLError(f'fabric="{redacted(url)}": there is no data of a fabric in {run_dir / DATA}.')
    # Serve a copy, so that the ended run stays unchanged, may be read-only, and can be opened several times.
    copy = private_copy(run_dir / DATA)
    try:
        server = Server(copy)
    except BaseException:
        shutil.rmtree(copy, ignore_errors=True)
        raise
    return _use(_Shared(server, copy, temporary=copy))
