"""What anybody may publish is bounded: floods, repetitions, requests without the key."""

from __future__ import annotations

import time

import msgspec
import pytest

from diaspora_parsl import events as ev
from diaspora_parsl.core import stimuli
from diaspora_parsl.events.signing import signed
from diaspora_parsl.executors.inbox.admission import REQUEST_LIFE, PeerReports, Signed, Streams, Throttle, spoken
from diaspora_parsl.executors.inbox.listener import Listener
from diaspora_parsl.fabric.event_builder import EventBuilder

KEY = "the key of the run"
NOW = 1_767_225_600.0


def request(at: float = NOW, key: str = KEY) -> ev.Event:
    drain = ev.EndpointDrainRequested(endpoint="alpha")
    return signed(EventBuilder("/host/diaspora-parsl/me").wrap(drain, "alpha", "alpha", at), key)


def test_a_request_counts_once_in_time_and_with_the_key() -> None:
    gate = Signed(KEY, clock=lambda: NOW)
    asked = request()
    assert gate.accepts(asked)
    assert not gate.accepts(asked)  # published again
    assert gate.accepts(request(NOW + REQUEST_LIFE - 1))
    assert not gate.accepts(request(NOW - REQUEST_LIFE - 1))
    assert not gate.accepts(request(NOW + 1e9))
    assert not gate.accepts(request(key="another"))
    assert not gate.accepts(msgspec.structs.replace(request(), signature=msgspec.UNSET))
    assert not Signed("", clock=lambda: NOW).accepts(request(key=""))


@pytest.mark.parametrize(
    "change",
    [
        {"subject": "beta"},
        {"time": "2026-01-01T00:00:01Z"},
        {"id": "another"},
        {"source": "/somebody/else"},
        {"type": ev.EndpointResumeRequested.event_type()},
        {"data": ev.encode_payload(ev.EndpointDrainRequested(endpoint="beta"))},
        {"data": msgspec.Raw(b"{")},
        {"signature": "é"},
    ],
)
def test_a_request_that_was_changed_on_its_way_does_not_count(change: dict[str, object]) -> None:
    assert not Signed(KEY, clock=lambda: NOW).accepts(msgspec.structs.replace(request(), **change))


def test_what_a_bridge_or_a_broker_does_to_an_event_leaves_its_signature() -> None:
    asked = msgspec.structs.replace(request(), hops=2, originsite="anl", data=msgspec.Raw(b'{ "endpoint" : "alpha" }'))
    assert Signed(KEY, clock=lambda: NOW).accepts(ev.decode(ev.encode(asked)))


def test_a_refusal_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    gate = Signed(KEY, clock=lambda: NOW)
    for _ in range(3):
        assert not gate.accepts(msgspec.structs.replace(request(key="another"), source="/a\nb"))
    assert caplog.text.count("is not followed: it is not signed") == 1
    assert "/a b" in caplog.text


def test_a_flood_of_streams_is_bounded_and_forgotten() -> None:
    streams = Streams(most=3)
    assert all(streams.accepts_heartbeat("alpha", f"0/n{number}", 0.0) for number in range(3))
    assert not streams.accepts_heartbeat("alpha", "0/n3", 0.0)
    assert not streams.accepts_heartbeat("alpha", "0/n0", 0.01)  # too soon
    assert streams.accepts_heartbeat("alpha", "0/n0", 100.0)
    assert streams.make_room(1000.0) == [("alpha", f"0/n{number}") for number in range(3)]
    assert streams.accepts_heartbeat("alpha", "0/n3", 1000.0)
    assert streams.ended("alpha", "0/n3")
    assert not streams.ended("alpha", "0/n3")


def test_rumours_count_for_a_while_and_then_not_for_longer() -> None:
    rumours = PeerReports(30.0)
    assert rumours.counts_for("alpha", 0.0) == 30.0
    assert rumours.counts_for("alpha", 10.0) == 20.0
    assert rumours.counts_for("beta", 10.0) == 30.0
    assert rumours.counts_for("alpha", 31.0) == 0.0
    assert rumours.counts_for("alpha", 149.0) == 0.0
    assert rumours.counts_for("alpha", 151.0) == 30.0


def test_a_flood_is_slowed_down_and_a_trickle_is_not() -> None:
    slept: list[float] = []
    pace = Throttle(1000, slept.append, clock=lambda: 50.0)
    pace.took(900)
    assert slept == []
    for _ in range(10):
        pace.took(900)
    assert slept
    assert max(slept) == 0.5


def test_events_wait_in_the_fabric_while_the_driver_is_behind_but_never_for_long() -> None:
    now, behind = 0.0, 5_000

    def sleep(seconds: float) -> None:
        nonlocal now, behind
        now, behind = now + seconds, behind - 1_500

    pace = Throttle(1e9, sleep, clock=lambda: now, waiting=lambda: behind)
    pace.took(1)
    assert behind <= 1_000
    assert now < 0.5
    behind = 10**9
    pace.took(1)
    assert behind > 1_000
    assert 0.5 <= now < 1.0


def test_what_others_wrote_is_one_short_line() -> None:
    assert spoken("a\nb\x1b[31m\u202ec") == "a b [31m c"
    assert len(spoken("x" * 10_000)) == 300


class HeartbeatReceived:
    """A listener, and what it made of things."""

    def __init__(self, key: str = KEY) -> None:
        self.stimuli: list[stimuli.Stimulus] = []
        self._listener = Listener({"alpha": "anl"}, "/own", self.stimuli.append, "pool", key=key)
        self._builder = EventBuilder("/hostile/publisher")

    def take(self, *events: ev.Event) -> list[stimuli.Stimulus]:
        self.stimuli.clear()
        self._listener.on_events(events)
        self._listener.on_alive()
        return self.stimuli

    def wrap(self, payload: ev.Payload, at: float | None = None) -> ev.Event:
        return self._builder.wrap(payload, "x", "x", time.time() if at is None else at)


def test_only_signed_requests_are_followed() -> None:
    accepts_heartbeat = HeartbeatReceived()
    drain = accepts_heartbeat.wrap(ev.EndpointDrainRequested(endpoint="alpha"))
    assert [type(s) for s in accepts_heartbeat.take(drain)] == [stimuli.FabricPolled]
    assert [type(s) for s in accepts_heartbeat.take(signed(drain, KEY))] == [stimuli.Drain, stimuli.FabricPolled]
    assert [type(s) for s in HeartbeatReceived(key="").take(signed(drain, ""))] == [stimuli.FabricPolled]


def test_a_hostile_event_does_not_hide_its_neighbours() -> None:
    accepts_heartbeat = HeartbeatReceived()
    bad = [
        accepts_heartbeat.wrap(ev.EndpointQuarantineRequested(endpoint="alpha", until="0001-01-01T00:00:00")),
        accepts_heartbeat.wrap(ev.MaintenanceAnnounced(place="anl", start="x", end="9999-12-31T23:59:59-14:00")),
        msgspec.structs.replace(
            accepts_heartbeat.wrap(ev.NodeHeartbeat(endpoint="alpha")), data=msgspec.Raw(b"[" * 50_000)
        ),
        msgspec.structs.replace(
            accepts_heartbeat.wrap(ev.NodeHeartbeat(endpoint="alpha")), data=msgspec.Raw(b'{"endpoint":[]}')
        ),
    ]
    reported = accepts_heartbeat.take(
        *[signed(event, KEY) for event in bad[:2]], *bad, accepts_heartbeat.wrap(ev.NodeHeartbeat(endpoint="alpha"))
    )
    assert [type(s) for s in reported] == [stimuli.HeartbeatReceived, stimuli.FabricPolled]


def test_a_flood_does_not_claim_that_the_fabric_was_read_to_its_end() -> None:
    accepts_heartbeat = HeartbeatReceived()
    flood = [accepts_heartbeat.wrap(ev.NodeHeartbeat(endpoint="alpha", node=str(number % 7))) for number in range(500)]
    reported = accepts_heartbeat.take(*flood)
    assert len(reported) == 7
    assert stimuli.FabricPolled not in {type(s) for s in reported}
    assert [type(s) for s in accepts_heartbeat.take()] == [stimuli.FabricPolled]


def test_others_cannot_keep_an_endpoint_suspect_for_ever() -> None:
    accepts_heartbeat = HeartbeatReceived()
    down = accepts_heartbeat.wrap(ev.EndpointDown(endpoint="alpha", site="anl", reason="a\nb"))
    (rumour, _) = accepts_heartbeat.take(down)
    assert isinstance(rumour, stimuli.PeerReport)
    assert rumour.reason == "a b"
    assert rumour.lasts is not None
    assert rumour.lasts <= 30.0
