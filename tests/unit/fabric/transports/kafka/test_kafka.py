"""What is special about Kafka, on a real broker, or on the mock cluster where there is none."""

from __future__ import annotations

import base64
import json
import os
import secrets
import time
from pathlib import Path

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
from msgspec import Raw, structs

from diaspora_parsl.errors import FabricUnavailableError
from diaspora_parsl.events import TOPIC_ENDPOINT, TOPIC_TASK, Event, TaskLate, encode_payload
from diaspora_parsl.fabric.base import Fabric, Subscription, open_fabric
from diaspora_parsl.fabric.transports.kafka.transport import KafkaFabric
from diaspora_parsl.fabric.transports.redis.embedded_server import free_port
from diaspora_parsl.testing.services import kafka
from diaspora_parsl.testing.services.kafka import KafkaBroker, MockBroker


def event(number: int, key: str = "k") -> Event:
    payload = TaskLate(number, 1, "e", "s")
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


def read_until(reader: Subscription, n: int, seconds: float = 10.0) -> list[Event]:
    got: list[Event] = []
    deadline = time.monotonic() + seconds
    while len(got) < n and time.monotonic() < deadline:
        got += reader.read(0.2)
    return got


@pytest.fixture
def url(kafka_broker: KafkaBroker | MockBroker) -> str:
    create = str(kafka_broker.is_real).lower()
    return f"kafka://{kafka_broker.address}/{secrets.token_hex(4)}?create={create}"


@pytest.fixture
def broker(kafka_broker: KafkaBroker | MockBroker) -> KafkaBroker:
    if not isinstance(kafka_broker, KafkaBroker):
        pytest.skip(KafkaBroker.why_not() or "")
    return kafka_broker


def prefix_of(fabric: Fabric) -> str:
    return fabric.url.split("/")[3].partition("?")[0]


def test_order_per_key_and_one_cursor_with_several_partitions(url: str) -> None:
    fabric = open_fabric(f"{url}&partitions=3")
    sent = [event(n, key=f"key-{n % 7}") for n in range(300)]
    fabric.publish(sent[:200])
    reader = fabric.subscribe([TOPIC_TASK], "earliest")
    got = read_until(reader, 200)
    saved = dict(reader.position)
    assert saved[TOPIC_TASK].count(":") >= 3
    fabric.publish(sent[200:])
    got += read_until(fabric.subscribe([TOPIC_TASK], saved), 100)
    for key in {one.partitionkey for one in sent}:
        assert [one for one in got if one.partitionkey == key] == [one for one in sent if one.partitionkey == key]
    assert len(got) == 300
    fabric.close()


def test_a_topic_that_comes_later_is_read_from_its_beginning(url: str) -> None:
    fabric = open_fabric(url.replace("create=true", "create=false"))
    reader = fabric.subscribe([TOPIC_TASK, TOPIC_ENDPOINT], "latest")
    assert reader.read(0) == []
    assert reader.position[TOPIC_TASK] == "0:0"
    fabric.publish([event(1)])  # the broker makes the topic
    assert read_until(reader, 1) == [event(1)]
    assert reader.resyncs == 0
    fabric.close()


def test_what_is_no_event_is_counted_and_skipped(url: str, kafka_broker: KafkaBroker | MockBroker) -> None:
    fabric = open_fabric(url)
    fabric.publish([event(1)])
    reader = fabric.subscribe([TOPIC_TASK], "latest")
    producer = Producer({"bootstrap.servers": kafka_broker.address, "log_level": 0})
    for body in (None, b"", b"nonsense", b'{"id": 1}', b"\xff\xfe", b"[" * 100_000):
        producer.produce(f"{prefix_of(fabric)}.{TOPIC_TASK}", body, b"k")
    assert producer.flush(10) == 0
    producer.close()
    fabric.publish([event(2)])
    assert read_until(reader, 1) == [event(2)]
    assert reader.malformed == 6
    fabric.close()


def test_what_is_too_large_does_not_hold_up_the_rest(url: str, caplog: pytest.LogCaptureFixture) -> None:
    fabric = open_fabric(url)
    reader = fabric.subscribe([TOPIC_TASK, TOPIC_ENDPOINT])
    large = structs.replace(event(2), data=Raw(b'"%s"' % (b"x" * 2_000_000)))
    fabric.publish([event(1), large, event(3)])
    assert read_until(reader, 2) == [event(1), event(3)]
    assert "larger than Kafka allows" in caplog.text
    fabric.close()


def test_a_log_that_began_anew_is_a_resync(broker: KafkaBroker) -> None:
    fabric = open_fabric(f"kafka://{broker.address}/{secrets.token_hex(4)}")
    fabric.publish([event(n) for n in range(5)])
    name = f"{prefix_of(fabric)}.{TOPIC_TASK}"
    admin = AdminClient({"bootstrap.servers": broker.address, "log_level": 0})
    position = {TOPIC_TASK: "0:5"}
    admin.delete_topics([name])[name].result(10)
    deadline = time.monotonic() + 10
    while True:
        try:
            admin.create_topics([NewTopic(name, 1, 1)])[name].result(10)
            break
        except Exception:  # noqa: BLE001 - it is being deleted
            assert time.monotonic() < deadline
            time.sleep(0.05)
    fabric.publish([event(7)])
    reader = fabric.subscribe([TOPIC_TASK], position)
    assert read_until(reader, 1) == [event(7)]
    assert reader.resyncs == 1
    fabric.close()


def unsigned_token(_: object) -> tuple[str, float]:
    def part(content: dict[str, object]) -> str:
        return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")

    now = time.time()
    return f"{part({'alg': 'none'})}.{part({'sub': 'me', 'iat': now, 'exp': now + 600})}.", now + 600


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "OAUTHBEARER"])
def test_tls_and_login(broker: KafkaBroker, mechanism: str) -> None:
    prefix = secrets.token_hex(4)
    if mechanism == "OAUTHBEARER":
        options = f"sasl.mechanism=OAUTHBEARER&ssl.ca.location={broker.certificate}"
        fabric = KafkaFabric(f"kafka://{broker.secure_address}/{prefix}?{options}", {"oauth_cb": unsigned_token})
    else:
        fabric = KafkaFabric(broker.secure_url(prefix, mechanism))
    reader = fabric.subscribe([TOPIC_TASK])
    fabric.publish([event(1)])
    assert read_until(reader, 1) == [event(1)]
    fabric.close()


def test_a_certificate_of_nobody_is_refused(broker: KafkaBroker) -> None:
    fabric = open_fabric(broker.secure_url("p").partition("?")[0])
    with pytest.raises(FabricUnavailableError, match="certificate verify failed") as caught:
        fabric.publish([event(1)])
    assert broker.password not in str(caught.value)
    fabric.close()


def test_nobody_there_is_said_within_a_moment() -> None:
    fabric = open_fabric(f"kafka://me:secret@127.0.0.1:{free_port()}/p?security.protocol=SASL_PLAINTEXT&timeout=60")
    reader = fabric.subscribe([TOPIC_TASK], "earliest")
    for ask in (lambda: fabric.publish([event(1)]), lambda: fabric.subscribe([TOPIC_TASK]), lambda: reader.read(1)):
        started = time.monotonic()
        with pytest.raises(FabricUnavailableError, match=r"kafka://me:\*\*\*@127.0.0.1:\d+/p.* cannot be reached"):
            ask()
        assert time.monotonic() - started < 20  # and not the time-out
    fabric.close()


def test_a_forked_process_has_connections_of_its_own(url: str) -> None:
    fabric = open_fabric(url)
    reader = fabric.subscribe([TOPIC_TASK])
    fabric.publish([event(1)])
    assert read_until(reader, 1) == [event(1)]
    child = os.fork()
    if child == 0:
        status = 1
        try:
            fabric.publish([event(2)])
            status = 0 if read_until(reader, 1) == [event(2)] else 2
            fabric.close()
        finally:
            os._exit(status)
    deadline = time.monotonic() + 30
    ended, status = 0, 0
    while not ended and time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        time.sleep(0.01)
    if not ended:
        os.kill(child, 9)
        os.waitpid(child, 0)
    assert (ended, status) == (child, 0)
    fabric.publish([event(3)])
    assert read_until(reader, 2) == [event(2), event(3)]
    fabric.close()


def test_why_there_is_no_broker_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(kafka.JARS_VARIABLE, str(tmp_path))
    monkeypatch.setattr("shutil.which", lambda program: f"/bin/{program}")
    assert "run .ci/kafka" in (KafkaBroker.why_not() or "")
    monkeypatch.setattr("shutil.which", lambda _: None)
    assert "apt-get install" in (KafkaBroker.why_not() or "")
