"""A link between two hosts that tests can cut: a TCP proxy on this host."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from typing import Final, Self
from urllib.parse import urlsplit

_CHUNK: Final = 1 << 16
_POLL: Final = 0.2
#: Seconds in which a change of state must take effect.
_LIMIT: Final = 10.0


class Wan:
    """Forwards TCP connections from its own port to a server, until it is cut.

    Args:
        host: Host of the server.
        port: Port of the server.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._changed = threading.Condition()
        self._pairs: dict[socket.socket, socket.socket] = {}
        self._hanging: list[socket.socket] = []
        self._state = self._in_force = "up"
        self._wake, self._bell = socket.socketpair()
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="diaspora-wan", daemon=True)
        self._thread.start()

    @classmethod
    def to(cls, url: str) -> Self:
        """Return a link to the server of a fabric.

        Args:
            url: URL of the fabric, with host and port.
        """
        parts = urlsplit(url)
        return cls(parts.hostname or "127.0.0.1", parts.port or 0)

    def url(self, url: str) -> str:
        """Return the URL of the fabric through this link."""
        parts = urlsplit(url)
        secrets, at, _ = parts.netloc.rpartition("@")
        return parts._replace(netloc=f"{secrets}{at}127.0.0.1:{self.port}").geturl()

    def __enter__(self) -> Self:
        """Return the link, which is up."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the link."""
        self.close()

    def cut(self, how: str = "refuse") -> None:
        """Cut the link: ``refuse`` closes all connections and refuses new ones; ``drop`` lets all of them hang."""
        if how not in {"refuse", "drop"}:
            raise ValueError(f'how={how!r}: write "refuse" or "drop"')
        self._set(how)

    def mend(self) -> None:
        """Restore the link; connections that hang are closed."""
        self._set("up")

    def close(self) -> None:
        """Close every connection and the port."""
        self._is_closed = True
        self._bell.send(b"!")
        self._thread.join(5.0)
        for one in (self._listener, self._wake, self._bell):
            one.close()

    def _set(self, state: str) -> None:
        with self._changed:
            self._state = state
            self._bell.send(b"!")
            # A connection made after this call meets the new state.
            self._changed.wait_for(lambda: self._in_force == state or self._is_closed, _LIMIT)

    def _run(self) -> None:
        known = "up"
        while not self._is_closed:
            with self._changed:
                state = self._state
            if state != known:
                known = state
                if state != "drop":
                    self._break_all()
                with self._changed:
                    self._in_force = state
                    self._changed.notify_all()
            watched = [self._wake, self._listener] if state == "drop" else [self._wake, self._listener, *self._pairs]
            for ready in select.select(watched, [], [], _POLL)[0]:
                if ready is self._wake:
                    self._wake.recv(64)
                elif ready is self._listener:
                    self._accept(state)
                elif ready in self._pairs:
                    self._forward(ready)
        self._break_all()

    def _accept(self, state: str) -> None:
        near, _ = self._listener.accept()
        if state == "refuse":
            near.close()
            return
        if state == "drop":  # accept without forwarding, so that the client hangs
            self._hanging.append(near)
            return
        try:
            far = socket.create_connection(self._target, timeout=2.0)
        except OSError:
            near.close()
            return
        far.settimeout(5.0)
        near.settimeout(5.0)
        self._pairs[near], self._pairs[far] = far, near

    def _forward(self, one: socket.socket) -> None:
        try:
            data = one.recv(_CHUNK)
            if data:
                self._pairs[one].sendall(data)
                return
        except OSError:
            pass  # a broken connection counts as closed
        self._break(one)

    def _break(self, one: socket.socket) -> None:
        other = self._pairs.pop(one)
        del self._pairs[other]
        for end in (one, other):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _break_all(self) -> None:
        while self._pairs:
            self._break(next(iter(self._pairs)))
        while self._hanging:
            self._hanging.pop().close()
