"""A server to kill and start again on the same port, a fabric that fails on demand, and a look for leftovers."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path

import psutil
import pytest

from diaspora_parsl.errors import FabricUnavailableError
from diaspora_parsl.events import TOPIC_RESOURCE, TOPIC_TASK, Event, NodeHeartbeat, TaskLate, encode_payload
from diaspora_parsl.fabric.base import Fabric, Position, Subscription, open_fabric
from diaspora_parsl.fabric.transports import memory
from diaspora_parsl.fabric.transports.redis.embedded_server import find_server, free_port, write_config

_numbers = count(1)


class Tools:
    """What the tests of this folder share."""

    @staticmethod
    def wait_for(condition: Callable[[], object], seconds: float = 30.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "waited in vain"
            time.sleep(0.005)

    @staticmethod
    def state(task: int = 0) -> TaskLate:
        return TaskLate(task=task, attempt=1, endpoint="e", site="s")

    @staticmethod
    def sample() -> NodeHeartbeat:
        return NodeHeartbeat(endpoint="e", site="s")

    @classmethod
    def event(cls, *, is_state: bool = True, source: str = "/test") -> Event:
        payload = cls.state() if is_state else cls.sample()
        number = next(_numbers)
        return Event(
            id=f"id-{number}",
            source=source,
            type=payload.event_type(),
            subject="x",
            time="2026-01-01T00:00:00Z",
            partitionkey="k",
            sequence=number,
            data=encode_payload(payload),
        )

    @classmethod
    def events(cls, n: int, *, is_state: bool = True) -> list[Event]:
        return [cls.event(is_state=is_state) for _ in range(n)]

    @staticmethod
    def everything(fabric: Fabric, topics: Sequence[str] = (TOPIC_TASK, TOPIC_RESOURCE)) -> list[Event]:
        """All events that the fabric holds now."""
        reader = fabric.subscribe(topics, "earliest")
        got: list[Event] = []
        while more := reader.read(0):
            got += more
        reader.close()
        return got


class Valkey:
    """A server that is killed and started again by hand."""

    def __init__(self, folder: Path) -> None:
        self.password = secrets.token_hex(8)
        self.port = free_port()
        self.url = f"redis://:{self.password}@127.0.0.1:{self.port}/0"
        self.config = write_config(folder, self.port, self.password)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen([find_server(), self.config], stdin=subprocess.DEVNULL)
        fabric = open_fabric(self.url)

        def is_there() -> bool:
            try:
                fabric.subscribe([TOPIC_TASK]).close()
            except FabricUnavailableError:
                return False
            return True

        Tools.wait_for(is_there)
        fabric.close()

    def kill(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait(5)
            self.process = None

    def signal(self, number: signal.Signals) -> None:
        assert self.process
        os.kill(self.process.pid, number)


class Flaky:
    """A memory fabric that is down when told, and may lose the answer although the events arrived."""

    def __init__(self, name: str) -> None:
        self.inner = open_fabric(f"memory://{name}")
        self.is_down = False
        self.loses_answers = 0
        self.attempts: list[float] = []

    @property
    def url(self) -> str:
        return "redis://:secret@flaky:1/0"

    def publish(self, events: Sequence[Event]) -> None:
        self.attempts.append(time.monotonic())
        if self.is_down:
            raise FabricUnavailableError("redis://:***@flaky:1/0 cannot be reached")
        self.inner.publish(events)
        if events and self.loses_answers:
            self.loses_answers -= 1
            raise FabricUnavailableError("redis://:***@flaky:1/0 did not answer")

    def subscribe(self, topics: Sequence[str], position: Position = "latest") -> Subscription:
        return self.inner.subscribe(topics, position)

    def close(self) -> None:
        self.inner.close()


@pytest.fixture(autouse=True)
def _nothing_left_behind() -> Iterator[None]:
    threads = set(threading.enumerate())
    children = set(psutil.Process().children(recursive=True))
    yield
    Tools.wait_for(lambda: set(psutil.Process().children(recursive=True)) <= children, 5)
    assert set(threading.enumerate()) <= threads


@pytest.fixture
def tools() -> type[Tools]:
    return Tools


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Valkey]:
    folder = tmp_path / "valkey"
    folder.mkdir()
    server = Valkey(folder)
    yield server
    server.kill()


@pytest.fixture
def flaky() -> Iterator[Flaky]:
    name = secrets.token_hex(4)
    yield Flaky(name)
    memory.forget(name)
