"""Octopus by Kafka and by its web service: the real SDK, a local double of what it talks to."""

from __future__ import annotations

import base64
import json
import secrets
import time
from collections.abc import Iterator

import pytest

from diaspora_parsl.errors import ConfigurationError, FabricUnavailableError
from diaspora_parsl.events import TOPIC_ENDPOINT, TOPIC_TASK, Event, TaskLate, encode_payload
from diaspora_parsl.fabric.base import Subscription, open_fabric
from diaspora_parsl.fabric.transports.octopus.login import KEY_VARIABLES
from diaspora_parsl.fabric.transports.octopus.transport import OctopusFabric
from diaspora_parsl.testing.services.kafka import KafkaBroker, MockBroker
from diaspora_parsl.testing.services.octopus import LocalOctopus

SIGNER = "diaspora_event_sdk.sdk.aws_iam_msk.generate_auth_token"


def event(number: int) -> Event:
    payload = TaskLate(number, 1, "e", "s")
    return Event(
        id=f"id-{number}",
        source="/test",
        type=payload.event_type(),
        subject="x",
        time="2026-01-01T00:00:00Z",
        partitionkey="k",
        sequence=number,
        data=encode_payload(payload),
    )


def read_until(reader: Subscription, n: int, seconds: float = 10.0) -> list[Event]:
    got: list[Event] = []
    deadline = time.monotonic() + seconds
    while len(got) < n and time.monotonic() < deadline:
        got += reader.read(0.2)
    return got


@pytest.fixture(autouse=True)
def _nobody(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No login of whoever runs the tests."""
    for name in (*KEY_VARIABLES, "DIASPORA_SDK_CLIENT_ID", "DIASPORA_SDK_CLIENT_SECRET"):
        monkeypatch.setenv(name, "")  # so that what a test makes of it is taken back
    monkeypatch.setenv("DIASPORA_USER_DIR", str(tmp_path_factory.mktemp("diaspora")))


@pytest.fixture
def octopus(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalOctopus]:
    with LocalOctopus() as octopus:
        for name, value in octopus.environment.items():
            monkeypatch.setenv(name, value)
        yield octopus


@pytest.mark.parametrize("scheme", ["octopus", "octopus+https"])
def test_without_a_login_it_says_what_to_set(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match=r"Nobody is logged in.*DIASPORA_SDK_CLIENT_SECRET"):
        open_fabric(f"{scheme}://ns-0123456789ab")
    monkeypatch.setenv("DIASPORA_SDK_CLIENT_SECRET", "hunter2")
    with pytest.raises(ConfigurationError, match="Set both") as caught:
        open_fabric(f"{scheme}://ns-0123456789ab")
    assert "hunter2" not in str(caught.value)


def test_a_key_in_the_environment_is_enough_for_kafka(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in zip(KEY_VARIABLES, ("AKIA", "hunter2", "127.0.0.1:1"), strict=True):
        monkeypatch.setenv(name, value)
    fabric = open_fabric("octopus://ns-0123456789ab?timeout=0.5")
    with pytest.raises(FabricUnavailableError, match=r"octopus://ns-0123456789ab.* cannot be reached"):
        fabric.publish([event(1)])
    fabric.close()
    with pytest.raises(ConfigurationError, match="Nobody is logged in"):
        open_fabric("octopus+https://ns-0123456789ab")


def unsigned(_: str) -> tuple[str, int]:
    def part(content: dict[str, object]) -> str:
        return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")

    now = time.time()
    return f"{part({'alg': 'none'})}.{part({'sub': 'me', 'iat': now, 'exp': now + 600})}.", int(now + 600) * 1000


def test_kafka_with_the_login_of_the_sdk(
    octopus: LocalOctopus, kafka_broker: KafkaBroker | MockBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not isinstance(kafka_broker, KafkaBroker):
        pytest.skip(KafkaBroker.why_not() or "")
    # Octopus checks the signature; this broker takes tokens without one.
    monkeypatch.setattr(SIGNER, unsigned)
    octopus.brokers = kafka_broker.secure_address
    authority = f"ssl.ca.location={kafka_broker.certificate}"
    fabric = open_fabric(f"octopus://{octopus.namespace}?service={octopus.service}&timeout=5&{authority}")
    sent = [event(n) for n in range(10)]
    reader = fabric.subscribe([TOPIC_TASK], "earliest")
    fabric.publish(sent)
    assert read_until(reader, 10) == sent
    assert octopus.keys == 1  # for both: each new key ends the one before
    assert repr(fabric) == f"<OctopusFabric {fabric.url}>"
    fabric.close()


def test_a_token_is_signed_with_the_key(octopus: LocalOctopus) -> None:
    fabric = OctopusFabric(f"octopus://{octopus.namespace}?service={octopus.service}")
    properties = fabric._cluster.properties()
    assert properties["bootstrap.servers"] == "127.0.0.1:1"
    token, ends = properties["oauth_cb"]("")
    url = base64.urlsafe_b64decode(token + "==").decode()
    assert "AKIA0000000000000001" in url
    assert 0 < ends - time.time() <= 900
    fabric._cluster.refused()
    with pytest.raises(FabricUnavailableError, match="within a minute"):
        fabric._cluster.properties()
    assert octopus.keys == 1
    fabric.close()


def test_the_web_service_takes_more_than_fits_into_one_request(octopus: LocalOctopus) -> None:
    fabric = open_fabric(octopus.url)
    reader = fabric.subscribe([TOPIC_TASK])
    sent = [event(n) for n in range(1203)]
    fabric.publish(sent)
    assert read_until(reader, len(sent)) == sent
    assert reader.position == {TOPIC_TASK: "0:1203"}
    fabric.close()


def test_what_is_no_event_is_counted_and_skipped(octopus: LocalOctopus) -> None:
    fabric = open_fabric(octopus.url)
    reader = fabric.subscribe([TOPIC_TASK])
    for body in (b"", b"nonsense", b"\xff\xfe", b"[" * 100_000):
        octopus.write(TOPIC_TASK, body)
    fabric.publish([event(1)])
    assert read_until(reader, 1) == [event(1)]
    assert reader.malformed == 4
    fabric.close()


@pytest.mark.parametrize("status", [403, 500, 503])
def test_what_it_answers_is_told(octopus: LocalOctopus, status: int) -> None:
    fabric = open_fabric(octopus.url)
    reader = fabric.subscribe([TOPIC_TASK])
    fabric.publish([event(1)])
    says = "refuses the login" if status == 403 else f"answers {status}"
    octopus.fail(status, status)  # the SDK may try twice
    with pytest.raises(FabricUnavailableError, match=says) as caught:
        fabric.publish([event(2)])
    assert octopus.secret not in str(caught.value)
    octopus._faults.clear()
    octopus.fail(status, status)
    with pytest.raises(FabricUnavailableError, match=says):
        reader.read(0)
    octopus._faults.clear()
    fabric.publish([event(2)])
    assert read_until(reader, 2) == [event(1), event(2)]
    assert reader.resyncs == 0
    fabric.close()


def test_too_many_requests_are_tried_once_more(octopus: LocalOctopus) -> None:
    fabric = open_fabric(octopus.url)
    fabric.publish([event(1)])
    octopus.fail(429)
    fabric.publish([event(2)])
    assert read_until(fabric.subscribe([TOPIC_TASK], "earliest"), 2) == [event(1), event(2)]
    fabric.close()


def test_a_token_that_expired_is_renewed(octopus: LocalOctopus) -> None:
    fabric = open_fabric(octopus.url)
    reader = fabric.subscribe([TOPIC_TASK])
    octopus.expire()
    fabric.publish([event(1)])
    octopus.expire()
    assert read_until(reader, 1) == [event(1)]
    fabric.close()


def test_a_restart_of_the_service_costs_no_event(octopus: LocalOctopus) -> None:
    fabric = open_fabric(octopus.url)
    reader = fabric.subscribe([TOPIC_TASK, TOPIC_ENDPOINT])
    fabric.publish([event(1)])
    assert read_until(reader, 1) == [event(1)]
    octopus.restart()
    fabric.publish([event(2)])
    with pytest.raises(FabricUnavailableError, match="answers 404"):
        reader.read(0)
    assert read_until(reader, 1) == [event(2)]
    assert reader.resyncs == 0
    fabric.close()


def test_silence_is_bounded(octopus: LocalOctopus) -> None:
    fabric = open_fabric(octopus.url.replace("timeout=2", "timeout=0.2"))
    reader = fabric.subscribe([TOPIC_TASK])
    started = time.monotonic()
    with octopus.silence():
        with pytest.raises(FabricUnavailableError, match="cannot be reached"):
            fabric.publish([event(1)])
        with pytest.raises(FabricUnavailableError, match="cannot be reached"):
            reader.read(0)
        fabric.close()
    assert time.monotonic() - started < 15


def test_nobody_there(octopus: LocalOctopus) -> None:
    fabric = open_fabric(octopus.url.replace(octopus.service, "http://127.0.0.1:1"))
    with pytest.raises(FabricUnavailableError, match="cannot be reached"):
        fabric.publish([event(1)])
    fabric.close()


def test_a_namespace_of_others_cannot_be_read_by_the_web_service(octopus: LocalOctopus) -> None:
    other = f"ns-{secrets.token_hex(6)}"
    fabric = open_fabric(octopus.url.replace(octopus.namespace, other))
    with pytest.raises(ConfigurationError, match=rf"octopus\+https://{octopus.namespace}"):
        fabric.subscribe([TOPIC_TASK])
    fabric.close()


def test_a_wrong_secret_is_no_secret_in_the_message(octopus: LocalOctopus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIASPORA_SDK_CLIENT_SECRET", "hunter2")
    fabric = open_fabric(octopus.url)
    with pytest.raises(FabricUnavailableError, match="refuses the login") as caught:
        fabric.publish([event(1)])
    assert "hunter2" not in str(caught.value)
    fabric.close()


def test_an_unknown_option_is_refused(octopus: LocalOctopus) -> None:
    with pytest.raises(ConfigurationError, match="maxlen is no option"):
        open_fabric(octopus.url + "&maxlen=5")
