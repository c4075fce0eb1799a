"""From events to spans, as OpenTelemetry itself sees them."""

from __future__ import annotations

import msgspec
import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from diaspora_parsl import events as ev
from diaspora_parsl.fabric.event_builder import EventBuilder
from diaspora_parsl.monitors.exporter.otlp import Spans, span_exporter
from diaspora_parsl.monitors.exporter.spans import Tracks

SOURCE = "/host/pool/run"
PLACE = {"alpha": "anl", "beta": "uc"}


class Pool:
    """Tells the life of tasks."""

    def __init__(self, source: str = SOURCE) -> None:
        self._builder = EventBuilder(source)
        self.now = 1_767_225_600.0

    def say(self, payload: ev.Payload) -> ev.Event:
        self.now += 1.0
        return self._builder.wrap(payload, "x", "x", self.now)

    def dispatched(self, task: int, attempt: int, endpoint: str) -> ev.Event:
        return self.say(
            ev.TaskDispatched(task=task, attempt=attempt, endpoint=endpoint, site=PLACE[endpoint], reason="")
        )

    def rerouted(self) -> list[ev.Event]:
        return [
            self.say(ev.TaskSubmitted(task=17, function="docking.dock")),
            self.dispatched(17, 21, "alpha"),
            self.say(ev.TaskRerouted(task=17, attempt=21, endpoint="alpha", site="anl", reason="its node died")),
            self.dispatched(17, 22, "beta"),
            self.dispatched(17, 23, "alpha"),
            self.say(ev.TaskFinished(task=17, attempt=22, endpoint="beta", site="uc", seconds=2.0, attempts=3)),
        ]


def test_a_task_is_a_span_and_so_is_each_of_its_attempts() -> None:
    memory = InMemorySpanExporter()
    spans = Spans(memory)
    events = Pool().rerouted()
    for event in [*events, *events[-2:]]:  # doubles tell nothing new
        spans.emit(event)
    spans.close()
    finished = memory.get_finished_spans()
    done = {span.name + str((span.attributes or {}).get("parsl.attempt", "")): span for span in finished}
    assert len(done) == len(finished)
    assert set(done) == {"docking.dock", "docking.dock at alpha21", "docking.dock at beta22", "docking.dock at alpha23"}
    root = done["docking.dock"]
    assert root.parent is None
    assert root.status.status_code is StatusCode.OK
    assert (root.start_time, root.end_time) == (1_767_225_601 * 10**9, 1_767_225_606 * 10**9)
    for name in set(done) - {"docking.dock"}:
        parent = done[name].parent
        assert parent is not None
        assert (parent.trace_id, parent.span_id) == (root.context.trace_id, root.context.span_id)
    lost, won = done["docking.dock at alpha21"], done["docking.dock at beta22"]
    assert (lost.status.status_code, lost.status.description) == (StatusCode.ERROR, "its node died")
    assert won.status.status_code is StatusCode.OK
    assert won.attributes == {"parsl.endpoint": "beta", "parsl.site": "uc", "parsl.attempt": 22}
    assert done["docking.dock at alpha23"].status.description == "another attempt was first"


def test_what_events_and_workers_carry_is_the_span_that_is_made() -> None:
    memory = InMemorySpanExporter()
    spans = Spans(memory)
    events = Pool().rerouted()
    for event in events:
        spans.emit(event)
    spans.close()
    made = {f"00-{s.context.trace_id:032x}-{s.context.span_id:016x}-01" for s in memory.get_finished_spans()}
    carried = {event.traceparent for event in events}
    assert carried == made
    context = TraceContextTextMapPropagator().extract({"traceparent": str(events[1].traceparent)})
    assert context  # as OpenTelemetry in a user's function takes it


def test_a_failure_says_why() -> None:
    tracks, pool = Tracks(), Pool()
    events = [
        pool.say(ev.TaskSubmitted(task=1, function="f")),
        pool.dispatched(1, 1, "alpha"),
        pool.say(ev.TaskFailed(task=1, kind="user", error="ValueError", message="no", attempt=1, attempts=1)),
    ]
    ended = [track for event in events for track in tracks.apply(event)]
    assert [(track.name, track.error) for track in ended] == [("f at alpha", "ValueError: no"), ("f", "ValueError: no")]


def test_what_is_followed_is_bounded_and_hostile_times_are_passed_over() -> None:
    tracks, pool = Tracks(most=2), Pool()
    for task in range(5):
        tracks.apply(pool.say(ev.TaskSubmitted(task=task, function="f")))
    assert len(tracks._open) == 2
    for time in ("", "1969-01-01T00:00:00Z", "9999-12-31T23:59:59-14:00", "x"):
        event = msgspec.structs.replace(pool.say(ev.TaskSubmitted(task=9, function="f")), time=time)
        assert tracks.apply(event) == []


def test_spans_go_to_a_collector_that_is_away_without_anybody_waiting() -> None:
    spans = Spans(span_exporter("http://127.0.0.1:1/v1/traces"))
    for event in Pool().rerouted():
        spans.emit(event)
    spans.close()


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("CRITICAL", "opentelemetry")
