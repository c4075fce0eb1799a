from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest

from diaspora_parsl import events as ev
from diaspora_parsl.core import stimuli
from diaspora_parsl.executors.inbox.control_requests import Requests

SITES = {"alpha": "anl", "beta": "anl", "gamma": "uc"}


def prefetch_seconds(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


def asked(payload: ev.Payload) -> list[stimuli.Stimulus]:
    return Requests("pool", SITES).stimuli(payload, "7", "/host/diaspora-parsl/me")


def test_a_drain_until_a_wall_clock_time_is_until_a_time_of_the_core() -> None:
    (drain,) = asked(ev.EndpointDrainRequested(endpoint="alpha", until=prefetch_seconds(100.0), reason="disk"))
    assert isinstance(drain, stimuli.Drain)
    assert drain.until is not None
    assert drain.until - time.monotonic() == pytest.approx(100.0, abs=5.0)
    assert (drain.endpoint, drain.request) == ("alpha", "7")
    assert drain.reason.endswith(": disk")


def test_who_asked_is_the_reason_if_there_is_no_other() -> None:
    (drain,) = asked(ev.EndpointDrainRequested(endpoint="alpha"))
    assert isinstance(drain, stimuli.Drain)
    assert drain.until is None
    assert drain.reason == "drained: asked for by /host/diaspora-parsl/me"
    (resume,) = asked(ev.EndpointResumeRequested(endpoint="alpha", pool="pool", site="anl"))
    assert isinstance(resume, stimuli.Resume)


def test_a_window_of_a_site_is_one_of_each_of_its_endpoints() -> None:
    windows = asked(
        ev.MaintenanceAnnounced(place="anl", start=prefetch_seconds(10.0), end=prefetch_seconds(20.0), reason="cooling")
    )
    assert [w.endpoint for w in windows if isinstance(w, stimuli.Maintenance)] == ["alpha", "beta"]
    called_off = asked(ev.MaintenanceCancelled(place="gamma"))
    assert [(w.endpoint, w.start) for w in called_off if isinstance(w, stimuli.Maintenance)] == [("gamma", None)]


@pytest.mark.parametrize(
    "payload",
    [
        ev.EndpointDrainRequested(endpoint="delta"),
        ev.EndpointDrainRequested(endpoint="alpha", pool="another"),
        ev.EndpointDrainRequested(endpoint="alpha", site="a namesake elsewhere"),
        ev.MaintenanceAnnounced(place="nersc", start=prefetch_seconds(1.0), end=prefetch_seconds(2.0)),
        ev.RequestAnswered(request="7", endpoint="alpha", site="anl", state="up", reason="", in_flight=0),
    ],
)
def test_what_is_not_for_this_pool_is_ignored(payload: ev.Payload) -> None:
    assert asked(payload) == []


@pytest.mark.parametrize(
    "payload",
    [
        ev.EndpointDrainRequested(endpoint="alpha", until="soon"),
        ev.EndpointQuarantineRequested(endpoint="alpha", until="2026-01-01T00:00:00"),
        ev.MaintenanceAnnounced(place="anl", start=prefetch_seconds(20.0), end=prefetch_seconds(10.0)),
    ],
)
def test_what_names_no_proper_time_is_refused(payload: ev.Payload) -> None:
    with pytest.raises(ValueError, match=r"."):
        asked(payload)
