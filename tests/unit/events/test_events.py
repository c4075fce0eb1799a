"""Unit tests of the envelope and the payloads."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime

import msgspec
import pytest
from cloudevents.core.formats.json import JSONFormat

from diaspora_parsl import events
from diaspora_parsl.events import (
    TOPIC_CONTROL,
    TOPICS,
    Event,
    Payload,
    TaskLate,
    TaskRerouted,
    decode,
    encode,
    encode_payload,
    known_types,
)
from diaspora_parsl.events.schema import own_types
from diaspora_parsl.fabric.event_builder import EventBuilder

GOLDEN = (
    b'{"id":"1","source":"/s","type":"org.diaspora.parsl.task.late.v1","subject":"task-1",'
    b'"time":"2026-01-01T00:00:00Z","partitionkey":"k","sequence":7,'
    b'"data":{"task":1,"attempt":2,"endpoint":"e","site":"s"},'
    b'"specversion":"1.0","datacontenttype":"application/json","hops":1}'
)


def golden() -> Event:
    return Event(
        id="1",
        source="/s",
        type="org.diaspora.parsl.task.late.v1",
        subject="task-1",
        time="2026-01-01T00:00:00Z",
        partitionkey="k",
        sequence=7,
        data=encode_payload(TaskLate(task=1, attempt=2, endpoint="e", site="s")),
        hops=1,
    )


def test_what_is_on_the_wire_stays_readable() -> None:
    assert encode(golden()) == GOLDEN
    assert decode(GOLDEN) == golden()
    assert decode(GOLDEN).payload() == TaskLate(task=1, attempt=2, endpoint="e", site="s")


def test_types_follow_the_scheme() -> None:
    for name, kind in known_types().items():
        assert re.fullmatch(r"org\.diaspora\.parsl\.[a-z]+\.[a-z_]+\.v[1-9]", name)
        assert kind.event_type() == name
        assert kind.topic in TOPICS
    assert TaskRerouted.event_type() == "org.diaspora.parsl.task.rerouted.v1"


def test_only_samples_may_be_dropped_first() -> None:
    samples = {name.split(".", 3)[3] for name, kind in own_types().items() if not kind.is_state_change}
    assert samples == {
        "node.heartbeat.v1", "node.sampled.v1", "try.sampled.v1", "endpoint.status.v1", "pool.status.v1",
        "link.status.v1",
    }  # fmt: skip


def test_unknown_types_are_kept_and_unread() -> None:
    raw = GOLDEN.replace(b"task.late.v1", b"task.teleported.v9")
    event = decode(raw)
    assert event.payload() is None
    assert event.topic == TOPIC_CONTROL
    assert event.is_state_change
    assert encode(event) == raw


def test_unknown_fields_are_ignored() -> None:
    content = json.loads(GOLDEN)
    content["traceparent"] = "00-x"
    content["somethingnew"] = {"deep": [1, 2]}
    content["data"]["somethingnew"] = "x"
    event = decode(json.dumps(content).encode())
    assert event.traceparent == "00-x"
    assert event.payload() == golden().payload()


@pytest.mark.parametrize("field", ["id", "source", "type", "subject", "time", "partitionkey", "sequence", "data"])
def test_a_missing_field_is_a_value_error(field: str) -> None:
    content = json.loads(GOLDEN)
    del content[field]
    with pytest.raises(ValueError, match=field):
        decode(json.dumps(content).encode())


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"null", b"\xff", b'{"id":"\xff"}', b"[" * 100_000])
def test_nonsense_is_a_value_error(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode(raw)


def test_nesting_too_deep_is_a_value_error() -> None:
    raw = GOLDEN.replace(b'"hops":1', b'"x":' + b"[" * 100_000 + b"]" * 100_000)
    with pytest.raises(ValueError, match="deep"):
        decode(raw)


def test_data_that_does_not_fit_its_type_is_a_value_error() -> None:
    event = decode(GOLDEN.replace(b'"task":1', b'"task":"one"'))
    with pytest.raises(ValueError, match="task"):
        event.payload()


def test_payloads_are_frozen() -> None:
    with pytest.raises(AttributeError):
        setattr(TaskLate(task=1, attempt=2, endpoint="e", site="s"), "task", 2)  # noqa: B010 - a type checker sees it


def test_the_cloudevents_sdk_reads_what_a_publisher_makes() -> None:
    payload = TaskLate(task=1, attempt=2, endpoint="e", site="s")
    event = EventBuilder("/site/pool", "alcf").wrap(payload, "task-1", "e", 1_767_225_600.5)
    read = JSONFormat().read(None, encode(event))
    assert (read.get_id(), read.get_source(), read.get_type()) == (event.id, "/site/pool", payload.event_type())
    assert read.get_subject() == "task-1"
    assert read.get_specversion() == "1.0"
    assert read.get_extension("sequence") == 1
    assert read.get_extension("partitionkey") == "e"
    assert read.get_extension("originsite") == "alcf"
    assert read.get_time() == datetime(2026, 1, 1, 0, 0, 0, 500_000, tzinfo=UTC)
    assert read.get_data() == msgspec.to_builtins(payload)


def test_base_classes_are_no_events() -> None:
    assert not {Payload, events.EndpointPayload, events.ControlPayload} & set(known_types().values())
