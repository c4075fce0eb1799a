from __future__ import annotations

from itertools import count
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from diaspora_parsl import events as ev
from diaspora_parsl.fabric.bridge.config import LinkConfig
from diaspora_parsl.fabric.bridge.filter import LinkFilter

_numbers = count(1)


def event(payload: ev.Payload | None = None, *, at: float = 0.0, source: str = "/anl/pool", **fields: Any) -> ev.Event:
    payload = payload or ev.TaskLate(task=1, attempt=1, endpoint="e", site="s")
    number = next(_numbers)
    values: dict[str, Any] = {
        "id": str(number),
        "source": source,
        "type": payload.event_type(),
        "subject": "x",
        "time": f"2026-01-01T00:00:{at:06.3f}Z",
        "partitionkey": "k",
        "sequence": number,
        "data": ev.encode_payload(payload),
    }
    return ev.Event(**(values | fields))


def beat(at: float, node: str = "n1", **fields: Any) -> ev.Event:
    return event(ev.NodeHeartbeat(endpoint="alpha", site="anl", node=node, interval=1.0), at=at, source=f"/{node}",
                 **fields)  # fmt: skip


def link_filter(**options: Any) -> LinkFilter:
    return LinkFilter(LinkConfig(from_site="anl", to_site="cloud", **options))


def test_what_crosses_is_marked_and_else_unchanged() -> None:
    fields: dict[str, Any] = {"traceparent": "00-1-2-3", "data": Raw(b'{"task": 1,  "unknown": [1, 2]}')}
    born = event(**fields)
    (first,) = link_filter().admit([born])
    assert (first.originsite, first.viasite, first.hops) == ("anl", "anl", 1)
    assert msgspec.structs.replace(first, originsite=born.originsite, viasite=born.viasite, hops=born.hops) == born
    assert bytes(first.data) == bytes(born.data)
    (second,) = LinkFilter(LinkConfig(from_site="cloud", to_site="uc")).admit([first])
    assert (second.originsite, second.viasite, second.hops) == ("anl", "cloud", 2)


def test_a_name_that_a_publisher_gave_its_site_becomes_that_of_its_fabric() -> None:
    (crossed,) = link_filter().admit([event(originsite="login-node-7")])
    assert crossed.originsite == "anl"
    (crossed,) = link_filter().admit([event(originsite="uc", hops=1)])
    assert crossed.originsite == "uc"


@pytest.mark.parametrize(
    "fields",
    [{"originsite": "cloud"}, {"originsite": "uc", "viasite": "cloud", "hops": 1}, {"originsite": "uc", "hops": 4}],
)
def test_what_has_been_there_or_came_too_far_does_not_go(fields: dict[str, Any]) -> None:
    one = link_filter()
    assert one.admit([event(**fields)]) == []
    assert one.looped == 1


def test_a_hostile_number_of_hops_gives_no_extra_ones() -> None:
    (crossed,) = link_filter().admit([event(hops=-1_000_000)])
    assert crossed.hops == 1


def test_requests_stay_even_if_they_stand_among_tasks() -> None:
    one = link_filter()
    request = event(ev.EndpointDrainRequested(endpoint="alpha"))
    unknown = event(type="org.diaspora.parsl.task.invented.v9")
    assert one.admit([request, unknown]) == []
    assert one.refused == 2
    assert len(link_filter(topics=(ev.TOPIC_CONTROL,)).admit([request, unknown])) == 2


def test_doubles_go_once() -> None:
    one, double = link_filter(), event()
    assert len(one.admit([double, double])) + len(one.admit([double])) == 1
    assert one.doubles == 2


def test_samples_go_once_in_so_many_seconds_per_node() -> None:
    one = link_filter(sample_seconds=10.0)
    beats = [beat(second + jitter, node) for second in range(50) for node, jitter in (("n1", 0.0), ("n2", 0.3))]
    taken = one.admit(beats)
    assert [event.time[17:19] for event in taken if event.source == "/n1"] == ["00", "10", "20", "30", "40"]
    assert len(taken) == 10
    assert one.thinned == 90
    goodbye = event(ev.NodeStopped(endpoint="alpha", node="n1"), at=41.0)
    assert one.admit([goodbye]), "a change of state is no sample"


def test_a_thinned_heartbeat_promises_the_next_one_for_when_it_will_come() -> None:
    data = Raw(b'{"endpoint":"alpha","node":"n1","added_later":{"x":1}}')
    (crossed,) = link_filter(sample_seconds=10.0).admit([beat(0.0, data=data)])
    payload = crossed.payload()
    assert isinstance(payload, ev.NodeHeartbeat)
    assert payload.interval == 10.0
    assert b"added_later" in bytes(crossed.data)
    (crossed,) = link_filter(sample_seconds=0).admit([beat(0.0, data=data)])
    assert bytes(crossed.data) == bytes(data)
    slow = event(ev.NodeHeartbeat(endpoint="alpha", interval=30.0))
    (crossed,) = link_filter(sample_seconds=10.0).admit([slow])
    assert bytes(crossed.data) == bytes(slow.data)


def test_a_clock_that_is_set_back_does_not_silence_its_node() -> None:
    one = link_filter(sample_seconds=10.0)
    assert len(one.admit([beat(40.0), beat(5.0), beat(6.0), beat(15.0)])) == 3


@pytest.mark.parametrize("data", [b"[]", b"3", b'{"interval": "x"}', b"[" * 100_000 + b"]" * 100_000])
def test_a_broken_sample_breaks_nothing(data: bytes) -> None:
    assert len(link_filter().admit([beat(0.0, data=Raw(data))])) == 1


def test_a_sample_without_a_time_does_not_go() -> None:
    one = link_filter()
    assert one.admit([beat(0.0, time="yesterday"), beat(0.0, time="9999-99-99"), beat(0.0, time="")]) == []
    assert one.refused == 3


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diaspora_parsl.fabric.bridge.filter._SOURCES", 100)
    one = link_filter()
    for number in range(1000):
        one.admit([beat(0.0, f"node-{number}")])
    assert len(one._young) + len(one._old) <= 100
