"""The schema, the examples and the page say what the types say; old and new readers understand each other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cloudevents.core.formats.json import JSONFormat
from jsonschema import Draft202012Validator
from msgspec import Raw, Struct

from diaspora_parsl import events
from diaspora_parsl.events import Event, Payload, decode, encode
from diaspora_parsl.events.schema import json_schema, own_types
from diaspora_parsl.events.signing import signed
from diaspora_parsl.monitors.view.fabric_state import FabricState
from docs.generate.event_examples import EXAMPLES, example_event
from docs.generate.events_page import page

ROOT = Path(__file__).parents[3]
RECORDED = (Path(__file__).parent / "recorded" / "v0.1.jsonl").read_bytes().splitlines()
VALIDATOR: Any = Draft202012Validator(json_schema())


def names(payload: Payload) -> str:
    return type(payload).__name__


def test_the_page_is_what_the_types_say() -> None:
    kept = (ROOT / "docs" / "events.md").read_text(encoding="utf-8")
    assert kept == page(), "run: python -m docs.generate.events_page docs/events.md"


def test_every_type_has_one_example_and_is_exported() -> None:
    assert [type(example) for example in EXAMPLES] == list(dict.fromkeys(type(example) for example in EXAMPLES))
    assert {type(example) for example in EXAMPLES} == set(own_types().values())
    assert {kind.__name__ for kind in own_types().values()} <= set(events.__all__)


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(json_schema())


@pytest.mark.parametrize("payload", EXAMPLES, ids=names)
def test_examples_hold_for_the_schema_for_cloudevents_and_for_readers(payload: Payload) -> None:
    event = msgspec.structs.replace(
        signed(example_event(payload), "key"), originsite="anl", hops=1, traceparent=f"00-{'a' * 32}-{'b' * 16}-01"
    )
    raw = encode(event)
    VALIDATOR.validate(json.loads(raw))
    assert decode(raw).payload() == payload
    read = JSONFormat().read(None, raw)
    assert (read.get_id(), read.get_type()) == (event.id, payload.event_type())
    assert {name: read.get_extension(name) for name in ("hops", "originsite", "traceparent", "signature")} == {
        "hops": 1, "originsite": "anl", "traceparent": event.traceparent, "signature": event.signature,
    }  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        {"data": {"task": "one", "attempt": 1, "endpoint": "e", "site": "s"}},
        {"data": {"attempt": 1, "endpoint": "e", "site": "s"}},
        {"sequence": -1},
        {"id": "x" * 129},
        {"source": 5},
    ],
)
def test_the_schema_refuses_what_a_reader_refuses(change: dict[str, Any]) -> None:
    content = json.loads(encode(example_event(events.TaskLate(task=1, attempt=1, endpoint="e", site="s")))) | change
    assert not VALIDATOR.is_valid(content)
    with pytest.raises(ValueError, match=r"."):
        decode(json.dumps(content).encode()).payload()


@pytest.mark.parametrize("raw", RECORDED, ids=lambda raw: json.loads(raw)["type"].removeprefix(events.PREFIX))
def test_what_older_versions_wrote_is_read(raw: bytes) -> None:
    event = decode(raw)
    payload = event.payload()
    assert payload is not None
    assert json.loads(msgspec.json.encode(payload)) == json.loads(raw)["data"]


class OldEvent(Struct, frozen=True, kw_only=True):
    """The envelope of version 0.1, before extensions were added."""

    id: str
    source: str
    type: str
    subject: str
    time: str
    partitionkey: str
    sequence: int
    data: Raw


class OldPoolStatus(Struct, frozen=True, kw_only=True):
    """A payload of version 0.1, before `hedged` was added."""

    pool: str
    waiting: int
    in_flight: int
    finished: int
    failed: int
    rerouted: int
    late: int


def test_old_readers_ignore_what_they_do_not_know() -> None:
    new = events.PoolStatus(pool="p", waiting=1, in_flight=2, finished=3, failed=4, rerouted=5, late=6, hedged=7)
    event = msgspec.structs.replace(example_event(new), hops=1, traceparent="00-x", originsite="anl", signature="s")
    old = msgspec.json.decode(encode(event), type=OldEvent)
    assert (old.id, old.sequence) == (event.id, event.sequence)
    assert msgspec.json.decode(old.data, type=OldPoolStatus).late == 6


def test_a_picture_counts_what_it_does_not_know_and_goes_on() -> None:
    picture = FabricState()
    event = example_event(EXAMPLES[0])
    content = json.loads(encode(event))
    for change in ({"type": "org.diaspora.parsl.task.teleported.v9"}, {"data": {"task": "x"}}, {"new": [1], "hops": 3}):
        picture.apply(decode(json.dumps(content | change).encode()))
    assert (picture.events, picture.unknown, picture.malformed) == (3, 1, 1)
    assert len(picture.sources) == 1


def test_nobody_writes_or_reads_events_without_measure() -> None:
    with pytest.raises(ValueError, match="too many"):
        example_event(events.PoolStopped(pool="p", reason="x" * events.MAX_BYTES))
    big = encode(msgspec.structs.replace(example_event(EXAMPLES[0]), data=Raw(b'"%b"' % (b"x" * events.MAX_BYTES))))
    with pytest.raises(ValueError, match="too many"):
        decode(big)
    assert isinstance(decode(encode(example_event(EXAMPLES[0]))), Event)
