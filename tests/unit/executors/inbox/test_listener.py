from __future__ import annotations

import pytest
from msgspec import Raw, structs

from diaspora_parsl import events as ev
from diaspora_parsl.core import stimuli
from diaspora_parsl.events.signing import hmac_of
from diaspora_parsl.executors.inbox.listener import Listener

OWN = "/here/pool/run"


def event(payload: ev.Payload, source: str = "/there/agent", data: Raw | None = None) -> ev.Event:
    return ev.Event(
        id="1",
        source=source,
        type=payload.event_type(),
        subject="x",
        time="2026-01-01T00:00:00Z",
        partitionkey="",
        sequence=1,
        data=data or ev.encode_payload(payload),
    )


def received(*events: ev.Event) -> list[stimuli.Stimulus]:
    reported: list[stimuli.Stimulus] = []
    Listener({"alpha": "anl", "beta": "uc"}, OWN, reported.append).on_events(events)
    return reported


def test_signs_of_life_are_one_stream_per_block_and_node() -> None:
    beat = ev.NodeHeartbeat(endpoint="alpha", site="anl", block="2", node="n7", interval=0.5)
    goodbye = ev.NodeStopped(endpoint="alpha", site="anl", block="2", node="n7")
    said, hushed = received(event(beat), event(goodbye), event(goodbye))
    assert isinstance(said, stimuli.HeartbeatReceived)
    assert (said.endpoint, said.stream, said.interval) == ("alpha", "2/n7", 0.5)
    assert isinstance(hushed, stimuli.StreamEnded)
    assert (hushed.endpoint, hushed.stream) == ("alpha", "2/n7")


@pytest.mark.parametrize(("reported", "taken"), [(0.0, 0.05), (1e9, 60.0), (-5.0, 0.05)])
def test_an_absurd_interval_is_bounded(reported: float, taken: float) -> None:
    (stimulus,) = received(event(ev.NodeHeartbeat(endpoint="alpha", interval=reported)))
    assert isinstance(stimulus, stimuli.HeartbeatReceived)
    assert stimulus.interval == taken


@pytest.mark.parametrize("kind", [ev.EndpointDown, ev.EndpointSuspect])
def test_what_others_say_is_a_rumour(kind: type[ev.EndpointPayload]) -> None:
    (stimulus,) = received(event(kind(endpoint="beta", site="uc", reason="maintenance"), source="/facility"))
    assert isinstance(stimulus, stimuli.PeerReport)
    assert (stimulus.endpoint, stimulus.source, stimulus.reason) == ("beta", "/facility", "maintenance")


@pytest.mark.parametrize(
    "ignored",
    [
        event(ev.EndpointDown(endpoint="alpha", site="anl", reason="ours"), source=OWN),
        event(ev.EndpointDown(endpoint="alpha", site="a namesake elsewhere", reason="x")),
        event(ev.EndpointDown(endpoint="gamma", site="anl", reason="x")),
        event(ev.EndpointUp(endpoint="alpha", site="anl", reason="x")),
        event(ev.NodeHeartbeat(endpoint="gamma")),
        event(ev.TaskLate(task=1, attempt=1, endpoint="alpha", site="anl")),
    ],
)
def test_what_is_ours_already_or_not_about_us_is_ignored(ignored: ev.Event) -> None:
    assert received(ignored) == []


def test_malformed_events_are_said_once_and_skipped(caplog: pytest.LogCaptureFixture) -> None:
    beat = ev.NodeHeartbeat(endpoint="alpha")
    broken = event(beat, data=Raw(b'{"endpoint": 5}'))
    assert len(received(broken, broken, event(beat), broken)) == 1
    assert caplog.text.count("is malformed") == 1


def test_a_fabric_read_to_its_end_is_told() -> None:
    reported: list[stimuli.Stimulus] = []
    Listener({}, OWN, reported.append).on_alive()
    assert isinstance(reported[0], stimuli.FabricPolled)


def test_what_came_over_a_bridge_says_by_which_way() -> None:
    beat = event(ev.NodeHeartbeat(endpoint="beta", site="uc", interval=10.0))
    bridged = structs.replace(beat, originsite="uc", viasite="cloud", hops=2)
    direct = structs.replace(beat, originsite="uc")
    reported = [*received(bridged), *received(direct)]
    assert [stimulus.via_site for stimulus in reported if isinstance(stimulus, stimuli.HeartbeatReceived)] == ["uc", ""]


def test_a_link_that_reads_its_source_says_that_its_site_can_be_heard() -> None:
    link = {"bridge": "uc", "from_site": "uc", "to_site": "cloud", "writes": True, "forwarded": 1, "waiting": 0}
    (stimulus,) = received(event(ev.LinkStatus(**link, reads=True, interval=10.0)))  # type: ignore[arg-type]
    assert isinstance(stimulus, stimuli.BridgePolled)
    assert (stimulus.site, stimulus.interval) == ("uc", 10.0)
    assert received(event(ev.LinkStatus(**link, reads=False))) == []  # type: ignore[arg-type]


def test_a_link_of_the_own_site_that_is_down_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    down = event(ev.LinkDown(bridge="anl", from_site="cloud", to_site="anl", reason="cloud: cannot be reached"))
    assert received(down, structs.replace(down, hops=2)) == []
    assert (
        caplog.text.count("No events arrive from cloud at anl, reports the bridge anl: cloud: cannot be reached") == 1
    )


def test_only_a_death_that_is_proven_counts() -> None:
    lost: list[tuple[int, str]] = []
    listener = Listener(
        {"alpha": "anl"},
        OWN,
        lambda _: None,
        secrets=lambda _: ["old", "new"],
        lost=lambda *reported: lost.append(reported),
    )
    about = {"endpoint": "alpha", "site": "anl", "node": "n1", "pid": 7}
    listener.on_events(
        [
            event(ev.WorkerDied(**about, attempt=1, proof=hmac_of("new", "alpha", 7, 1))),  # type: ignore[arg-type]
            event(ev.WorkerDied(**about, attempt=2, proof=hmac_of("new", "alpha", 7, 1))),  # type: ignore[arg-type]
            event(ev.WorkerDied(**about, attempt=3, proof=hmac_of("guess", "alpha", 7, 3))),  # type: ignore[arg-type]
            event(ev.WorkerDied(**about, attempt=4, proof="pröof")),  # type: ignore[arg-type]
            event(ev.WorkerDied(**about, attempt=0, proof=hmac_of("new", "alpha", 7, 0))),  # type: ignore[arg-type]
        ]
    )
    assert lost == [(1, "n1")]
