"""What a pool that starts takes from the past of its fabric."""

from __future__ import annotations

import socket
import time
import uuid
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from diaspora_parsl import events as ev
from diaspora_parsl.core import stimuli
from diaspora_parsl.events.signing import signed
from diaspora_parsl.executors.inbox.replay import replay
from diaspora_parsl.fabric.base import Fabric, open_fabric
from diaspora_parsl.fabric.event_builder import EventBuilder

if TYPE_CHECKING:
    from collections.abc import Iterator

SITES = {"alpha": "anl", "beta": "anl", "gamma": "uc"}


class Past:
    """A fabric on which things were said some seconds ago."""

    def __init__(self, fabric: Fabric, key: str = "a key") -> None:
        self._fabric = fabric
        self._key = key
        self._builder = EventBuilder("/host/another/run")

    def say(self, ago: float, payload: ev.Payload) -> Past:
        self._fabric.publish([signed(self._builder.wrap(payload, "", "", time.time() - ago), self._key)])
        return self

    def recalled(self) -> list[stimuli.Stimulus]:
        reported: list[stimuli.Stimulus] = []
        assert replay(self._fabric, "pool", SITES, reported.append, key="a key")
        return reported


@pytest.fixture
def past() -> Iterator[Past]:
    fabric = open_fabric(f"memory://{uuid.uuid4()}")
    yield Past(fabric)
    fabric.close()


def down(endpoint: str = "alpha", site: str = "anl") -> ev.EndpointDown:
    return ev.EndpointDown(endpoint=endpoint, site=site, reason="its interchange was killed")


def up(endpoint: str = "alpha") -> ev.EndpointUp:
    return ev.EndpointUp(endpoint=endpoint, site="anl", reason="2 slots")


def prefetch_seconds(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


def test_what_was_lost_lately_is_suspect(past: Past) -> None:
    (rumour,) = past.say(100, up()).say(60, down()).recalled()
    assert isinstance(rumour, stimuli.PeerReport)
    assert (rumour.endpoint, rumour.source, rumour.lasts) == ("alpha", "/host/another/run", 120.0)
    assert "s before this pool started, and not seen up since: its interchange was killed" in rumour.reason


def test_what_was_seen_up_since_was_lost_long_ago_or_is_not_ours_is_not(past: Past) -> None:
    past.say(60, down()).say(30, up()).say(700, down("beta")).say(5, down("gamma", "a namesake")).say(5, down("delta"))
    assert past.recalled() == []


def test_an_empty_past_says_nothing(past: Past) -> None:
    assert past.recalled() == []


def test_windows_that_are_not_over_are_followed(past: Past) -> None:
    past.say(
        9000,
        ev.MaintenanceAnnounced(
            place="anl", start=prefetch_seconds(3600), end=prefetch_seconds(7200), reason="cooling"
        ),
    )
    past.say(8000, ev.MaintenanceAnnounced(place="gamma", start=prefetch_seconds(-7200), end=prefetch_seconds(-3600)))
    windows = past.recalled()
    assert [(w.endpoint, w.request) for w in windows if isinstance(w, stimuli.Maintenance)] == [
        ("alpha", ""),
        ("beta", ""),
    ]
    past.say(10, ev.MaintenanceCancelled(place="alpha"))
    assert [w.endpoint for w in past.recalled() if isinstance(w, stimuli.Maintenance)] == ["beta"]


def test_a_resume_ended_what_was_in_force_then(past: Past) -> None:
    past.say(100, ev.MaintenanceAnnounced(place="alpha", start=prefetch_seconds(-90), end=prefetch_seconds(90)))
    past.say(100, ev.MaintenanceAnnounced(place="alpha", start=prefetch_seconds(300), end=prefetch_seconds(400)))
    past.say(100, ev.EndpointDrainRequested(endpoint="alpha", until=prefetch_seconds(500)))
    past.say(100, ev.EndpointQuarantineRequested(endpoint="alpha", until=prefetch_seconds(500)))
    assert len(past.recalled()) == 4
    past.say(50, ev.EndpointResumeRequested(endpoint="alpha"))
    (window,) = past.recalled()
    assert isinstance(window, stimuli.Maintenance)
    assert window.start is not None
    assert window.start > time.monotonic()


def test_a_drain_binds_later_pools_only_if_it_has_an_end(past: Past) -> None:
    past.say(10, ev.EndpointDrainRequested(endpoint="alpha"))
    past.say(10, ev.EndpointDrainRequested(endpoint="beta", until=prefetch_seconds(100)))
    past.say(10, ev.EndpointDrainRequested(endpoint="gamma", until=prefetch_seconds(100), pool="another"))
    past.say(10, ev.EndpointDrainRequested(endpoint="gamma", until=prefetch_seconds(-5)))
    assert [s.endpoint for s in past.recalled() if isinstance(s, stimuli.Drain)] == ["beta"]


def test_what_was_asked_for_without_the_key_is_not_followed(past: Past) -> None:
    Past(past._fabric, key="another").say(10, ev.EndpointDrainRequested(endpoint="beta", until=prefetch_seconds(100)))
    assert past.recalled() == []


def test_a_fabric_that_hangs_or_cannot_be_reached_delays_nobody_for_long() -> None:
    reported: list[stimuli.Stimulus] = []
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        fabric = open_fabric(f"redis://127.0.0.1:{silent.getsockname()[1]}/0")
        assert not replay(fabric, "pool", SITES, reported.append, limit=0.2)
    assert not replay(fabric, "pool", SITES, reported.append)  # now nobody is there
    fabric.close()
    assert reported == []
