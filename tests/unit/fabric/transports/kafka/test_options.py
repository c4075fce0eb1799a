"""What a ``kafka://`` URL says, what a cursor looks like, and that no credential is shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diaspora_parsl.errors import ConfigurationError, FabricURLError
from diaspora_parsl.fabric.base import open_fabric, redacted
from diaspora_parsl.fabric.transports.kafka.options import parse, read_cursor, write_cursor


@given(st.dictionaries(st.integers(0, 10_000), st.integers(0, 2**63 - 1), min_size=1))
def test_a_cursor_says_all_partitions(offsets: dict[int, int]) -> None:
    assert read_cursor(write_cursor(offsets)) == offsets


def test_a_cursor_of_nothing_is_the_beginning() -> None:
    assert read_cursor(write_cursor({})) == {0: 0}


@given(st.text())
def test_what_is_no_cursor_is_refused(text: str) -> None:
    try:
        offsets = read_cursor(text)
    except ConfigurationError:
        return
    assert read_cursor(write_cursor(offsets)) == offsets


def test_a_plain_url() -> None:
    options = parse("kafka://one:9092,[::1]:9093")
    assert options.properties["bootstrap.servers"] == "one:9092,[::1]:9093"
    assert (options.prefix, options.timeout, options.partitions, options.replication) == ("diaspora", 5.0, 1, -1)
    assert options.create
    assert "security.protocol" not in options.properties


def test_a_password_goes_over_tls_unless_somebody_says_no() -> None:
    options = parse("kafka://a%40b:p%2Fw%3A@host:1/p")
    wanted = {"sasl.username": "a@b", "sasl.password": "p/w:", "sasl.mechanism": "PLAIN"}
    assert options.properties.items() >= {**wanted, "security.protocol": "SASL_SSL"}.items()
    options = parse("kafka://a:b@host:1/p?security.protocol=SASL_PLAINTEXT&sasl.mechanism=SCRAM-SHA-512")
    assert options.properties["security.protocol"] == "SASL_PLAINTEXT"
    assert options.properties["sasl.mechanism"] == "SCRAM-SHA-512"


def test_options_of_tls_and_tokens_bring_the_protocol_along() -> None:
    assert parse("kafka://h:1?ssl.ca.location=/ca.pem").properties["security.protocol"] == "SSL"
    assert parse("kafka://h:1?sasl.mechanism=OAUTHBEARER").properties["security.protocol"] == "SASL_SSL"


def test_a_mapping_wins_over_the_url() -> None:
    options = parse("kafka://h:1/p?client.id=a&partitions=3&create=false", {"client.id": "b", "oauth_cb": len})
    assert options.properties["client.id"] == "b"
    assert options.properties["oauth_cb"] is len
    assert (options.partitions, options.create) == (3, False)


@pytest.mark.parametrize(
    "url",
    [
        "kafka://",
        "kafka://host",
        "kafka://host:9092,other",
        "kafka://host:9092/two/words",
        "kafka://host:9092/p#fragment",
        "kafka://host:9092/p?timeout=soon",
        "kafka://host:9092/p?timeout=0",
        "kafka://host:9092/p?partitions=0",
        "kafka://host:9092/p?replication=0",
        "kafka://host:9092/p?create=maybe",
        "kafka://host:9092/p?No_Such=1",
        "kafka://host:9092/p?no.such.property=1",
        "kafka://host:9092/p?ssl.ca.location=/no/such/file.pem",
        "kafka://user@host:9092/p",
        "kafka://:secret@host:9092/p",
        "kafka://user:secret@host:9092/p?sasl.mechanism=guess",
        "kafka://user:hun/ter2#secret@host:9092/p",
        "octopus://",
        "octopus://somewhere",
        "octopus://ns-0123456789ab/topic",
        "octopus://ns-0123456789ab?timeout=soon",
        "octopus+https://ns-0123456789ab?timeout=1000",
    ],
)
def test_a_bad_url_says_what_to_write(url: str) -> None:
    with pytest.raises(FabricURLError, match="Write") as caught:
        open_fabric(url)
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "option",
    [
        "sasl.password",
        "sasl.username",
        "ssl.key.password",
        "ssl.key.pem",
        "ssl.certificate.pem",
        "ssl.keystore.password",
        "sasl.oauthbearer.client.secret",
        "sasl.oauthbearer.config",
        "sasl.oauthbearer.assertion.private.key.passphrase",
        "sasl.oauthbearer.assertion.jwt.template.file",
        "SASL.PASSWORD",
        "sasl.pass%77ord",
    ],
)
def test_no_option_shows_a_credential(option: str) -> None:
    assert "hunter2" not in redacted(f"kafka://host:1/p?a=1&{option}=hunter2&b=2")


def test_other_options_are_shown() -> None:
    url = "kafka://host:1/p?security.protocol=SSL&ssl.ca.location=/ca.pem&timeout=3"
    assert redacted(url) == url
    assert redacted("kafka://me:pw@h:1,i:2/p?linger.ms=1") == "kafka://me:***@h:1,i:2/p?linger.ms=1"
