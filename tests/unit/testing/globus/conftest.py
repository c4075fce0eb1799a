"""A loop in a thread, brokers in the loop, and clients that use them from outside."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import pytest

from diaspora_parsl.testing import globus

if TYPE_CHECKING:
    from diaspora_parsl.testing.globus import EmulatedEndpoint, LocalGlobusCompute
    from diaspora_parsl.testing.globus.broker.broker import Broker
    from tests.unit.testing.globus.rest import Rest

collect_ignore = (
    [
        f"test_{name}.py"
        for name in ("core", "endpoint", "engine", "hosted", "ledger", "service", "view", "web", "worker")
    ]
    if globus.why_not()
    else []
)

T = TypeVar("T")
LIMIT = 20.0


class Connect(Protocol):
    """Opens a connection of pika to a broker, with some parameters other than usual."""

    def __call__(self, broker: Broker, **changes: Any) -> Any: ...


class Brokers:
    """Starts brokers in a loop of its own, and does there what must be done there."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._errors: list[dict[str, Any]] = []
        self._brokers: list[Broker] = []
        self._thread = threading.Thread(target=self.loop.run_forever, name="brokers")
        self.loop.set_exception_handler(lambda _, context: self._errors.append(context))
        self._thread.start()

    def call(self, function: Callable[..., T], *args: Any, **options: Any) -> T:
        async def run() -> T:
            return function(*args, **options)

        return asyncio.run_coroutine_threadsafe(run(), self.loop).result(LIMIT)

    def start(self, **options: Any) -> Broker:
        from diaspora_parsl.testing.globus.broker.broker import Broker  # noqa: PLC0415 - may be missing

        broker = self.call(Broker, **options)
        self._brokers.append(broker)
        asyncio.run_coroutine_threadsafe(broker.start(), self.loop).result(LIMIT)
        return broker

    def stop(self, broker: Broker) -> None:
        asyncio.run_coroutine_threadsafe(broker.stop(), self.loop).result(LIMIT)

    def end(self) -> None:
        for broker in self._brokers:
            self.stop(broker)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(LIMIT)
        self.loop.close()
        assert not self._errors

    def fill(self, broker: Broker, count: int) -> None:
        """Publish "0", "1", ... to the queue q."""
        self.call(broker.declare, "q")
        for number in range(count):
            assert self.call(broker.publish, "q", str(number).encode())

    @staticmethod
    def got(channel: Any, queue: str = "q") -> list[tuple[str, bool]]:
        """Everything that is ready, and whether it was delivered before; nothing is acknowledged."""
        found: list[tuple[str, bool]] = []
        while True:
            method, _, body = channel.basic_get(queue)
            if method is None:
                return found
            found.append((body.decode(), method.redelivered))

    @staticmethod
    def until(true: Callable[[], bool], connection: Any = None) -> None:
        """Wait, and let a connection work meanwhile."""
        end = time.monotonic() + LIMIT
        while not true():
            assert time.monotonic() < end
            if connection is None:
                time.sleep(0.01)
            else:
                connection.process_data_events(0.01)


@pytest.fixture
def brokers() -> Iterator[Brokers]:
    pytest.importorskip("pika", reason="comes with the SDK of Globus Compute")
    made = Brokers()
    try:
        yield made
    finally:
        made.end()


@pytest.fixture
def broker(brokers: Brokers) -> Broker:
    return brokers.start()


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Open connections that the test need not close."""
    pika = pytest.importorskip("pika")
    opened: list[Any] = []

    def open_one(broker: Broker, **changes: Any) -> Any:
        parameters = pika.URLParameters(broker.url)
        for name, value in changes.items():
            setattr(parameters, name, value)
        connection = pika.BlockingConnection(parameters)
        opened.append(connection)
        return connection

    yield open_one
    for connection in opened:
        try:
            connection.close()
        except pika.exceptions.AMQPError:
            continue  # the test ended it


@pytest.fixture
def service() -> Iterator[LocalGlobusCompute]:
    with globus.LocalGlobusCompute() as running:
        yield running


@pytest.fixture
def alpha(service: LocalGlobusCompute) -> EmulatedEndpoint:
    return service.endpoint("alpha", workers=2)


@pytest.fixture
def make_rest() -> Callable[[LocalGlobusCompute], Rest]:
    from tests.unit.testing.globus.rest import Rest  # noqa: PLC0415 - what it needs may be missing

    return Rest


@pytest.fixture
def rest(service: LocalGlobusCompute, make_rest: Callable[[LocalGlobusCompute], Rest]) -> Rest:
    return make_rest(service)
