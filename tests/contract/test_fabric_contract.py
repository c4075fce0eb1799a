"""What every transport promises; one test, run against each of them."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import psutil
import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from diaspora_parsl.errors import ConfigurationError, FabricUnavailableError, FabricURLError
from diaspora_parsl.events import (
    TOPIC_ENDPOINT,
    TOPIC_RESOURCE,
    TOPIC_TASK,
    EndpointUp,
    Event,
    NodeHeartbeat,
    Payload,
    TaskLate,
    encode_payload,
)
from diaspora_parsl.fabric.base import Fabric, Subscription, open_fabric, redacted
from diaspora_parsl.fabric.transports import memory
from diaspora_parsl.fabric.transports.redis.embedded import EmbeddedFabric
from diaspora_parsl.fabric.transports.redis.embedded_server import find_server, free_port, write_config
from diaspora_parsl.testing.services import fake_diaspora_stream
from diaspora_parsl.testing.services.kafka import KafkaBroker, MockBroker
from diaspora_parsl.testing.services.octopus import LocalOctopus

_numbers = count(1)


def event(payload: Payload | None = None, key: str = "k") -> Event:
    number = next(_numbers)
    payload = payload or TaskLate(task=number, attempt=1, endpoint="e", site="s")
    return Event(
        id=f"id-{number}",
        source="/test",
        type=payload.event_type(),
        subject="x",
        time="2026-01-01T00:00:00Z",
        partitionkey=key,
        sequence=number,
        data=encode_payload(payload),
    )


def events(n: int) -> list[Event]:
    return [event() for _ in range(n)]


def ids(read: list[Event]) -> list[str]:
    return [one.id for one in read]


def read_until(reader: Subscription, n: int, seconds: float = 10.0) -> list[Event]:
    """Read until there are n events; what an outage raises is waited out."""
    got: list[Event] = []
    deadline = time.monotonic() + seconds
    while len(got) < n and time.monotonic() < deadline:
        try:
            got += reader.read(0.2)
        except FabricUnavailableError:
            time.sleep(0.01)
    return got


class Place:
    """One log that can be opened again and again."""

    survives_kill = True

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.opened: list[Fabric] = []

    def url(self) -> str:
        raise NotImplementedError

    def pid(self) -> int:
        raise NotImplementedError

    def open(self, maxlen: int | None = None) -> Fabric:
        fabric = open_fabric(self.url() + (f"?maxlen={maxlen}" if maxlen else ""), self.folder)
        self.opened.append(fabric)
        return fabric

    def kill(self) -> None:
        """SIGKILL, and back again with what the server had answered."""
        raise NotImplementedError

    def trim(self, fabric: Fabric, readers: list[Subscription]) -> list[Subscription]:  # noqa: ARG002
        """Have old entries trimmed, if that has not happened yet; the readers to go on with."""
        return readers

    def close(self) -> None:
        while self.opened:
            self.opened.pop().close()


class MemoryPlace(Place):
    survives_kill = False

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.name = secrets.token_hex(4)

    def url(self) -> str:
        return f"memory://{self.name}"

    def close(self) -> None:
        super().close()
        memory.forget(self.name)


class RedisPlace(Place):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.password = secrets.token_hex(8)
        self.port = free_port()
        self.config = write_config(folder, self.port, self.password)
        self.server: subprocess.Popen[bytes] | None = None
        self.start()

    def url(self) -> str:
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    def pid(self) -> int:
        assert self.server
        return self.server.pid

    def start(self) -> None:
        self.server = subprocess.Popen([find_server(), self.config], stdin=subprocess.DEVNULL)
        fabric = open_fabric(self.url())
        wait_for(lambda: answers(fabric))
        fabric.close()

    def stop(self) -> None:
        if self.server:
            self.server.kill()
            self.server.wait(5)
            self.server = None

    def kill(self) -> None:
        self.stop()
        self.start()

    def close(self) -> None:
        super().close()
        self.stop()


class EmbeddedPlace(Place):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        first = self.open()
        assert isinstance(first, EmbeddedFabric)
        self.first = first

    def url(self) -> str:
        return self.first.url if self.opened else "embedded"

    def pid(self) -> int:
        pid = self.first.server_pid
        assert pid
        return pid

    def kill(self) -> None:
        before = self.pid()
        os.kill(before, signal.SIGKILL)
        wait_for(lambda: self.pid() != before and answers(self.first))  # its supervisor starts it again


class FilesPlace(Place):
    """A folder of the Diaspora Stream API, by its double; `StreamLibraryPlace` is the real one."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.library = fake_diaspora_stream.installed()
        self.library.__enter__()

    def url(self) -> str:
        return f"diaspora+files://{self.folder}/stream"

    def open(self, maxlen: int | None = None) -> Fabric:
        if maxlen:
            pytest.skip("the Diaspora Stream API keeps everything")
        return super().open()

    def close(self) -> None:
        super().close()
        self.library.__exit__(None, None, None)


class MofkaPlace(FilesPlace):
    """A server of Mofka, by the double."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.mofka = fake_diaspora_stream.MofkaServer(folder)
        self.mofka.start()

    def url(self) -> str:
        return f"diaspora+mofka://{self.mofka.group_file}?timeout=1"

    def kill(self) -> None:
        self.mofka.kill()
        self.mofka.start()


class StreamLibraryPlace(FilesPlace):
    """The real library, where it is installed."""

    def __init__(self, folder: Path) -> None:
        pytest.importorskip("diaspora_stream.api", reason="the Diaspora Stream API is not installed")
        Place.__init__(self, folder)

    def close(self) -> None:
        Place.close(self)


class KafkaPlace(Place):
    """Topics of its own on a broker that the tests share; where there is none, on a mock of one."""

    def __init__(self, folder: Path, broker: KafkaBroker | MockBroker) -> None:
        super().__init__(folder)
        self.broker = broker
        self.prefix = secrets.token_hex(4)

    def url(self) -> str:
        # What has no controller cannot create topics.
        return f"kafka://{self.broker.address}/{self.prefix}?timeout=1&create={str(self.broker.is_real).lower()}"

    def open(self, maxlen: int | None = None) -> Fabric:
        if maxlen and not self.broker.is_real:
            pytest.skip("the mock cluster of Kafka cannot trim")
        return super().open()  # Kafka keeps by age

    def trim(self, fabric: Fabric, readers: list[Subscription]) -> list[Subscription]:
        again = []
        for reader in readers:
            reader.close()  # it may have read ahead, and would miss nothing
            again.append(fabric.subscribe([TOPIC_TASK], reader.position))
        admin = AdminClient({"bootstrap.servers": self.broker.address})
        (future,) = admin.delete_records([TopicPartition(f"{self.prefix}.{TOPIC_TASK}", 0, 250)]).values()
        future.result(10)
        return again


class OctopusPlace(Place):
    """The web service of Octopus."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.octopus = LocalOctopus()
        self.octopus.__enter__()
        self.environment = pytest.MonkeyPatch()
        for name, value in self.octopus.environment.items():
            self.environment.setenv(name, value)

    def url(self) -> str:
        return self.octopus.url

    def open(self, maxlen: int | None = None) -> Fabric:  # noqa: ARG002 - Octopus keeps by age
        return super().open()

    def trim(self, fabric: Fabric, readers: list[Subscription]) -> list[Subscription]:  # noqa: ARG002
        self.octopus.trim(TOPIC_TASK, 250)
        return readers

    def close(self) -> None:
        super().close()
        self.environment.undo()
        self.octopus.__exit__()


class KafkaServerPlace(KafkaPlace):
    """A broker of its own, over TLS and with a login, to be killed."""

    def __init__(self, folder: Path) -> None:
        self.own = KafkaBroker(folder)
        super().__init__(folder, self.own)
        self.own.__enter__()
        self._wait_until_it_answers()

    def url(self) -> str:
        return self.own.secure_url(self.prefix) + "&timeout=1"

    def pid(self) -> int:
        return self.own.pid

    def kill(self) -> None:
        self.own.kill()
        self.own.start()
        self._wait_until_it_answers()

    def _wait_until_it_answers(self) -> None:
        fabric = super().open()
        wait_for(lambda: answers(fabric), 30.0)  # on a busy machine the first topic takes longer than a time-out

    def close(self) -> None:
        super().close()
        self.own.close()


def answers(fabric: Fabric) -> bool:
    try:
        fabric.subscribe([TOPIC_TASK]).close()
    except FabricUnavailableError:
        return False
    return True


def wait_for(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


PLACES: dict[str, type[Place]] = {
    "memory": MemoryPlace,
    "redis": RedisPlace,
    "embedded": EmbeddedPlace,
    "octopus+https": OctopusPlace,
    "files": FilesPlace,
    "mofka": MofkaPlace,
    "stream-library": StreamLibraryPlace,
}
#: Servers with a process of their own, and all that can be killed and come back.
SERVERS: dict[str, type[Place]] = {"redis": RedisPlace, "embedded": EmbeddedPlace, "kafka": KafkaServerPlace}
RESTARTED: dict[str, type[Place]] = {**SERVERS, "mofka": MofkaPlace}


@pytest.fixture(autouse=True)
def _nothing_left_behind() -> Iterator[None]:
    threads = set(threading.enumerate())
    children = set(psutil.Process().children(recursive=True))
    yield
    assert set(threading.enumerate()) <= threads
    assert set(psutil.Process().children(recursive=True)) <= children


@pytest.fixture(scope="session", params=[*PLACES, "kafka"])
def make(request: pytest.FixtureRequest) -> Callable[[Path], Place]:
    """Makes a place of one kind; the broker that places on Kafka share is started first, outside of any test."""
    if request.param != "kafka":
        return PLACES[request.param]
    broker = request.getfixturevalue("kafka_broker")
    return lambda folder: KafkaPlace(folder, broker)


@pytest.fixture
def place(make: Callable[[Path], Place], tmp_path: Path) -> Iterator[Place]:
    made = make(tmp_path)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(params=RESTARTED)
def restarted(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    yield from _server(RESTARTED[request.param], tmp_path)


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    yield from _server(SERVERS[request.param], tmp_path)


def _server(kind: type[Place], folder: Path) -> Iterator[Place]:
    if kind is KafkaServerPlace and (reason := KafkaBroker.why_not()):
        pytest.skip(reason)
    made = kind(folder)
    try:
        yield made
    finally:
        made.close()


def test_is_a_fabric(place: Place) -> None:
    fabric = place.open()
    assert isinstance(fabric, Fabric)
    assert isinstance(fabric.subscribe([TOPIC_TASK]), Subscription)


def test_what_is_published_is_read_in_order(place: Place) -> None:
    fabric = place.open()
    reader = fabric.subscribe([TOPIC_TASK])
    sent = events(237)  # not a multiple of anything
    fabric.publish(sent[:120])
    fabric.publish(sent[120:])
    got = read_until(reader, len(sent))
    assert got == sent
    assert got[0].payload() == sent[0].payload()
    assert reader.read(0) == []
    assert (reader.resyncs, reader.malformed) == (0, 0)


def test_order_is_kept_per_key_with_several_publishers(place: Place) -> None:
    fabric = place.open()
    reader = fabric.subscribe([TOPIC_TASK])
    sent = {key: [event(key=key) for _ in range(60)] for key in "abc"}

    def publish(key: str) -> None:
        own = place.open()
        for one in sent[key]:
            own.publish([one])

    threads = [threading.Thread(target=publish, args=(key,)) for key in sent]
    for thread in threads:
        thread.start()
    got = read_until(reader, 180)
    for thread in threads:
        thread.join(10)
    assert {key: [one for one in got if one.partitionkey == key] for key in sent} == sent


def test_topics_are_apart(place: Place) -> None:
    fabric = place.open()
    task, up = event(), event(EndpointUp(endpoint="e", site="s", reason="r"))
    beat = event(NodeHeartbeat(endpoint="e"))
    endpoints, rest = fabric.subscribe([TOPIC_ENDPOINT]), fabric.subscribe([TOPIC_TASK, TOPIC_RESOURCE])
    fabric.publish([task, up, beat])
    assert read_until(endpoints, 1) == [up]
    assert sorted(ids(read_until(rest, 2))) == sorted(ids([task, beat]))
    assert endpoints.read(0) == []


def test_latest_sees_only_what_comes_after(place: Place) -> None:
    fabric = place.open()
    fabric.publish(events(3))
    reader = fabric.subscribe([TOPIC_TASK, TOPIC_ENDPOINT], "latest")
    new = event()
    fabric.publish([new])
    assert read_until(reader, 1) == [new]
    assert reader.resyncs == 0


def test_earliest_replays_everything(place: Place) -> None:
    fabric = place.open()
    sent = events(130)
    fabric.publish(sent)
    assert read_until(place.open().subscribe([TOPIC_TASK, TOPIC_ENDPOINT], "earliest"), 130) == sent


def test_two_readers_are_independent(place: Place) -> None:
    fabric = place.open()
    one, two = fabric.subscribe([TOPIC_TASK]), place.open().subscribe([TOPIC_TASK])
    sent = events(10)
    fabric.publish(sent)
    assert read_until(one, 10) == sent
    assert read_until(two, 10) == sent


def test_a_saved_cursor_goes_on_where_it_was(place: Place) -> None:
    fabric = place.open()
    reader = fabric.subscribe([TOPIC_TASK], "earliest")
    before, after = events(5), events(5)
    fabric.publish(before)
    assert read_until(reader, 5) == before
    saved = dict(reader.position)
    reader.close()
    fabric.publish(after)
    resumed = place.open().subscribe([TOPIC_TASK, TOPIC_ENDPOINT], saved)
    assert read_until(resumed, 5) == after
    assert resumed.resyncs == 0


def test_a_cursor_of_another_transport_is_refused(place: Place) -> None:
    with pytest.raises(ConfigurationError, match="no cursor"):
        place.open().subscribe([TOPIC_TASK], {TOPIC_TASK: "whatever"})


def test_an_empty_read_takes_its_time_and_no_more(place: Place) -> None:
    reader = place.open().subscribe([TOPIC_TASK])
    started = time.monotonic()
    assert reader.read(0.15) == []
    assert 0.1 < time.monotonic() - started < 2
    assert reader.read(0) == []


def test_trimmed_cursor_is_a_resync_not_silence(place: Place) -> None:
    fabric = place.open(maxlen=100)
    slow = fabric.subscribe([TOPIC_TASK])
    early = fabric.subscribe([TOPIC_TASK], "earliest")
    assert early.read(0) == []
    fabric.publish([event()])
    assert len(read_until(slow, 1)) == 1
    for _ in range(6):  # servers trim by blocks of about 100 entries
        for one in events(60):
            fabric.publish([one])
    slow, early = place.trim(fabric, [slow, early])
    got = read_until(slow, 100)
    assert slow.resyncs == 1
    assert 1 <= len(got) < 360
    read_until(early, 100)
    assert early.resyncs == 1
    late = place.open().subscribe([TOPIC_TASK], "earliest")
    assert len(read_until(late, 100)) >= 100
    assert late.resyncs == 0


def test_close_wakes_a_blocked_read(place: Place) -> None:
    fabric = place.open()
    reader = fabric.subscribe([TOPIC_TASK])
    got: list[list[Event]] = []
    thread = threading.Thread(target=lambda: got.append(reader.read(60)))
    thread.start()
    time.sleep(0.05)
    started = time.monotonic()
    reader.close()
    thread.join(5)
    assert not thread.is_alive()
    assert time.monotonic() - started < 1
    assert got == [[]]
    reader.close()
    assert reader.read(60) == []


def test_closing_the_fabric_closes_its_readers(place: Place) -> None:
    fabric = place.open()
    reader = fabric.subscribe([TOPIC_TASK])
    thread = threading.Thread(target=reader.read, args=(60,))
    thread.start()
    time.sleep(0.05)
    fabric.close()
    fabric.close()
    thread.join(5)
    assert not thread.is_alive()
    with pytest.raises(FabricUnavailableError, match="closed"):
        fabric.publish(events(1))
    with pytest.raises(FabricUnavailableError, match="closed"):
        fabric.subscribe([TOPIC_TASK])


def test_nothing_to_publish_is_fine(place: Place) -> None:
    place.open().publish([])


def test_a_killed_server_comes_back_with_everything_it_answered(restarted: Place) -> None:
    fabric = restarted.open()
    reader = fabric.subscribe([TOPIC_TASK], "earliest")
    sent = events(2000)
    for start in range(0, 2000, 20):
        fabric.publish(sent[start : start + 20])
    assert read_until(reader, 100)[0] == sent[0]
    restarted.kill()
    again = restarted.open().subscribe([TOPIC_TASK], "earliest")
    assert read_until(again, 2000) == sent


def test_reader_and_publisher_reconnect_by_themselves(restarted: Place) -> None:
    fabric = restarted.open()
    reader = fabric.subscribe([TOPIC_TASK], "earliest")
    before, after = events(10), events(10)
    fabric.publish(before)
    assert read_until(reader, 10) == before
    restarted.kill()

    def published() -> bool:
        try:
            fabric.publish(after)
        except FabricUnavailableError:
            return False
        return True

    wait_for(published)
    got = read_until(reader, 10)
    assert got[-10:] == after
    assert reader.resyncs == 0


def test_a_stopped_server_costs_about_a_second(server: Place) -> None:
    fabric = server.open()
    reader = fabric.subscribe([TOPIC_TASK])
    fabric.publish(events(1))
    assert read_until(reader, 1)  # a client that reads ahead may have it already
    os.kill(server.pid(), signal.SIGSTOP)
    try:
        started = time.monotonic()
        with pytest.raises(FabricUnavailableError):
            reader.read(0.2)
        assert time.monotonic() - started < 2.2
        started = time.monotonic()
        with pytest.raises(FabricUnavailableError):
            fabric.publish(events(1))
        assert time.monotonic() - started < 2
    finally:
        os.kill(server.pid(), signal.SIGCONT)
    wait_for(lambda: answers(fabric))
    fabric.publish(events(1))
    assert read_until(reader, 1)


def test_credentials_are_never_shown(server: Place, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    fabric = server.open()
    password = fabric.url.split(":")[2].partition("@")[0]
    assert len(password) >= 16
    wrong = fabric.url.replace(password, "not-the-secret")
    reader = fabric.subscribe([TOPIC_TASK])
    bad = open_fabric(wrong)
    with pytest.raises(FabricUnavailableError, match="refuses the user name or password") as caught:
        bad.publish(events(1))
    with pytest.raises(FabricUnavailableError):
        bad.subscribe([TOPIC_TASK])
    bad.close()
    said = [repr(fabric), str(fabric), repr(reader), repr(bad), str(caught.value), repr(caught.value), caplog.text]
    assert not [text for text in said if password in text or "not-the-secret" in text]


def test_a_server_restarted_empty_is_a_resync(tmp_path: Path) -> None:
    place = RedisPlace(tmp_path)
    try:
        fabric = place.open()
        reader = fabric.subscribe([TOPIC_TASK, TOPIC_ENDPOINT], "earliest")
        fabric.publish(events(3))
        read_until(reader, 3)
        place.stop()
        for path in (tmp_path / "appendonlydir").iterdir():
            path.unlink()
        place.start()
        wait_for(lambda: not read_until(reader, 1, seconds=0.01) and reader.resyncs > 0)
        new = event()
        fabric.publish([new])
        assert read_until(reader, 1) == [new]
        assert reader.resyncs == 1
    finally:
        place.close()


def test_what_is_no_event_is_counted_and_skipped(tmp_path: Path) -> None:
    place = RedisPlace(tmp_path)
    try:
        fabric = place.open()
        reader = fabric.subscribe([TOPIC_TASK])
        good = event()
        link = fabric._link  # type: ignore[attr-defined]  # the only way to write nonsense
        deep = b"[" * 100_000
        for body in (b"", b"nonsense", b'{"id": 1}', b"\xff\xfe", deep):
            link.run(("XADD", "diaspora:parsl-task", "*", "e", body))
        link.run(("XADD", "diaspora:parsl-task", "*", "other", "field"))
        link.run(("XADD", "diaspora:parsl-task", "*", "e", b'[{"id": 1}, "x"]'))
        fabric.publish([good])
        assert read_until(reader, 1) == [good]
        assert reader.malformed == 8
    finally:
        place.close()


def test_full_memory_costs_the_oldest_events_not_the_new_ones(tmp_path: Path) -> None:
    place = RedisPlace(tmp_path)
    try:
        fabric = place.open()
        big = [event(EndpointUp(endpoint="e", site="s", reason="x" * 20_000)) for _ in range(200)]
        fabric.publish(big)
        link = fabric._link  # type: ignore[attr-defined]  # a test may look inside
        used = link.run(("INFO", "memory"))[0].decode().split("used_memory:")[1].split()[0]
        link.run(("CONFIG", "SET", "maxmemory", used))
        reader = fabric.subscribe([TOPIC_ENDPOINT], "earliest")
        assert reader.read(0) != []
        new = event()
        fabric.publish([new])
        assert read_until(fabric.subscribe([TOPIC_TASK], "earliest"), 1) == [new]
    finally:
        place.close()


def test_an_unreachable_server_costs_milliseconds() -> None:
    fabric = open_fabric(f"redis://:secret@127.0.0.1:{free_port()}/0")
    reader = fabric.subscribe([TOPIC_TASK], "earliest")
    for ask in (lambda: fabric.publish(events(1)), lambda: fabric.subscribe([TOPIC_TASK]), lambda: reader.read(1)):
        started = time.monotonic()
        with pytest.raises(FabricUnavailableError, match=r"redis://:\*\*\*@127.0.0.1:\d+/0 cannot be reached"):
            ask()
        assert time.monotonic() - started < 1
    fabric.close()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "   ",
        "localhost:6379",
        "http://host",
        "memory://x?maxlen=none",
        "memory://x/y",
        "redis://",
        "redis://host:notaport/0",
        "redis://host:6379/0?maxlen=0",
        "redis://host:6379/0?timeout=soon",
        "redis://host:6379/0?no_such_option=1",
        "redis://host:6379/zero",
        "redis://:hun/ter2#secret@host:6379/0",
        "embedded:///no/such/run",
        "embedded://host/path",
        "embedded://?bind=somewhere",
        "diaspora+mofka://host/group_file",
        "diaspora+mofka:///group?timeout=0",
        "diaspora+files://",
        "diaspora+files:///folder?no_such_option=1",
        "diaspora+files:///folder?prefix=a/b",
    ],
)
def test_a_bad_url_says_what_to_write(url: str, tmp_path: Path) -> None:
    with pytest.raises(FabricURLError) as caught:
        open_fabric(url, tmp_path)
    message = str(caught.value)
    assert "Write" in message or "there is no data" in message
    assert "secret" not in message
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://host:6379/0", "redis://host:6379/0"),
        ("redis://:pw@host/0", "redis://:***@host/0"),
        ("rediss://user:pw@host/0?ssl_cert_reqs=none", "rediss://user:***@host/0?ssl_cert_reqs=none"),
        ("redis://:p@w/#?@host/0", "redis://:***@host/0"),
        ("redis://token@host/0", "redis://:***@host/0"),
        ("redis://host/0?password=pw&maxlen=5", "redis://host/0?password=***&maxlen=5"),
        ("embedded", "embedded"),
    ],
)
def test_redacted(url: str, shown: str) -> None:
    assert redacted(url) == shown
