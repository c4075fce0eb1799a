"""Properties of the envelope: we and the CloudEvents SDK read every written event, and refuse invalid ones."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import msgspec
from cloudevents.core.formats.json import JSONFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from diaspora_parsl.events import Event, NodeHeartbeat, Payload, PoolStopped, TaskLate, decode, encode, known_types
from diaspora_parsl.fabric.base import redacted
from diaspora_parsl.fabric.dedup import Deduplicator
from diaspora_parsl.fabric.event_builder import EventBuilder
from diaspora_parsl.fabric.transports.redis.redis_streams import ENTRY_EVENTS, appends, decode_entry

texts = st.text(max_size=30)
integers = st.integers(0, 2**53)
reals = st.floats(allow_nan=False, allow_infinity=False)
names = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1, max_size=30)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=10,
)


def payload_of(kind: type[Payload]) -> st.SearchStrategy[Payload]:
    by_type: dict[Any, st.SearchStrategy[Any]] = {
        int: integers,
        float: reals,
        str: texts,
        bool: st.booleans(),
        tuple[str, ...]: st.lists(texts, max_size=4).map(tuple),
        tuple[tuple[float, int, int], ...]: st.lists(st.tuples(reals, integers, integers), max_size=4).map(tuple),
        dict[str, str | int | float | None]: st.dictionaries(texts, st.none() | texts | integers | reals, max_size=4),
    }
    fields = msgspec.structs.fields(kind)
    return st.fixed_dictionaries({field.name: by_type[field.type] for field in fields}).map(
        lambda values: kind(**values)
    )


payloads = st.sampled_from(sorted(known_types().values(), key=lambda kind: kind.__name__)).flatmap(payload_of)


@st.composite
def made_events(draw: st.DrawFn) -> Event:
    return EventBuilder(draw(names), draw(texts)).wrap(
        draw(payloads), draw(names), draw(texts), draw(st.floats(0, 4e9))
    )


_maker = EventBuilder("/site/pool")
some_events = [
    _maker.wrap(payload, "x", key, 1.0)
    for key in "abc"
    for payload in (
        TaskLate(task=1, attempt=1, endpoint="e", site="s"),
        NodeHeartbeat(endpoint="e"),
        PoolStopped(pool="p"),
    )
    for _ in range(9)
]


@given(made_events())
@settings(max_examples=50)
def test_round_trip(event: Event) -> None:
    raw = encode(event)
    assert decode(raw) == event
    assert encode(decode(raw)) == raw
    assert decode(raw).payload() == event.payload()
    assert decode(raw).topic == event.topic


@given(made_events())
@settings(max_examples=50)
def test_the_cloudevents_sdk_agrees(event: Event) -> None:
    read = JSONFormat().read(None, encode(event))
    assert read.get_id() == event.id
    assert read.get_source() == event.source
    assert read.get_type() == event.type
    assert read.get_subject() == event.subject
    assert read.get_extension("sequence") == event.sequence
    assert read.get_time() == datetime.fromisoformat(event.time)
    assert read.get_data() == json.loads(bytes(event.data))


@given(made_events(), st.dictionaries(st.from_regex(r"[a-z0-9]{1,20}", fullmatch=True), json_values))
@settings(max_examples=30)
def test_unknown_fields_are_ignored(event: Event, extra: dict[str, Any]) -> None:
    content = extra | json.loads(encode(event))
    read = decode(json.dumps(content).encode())
    known = set(event.__struct_fields__)
    assert {name: getattr(read, name) for name in known - set(extra) - {"data"}} == {
        name: getattr(event, name) for name in known - set(extra) - {"data"}
    }
    assert read.payload() == event.payload()


@given(st.binary(max_size=300) | json_values.map(lambda value: json.dumps(value).encode()))
def test_nonsense_is_a_value_error_and_nothing_else(raw: bytes) -> None:
    try:
        decode(raw)
    except ValueError:
        pass
    else:
        assert raw.strip().startswith(b"{")


@given(made_events(), st.data())
def test_damaged_bytes_are_a_value_error_or_another_event(event: Event, data: st.DataObject) -> None:
    raw = bytearray(encode(event))
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] = data.draw(st.integers(0, 255))
    try:
        other = decode(bytes(raw))
        other.payload()
    except ValueError:
        return
    assert isinstance(other, Event)


@given(st.none() | st.binary() | st.lists(st.binary(max_size=50), max_size=4).map(lambda fields: [b"e", *fields]))
def test_a_stream_entry_is_decoded_or_counted(fields: Any) -> None:
    events, malformed = decode_entry(fields)
    assert events == []
    assert malformed >= (not isinstance(fields, list) or len(fields) % 2)


@given(st.lists(st.sampled_from(some_events), max_size=200))
@settings(max_examples=30)
def test_entries_hold_every_event_once_in_order_per_topic(events: list[Event]) -> None:
    by_topic: dict[str, list[Event]] = {}
    for command in appends(events, "p:", 10):
        got, malformed = decode_entry([command[-2], command[-1]])
        assert not malformed
        assert 1 <= len(got) <= ENTRY_EVENTS
        by_topic.setdefault(command[1].removeprefix("p:"), []).extend(got)
    expected: dict[str, list[Event]] = {}
    for event in events:
        expected.setdefault(event.topic, []).append(event)
    assert by_topic == expected


@given(st.lists(st.sampled_from(some_events), max_size=30, unique_by=lambda event: event.id), st.data())
@settings(max_examples=30)
def test_doubles_never_get_through(events: list[Event], data: st.DataObject) -> None:
    again = data.draw(st.lists(st.sampled_from(events), max_size=30)) if events else []
    seen = Deduplicator()
    assert seen.drop_duplicates(events) == events
    assert seen.drop_duplicates(again) == []


@given(st.sampled_from(["redis", "rediss"]), st.text(max_size=8), st.text("abcXYZ0189/@:#?%&=", min_size=4), names)
def test_no_password_survives_redaction(scheme: str, user: str, password: str, host: str) -> None:
    secret = f"s3cret{password}s3cret"
    shown = redacted(f"{scheme}://{user}:{secret}@{host.replace('@', '')}:6379/0")
    assert "s3cret" not in shown
