from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from diaspora_parsl.campaigns.screening.records import Row
from diaspora_parsl.campaigns.screening.report.gantt import Bar, bars, gantt, lanes
from diaspora_parsl.campaigns.screening.results.reroutes import Fault, at_their_sites, build_story, sentences
from diaspora_parsl.events import (
    EndpointDown,
    EndpointUp,
    Event,
    Payload,
    TaskDispatched,
    TaskFinished,
    TaskRerouted,
    encode_payload,
)


def event(at: float, payload: Payload) -> Event:
    return Event(
        id=str(at),
        source="pool",
        type=payload.event_type(),
        subject="s",
        time=datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z"),
        partitionkey="k",
        sequence=1,
        data=encode_payload(payload),
    )


def row(number: int, site: str, started: float, ended: float, task: int | None) -> Row:
    return Row(
        molecule=number, name=f"m{number}", smiles="CCO", status="ok", score=-5.0, site=site, submitted=990.0,
        started=started, ended=ended, pool_task=task,
    )  # fmt: skip


GONE = "the endpoint went down: its interchange is gone"
EVENTS = [
    event(1000, TaskDispatched(task=1, attempt=1, endpoint="beta", site="beta", reason="free")),
    event(1000, TaskDispatched(task=2, attempt=1, endpoint="alpha", site="alpha", reason="free")),
    event(1001, TaskDispatched(task=3, attempt=1, endpoint="beta", site="beta", reason="prefetch")),
    event(1004, EndpointDown(endpoint="beta", site="beta", reason="its interchange is gone", in_flight=2)),
    event(1004, TaskRerouted(task=1, attempt=1, endpoint="beta", site="beta", reason=GONE)),
    event(1004, TaskRerouted(task=3, attempt=1, endpoint="beta", site="beta", reason=GONE)),
    event(1004.1, TaskDispatched(task=1, attempt=2, endpoint="alpha", site="alpha", reason="free")),
    event(1006, TaskDispatched(task=3, attempt=2, endpoint="gamma", site="gamma", reason="free")),
    event(1008, TaskFinished(task=1, attempt=2, endpoint="alpha", site="alpha", seconds=4, attempts=2)),
]
ROWS = [row(0, "alpha", 1005.0, 1008.0, 1), row(1, "alpha", 1000.0, 1004.9, 2)]
KILL = Fault(at=1003.0, site="beta", what="killed")


def test_lost_attempts_are_joined_with_the_ledger() -> None:
    story = build_story(EVENTS, ROWS)
    assert story.rerouted_tasks == 2
    first, second = story.lost_attempts
    assert (first.molecule, first.dispatched, first.given_up, first.next_site, first.next_start) == (
        "m0",
        1000,
        1004,
        "alpha",
        1005.0,  # told by the worker, later than the dispatch
    )
    assert (second.molecule, second.next_site, second.next_start) == ("task 3", "gamma", 1006)
    assert [change.state for change in story.endpoint_changes] == ["down"]
    assert story.first_start_after(KILL) == pytest.approx(2.0)
    assert story.first_start_after(Fault(at=1003.0, site="gamma", what="killed")) is None


def test_who_does_not_know_its_site_is_called_as_the_pool_calls_it() -> None:
    nameless = replace(ROWS[0], site="node17", host="node17")
    named = replace(ROWS[0], molecule=7, host="node17", site="north")
    never = replace(nameless, molecule=8, site="", host="", pool_task=None)
    rows = at_their_sites([nameless, named, never, replace(nameless, molecule=9, pool_task=99)], EVENTS)
    assert [row.site for row in rows] == ["alpha", "north", "", "node17"]


def test_three_sentences() -> None:
    story = build_story(EVENTS, ROWS)
    said = sentences(20, 0, story, [KILL, Fault(at=1010, site="beta", what="restored")])
    assert said[1] == "2 tasks were rerouted after beta was killed without warning."  # it was allowed back, and is not
    back = event(1012, EndpointUp(endpoint="beta", site="beta", reason="1 slots", slots=1))
    said = sentences(20, 0, build_story([*EVENTS, back], ROWS), [KILL, Fault(at=1010, site="beta", what="restored")])
    assert said == [
        "20 tasks were submitted, 0 lost.",
        "2 tasks were rerouted after beta was killed without warning and later came back.",
        "From the kill to the first start of a rerouted task it took 2.0 seconds.",
    ]
    assert sentences(1, 0, build_story([], []), []) == ["1 task was submitted, 0 lost.", "0 tasks were rerouted."]


def test_every_attempt_is_a_bar() -> None:
    found = bars(ROWS, build_story(EVENTS, ROWS), began=1000.0)
    assert [(bar.site, bar.kind) for bar in found] == [
        ("alpha", "first"),
        ("alpha", "again"),
        ("beta", "lost"),
        ("beta", "lost"),
    ]


def test_bars_in_a_lane_do_not_overlap() -> None:
    spans = [Bar("a", start, end, "first") for start, end in [(0, 3), (1, 2), (2, 4), (3, 5), (4, 6)]]
    assert lanes(spans) == [0, 1, 1, 0, 1]


def test_the_chart_tells_kill_and_return() -> None:
    svg = gantt(ROWS, build_story(EVENTS, ROWS), [KILL, Fault(at=1010, site="beta", what="restored")], 1000.0)
    assert svg.startswith("<svg")
    assert "killed, 3 s" in svg
    assert "allowed back, 10 s" in svg
    assert gantt([], build_story([], []), [], 0.0) == ""
