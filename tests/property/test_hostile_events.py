"""No event from the fabric makes a reader raise, stall, or follow a request that was not signed with the key."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from diaspora_parsl import events as ev
from diaspora_parsl.core import actions, stimuli
from diaspora_parsl.core.health.assessor import State
from diaspora_parsl.core.invariants import validate
from diaspora_parsl.core.machine import PoolCore
from diaspora_parsl.core.settings import EndpointSpec, PoolSettings
from diaspora_parsl.events.signing import is_signed, signed
from diaspora_parsl.executors.inbox.listener import Listener
from diaspora_parsl.executors.inbox.replay import fold
from diaspora_parsl.monitors.exporter.metrics import Metrics
from diaspora_parsl.monitors.exporter.spans import Tracks
from diaspora_parsl.monitors.view.fabric_state import FabricState
from docs.generate.event_examples import EXAMPLES, example_event

SITES = {"alpha": "anl", "beta": "uc"}
TIMES = ["", "x", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59+00:00", "2026-01-01", "2026-W01", "1e9", "\u0000", "²"]

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
    | st.sampled_from(TIMES) | st.sampled_from(["alpha", "beta", "anl", "pool", "/own"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip


@st.composite
def hostile(draw: st.DrawFn) -> bytes:
    """An event of ours in which some things are anything."""
    content: dict[str, Any] = json.loads(ev.encode(example_event(draw(st.sampled_from(EXAMPLES)))))
    data: dict[str, Any] = content["data"]
    for _ in range(draw(st.integers(0, 3))):
        data[draw(st.sampled_from(sorted(data) or ["x"]))] = draw(values)
    for name in draw(st.lists(st.sampled_from([*content, "hops", "traceparent", "signature"]), max_size=2)):
        content[name] = draw(values | st.sampled_from(TIMES))
    return json.dumps(content).encode()


def decoded(raws: list[bytes]) -> list[ev.Event]:
    found = []
    for raw in raws:
        try:
            found.append(ev.decode(raw))
        except ValueError:
            continue
    return found


@given(st.lists(hostile(), max_size=8))
@settings(max_examples=100)
def test_no_reader_stumbles(raws: list[bytes]) -> None:
    events = decoded(raws)
    state, metrics, tracks = FabricState(), Metrics(), Tracks()
    for event in events:
        state.apply(event)
        tracks.apply(event)
    metrics.apply(events)
    metrics.collect()
    fold(events, "pool", SITES, "key")


@given(st.lists(hostile(), max_size=8))
@settings(max_examples=100)
def test_without_the_key_a_pool_is_told_hearsay_only_and_works_on(raws: list[bytes]) -> None:
    reported: list[stimuli.Stimulus] = []
    Listener(SITES, "/own", reported.append, "pool", key="key").on_events(decoded(raws))
    assert {type(s) for s in reported} <= {
        stimuli.HeartbeatReceived,
        stimuli.StreamEnded,
        stimuli.PeerReport,
        stimuli.BridgePolled,
    }
    core = PoolCore([EndpointSpec(label=label, site=site) for label, site in SITES.items()], PoolSettings())
    for label in SITES:
        core.handle(stimuli.Started(0.0, label, 0))
        core.handle(stimuli.Observed(0.0, label, 0, 1))
    at = max((s.at for s in reported), default=1.0)
    for stimulus in reported:
        core.handle(stimulus)
    core.handle(stimuli.FabricPolled(at + 1.0))
    answer = core.handle(stimuli.Submitted(at + 1.0, 1, "f", frozenset(SITES)))
    assert [action.task for action in answer if isinstance(action, actions.Dispatch)] == [1]
    validate(core)


def test_a_dead_endpoint_is_not_brought_to_life_by_a_forged_heartbeat() -> None:
    core = PoolCore([EndpointSpec(label="alpha"), EndpointSpec(label="beta")], PoolSettings())
    for label in SITES:
        core.handle(stimuli.Started(0.0, label, 0))
        core.handle(stimuli.Observed(0.0, label, 0, 1))
    core.handle(stimuli.Died(1.0, "alpha", 0, "its interchange ended"))
    core.handle(stimuli.HeartbeatReceived(1.5, "alpha", "0/n", 1.0))
    core.handle(stimuli.FabricPolled(1.6))
    assert core.state("alpha")[0] == State.DOWN
    answer = core.handle(stimuli.Submitted(2.0, 1, "f", frozenset({"alpha", "beta"})))
    assert [action.endpoint for action in answer if isinstance(action, actions.Dispatch)] == ["beta"]


@given(st.sampled_from(EXAMPLES), st.text(min_size=1, max_size=20), st.text(max_size=20), st.integers(0, 10**6))
def test_a_signature_holds_for_one_key_and_one_event(payload: ev.Payload, key: str, other: str, at: int) -> None:
    event = signed(example_event(payload), key)
    assert is_signed(event, key)
    assert is_signed(ev.decode(ev.encode(event)), key)
    assert is_signed(event, other) == (key == other)
    raw = bytearray(ev.encode(event))
    raw[at % len(raw)] ^= 1
    for changed in decoded([bytes(raw)]):
        same = {name: getattr(changed, name) for name in ("id", "source", "type", "subject", "time", "partitionkey")}
        untouched = same == {name: getattr(event, name) for name in same} and changed.sequence == event.sequence
        if is_signed(changed, key):
            assert untouched
            assert msgspec.json.decode(changed.data) == msgspec.json.decode(event.data)
