"""The broker that delivers results: a listening socket, its connections, and their faults."""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import Mapping
from typing import Final

from pika import frame, spec

from diaspora_parsl.testing.globus.broker.amqp import Connection, Terms
from diaspora_parsl.testing.globus.broker.queues import Message, Queues

_USER: Final = "globus"
_FRAME_MAX: Final = 131072
_HEARTBEAT: Final = 60
_BACKLOG: Final = 128
_STOP_LIMIT: Final = 5.0


class Broker:
    """An AMQP 0-9-1 broker in a running asyncio loop; call it from that loop only.

    It delivers at least once: a message not acknowledged when its channel or connection ends returns to its position in
    the queue. It has direct exchanges and one virtual host, no transactions and no disk, and ignores queue arguments.

    Example:
        >>> broker = Broker()  # doctest: +SKIP
        >>> await broker.start()
        >>> broker.declare("results")
        >>> broker.publish("results", b"42")
        True

    Args:
        host: IPv4 address or name to listen at.
        port: Port to listen at; 0: any free port, kept until `stop`.
        frame_max: Largest frame in bytes, at least 4096; clients may negotiate a smaller one.
        heartbeat: Seconds between heartbeats; 0: no heartbeats.
    """

    def __init__(
        self, host: str = "127.0.0.1", port: int = 0, *, frame_max: int = _FRAME_MAX, heartbeat: int = _HEARTBEAT
    ) -> None:
        self.host = host
        self.port = port
        self._terms = Terms(
            user=_USER,
            password=secrets.token_hex(8),
            frame_max=max(frame_max, spec.FRAME_MIN_SIZE),
            heartbeat=heartbeat,
        )
        self._queues = Queues()
        self._connections: set[Connection] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._accepting: set[asyncio.Task[object]] = set()
        self._loop: asyncio.AbstractEventLoop
        self._holder: socket.socket | None = None
        self._listener: socket.socket | None = None

    @property
    def url(self) -> str:
        """URL for clients."""
        return f"amqp://{self._terms.user}:{self._terms.password}@{self.host}:{self.port}/%2F"

    async def start(self) -> None:
        """Listen.

        Raises:
            OSError: The port is in use.
        """
        self._loop = asyncio.get_running_loop()
        self._holder = self._bind(shared=False)  # never listens: keeps the port while the broker is down
        self.port = self._holder.getsockname()[1]
        self._listen()

    async def stop(self) -> None:
        """End every connection and drop every message."""
        self.set_down(down=True)
        if self._holder is not None:
            self._holder.close()
            self._holder = None
        if self._accepting:
            await asyncio.wait(self._accepting, timeout=_STOP_LIMIT)
        await asyncio.wait_for(self._idle.wait(), _STOP_LIMIT)
        self._queues = Queues()

    # --- messages -------------------------------------------------------------------------------------------------

    def declare(self, queue: str) -> None:
        """Create a queue if it does not exist."""
        self._queues.declare(queue)

    def publish(self, queue: str, body: bytes, headers: Mapping[str, str] | None = None) -> bool:
        """Append a message to a queue; return whether the queue exists."""
        properties = spec.BasicProperties(
            content_type="application/octet-stream", delivery_mode=2, headers=dict(headers or {})
        )
        header = frame.Header(0, len(body), properties).marshal()[spec.FRAME_HEADER_SIZE : -spec.FRAME_END_SIZE]
        return self._queues.publish(Message(header=header, body=body, routing_key=queue), self._loop.time()) > 0

    def waiting(self, queue: str) -> int:
        """Return the number of unacknowledged messages of a queue; 0 for an unknown queue."""
        if queue not in self._queues:
            return 0
        found = self._queues.find(queue)
        return found.ready + found.unacknowledged

    def expire(self, older_than: float) -> int:
        """Drop undelivered messages older than ``older_than`` seconds; return their number."""
        born_before = self._loop.time() - older_than
        return sum(queue.expire(born_before) for queue in self._queues)

    # --- faults ---------------------------------------------------------------------------------------------------

    def drop_connections(self) -> int:
        """Abort every connection, as a network failure does; return their number."""
        for connection in self._connections:
            connection.abort()
        return len(self._connections)

    def set_down(self, down: bool) -> None:  # noqa: FBT001 - a switch
        """Drop and refuse connections, or listen again at the same port; messages stay."""
        if not down:
            self._listen()
            return
        if self._listener is not None:
            self._loop.remove_reader(self._listener)
            self._listener.close()
            self._listener = None
        self.drop_connections()

    # --- sockets --------------------------------------------------------------------------------------------------

    def _bind(self, *, shared: bool) -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if shared:
                made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            made.bind((self.host, self.port))
            # Set on the holder only after bind, so that a port in use is refused.
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        except OSError:
            made.close()
            raise
        return made

    def _listen(self) -> None:
        if self._listener is not None:
            return
        self._listener = self._bind(shared=True)
        self._listener.setblocking(False)
        self._listener.listen(_BACKLOG)
        self._loop.add_reader(self._listener, self._accept, self._listener)

    def _accept(self, listener: socket.socket) -> None:
        try:
            accepted = listener.accept()[0]
        except (BlockingIOError, ConnectionError):
            return  # the client has disconnected
        accepted.setblocking(False)
        task = self._loop.create_task(self._loop.connect_accepted_socket(self._connection, accepted))
        self._accepting.add(task)
        task.add_done_callback(self._accepting.discard)

    def _connection(self) -> Connection:
        return Connection(self._queues, self._terms, self._begin, self._end)

    def _begin(self, connection: Connection) -> None:
        self._connections.add(connection)
        self._idle.clear()
        if self._listener is None:  # the broker went down during the accept
            connection.abort()

    def _end(self, connection: Connection) -> None:
        self._connections.discard(connection)
        if not self._connections:
            self._idle.set()
