"""Which events are told, and in which order."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec
import pytest

from diaspora_parsl import events as ev
from diaspora_parsl.errors import ConfigurationError, FabricUnavailableError
from diaspora_parsl.fabric.base import Fabric, open_fabric
from diaspora_parsl.fabric.transports.memory import forget
from diaspora_parsl.monitors.view.event_feed import EventFeed
from diaspora_parsl.monitors.view.event_printer import EventFilter, print_events, since_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Made = Callable[..., ev.Event]

NOW = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)


@pytest.fixture
def feed(story: list[ev.Event], request: pytest.FixtureRequest) -> Iterator[EventFeed]:
    name = request.node.name
    fabric = open_fabric(f"memory://{name}")
    fabric.publish(story)
    reading = EventFeed(lambda: fabric.url)
    yield reading
    reading.close()
    fabric.close()
    forget(name)


def reported(story: list[ev.Event], **wanted: object) -> list[int]:
    chosen = EventFilter(**wanted)  # type: ignore[arg-type]
    return [event.sequence for event in story if chosen.matches(event)]


def test_types_match_by_glob_with_or_without_prefix_and_version(story: list[ev.Event]) -> None:
    rerouted = reported(story, types=("task.rerouted",))
    assert rerouted == [28, 29]
    assert reported(story, types=("org.diaspora.parsl.task.rerouted.v1",)) == rerouted
    assert reported(story, types=("task.rerouted.v1",)) == rerouted
    assert reported(story, types=("*.rerouted", "nonsense")) == rerouted
    assert reported(story, types=("endpoint.*",)) == [1, 2, 27]
    assert reported(story, types=("task.rerouted.v2",)) == []


def test_filters_combine(story: list[ev.Event]) -> None:
    assert reported(story, task=0) == [3, 13, 28, 30, 31, 32]
    assert reported(story, task=0, endpoint="beta") == [30, 31]
    assert reported(story, task=0, types=("task.rerouted",), endpoint="alpha") == [28]
    assert reported(story, since=datetime(2026, 1, 31, 12, 0, 31, tzinfo=UTC)) == [31, 32]


def test_unknown_and_odd_events_are_filtered_too(made: Made) -> None:
    odd = made(ev.TaskLate(task=1, attempt=1, endpoint="a", site="s"), time="soon")
    assert not EventFilter(since=NOW).matches(odd)
    other = ev.Event(
        id="1", source="/x", type="com.example.thing.v1", subject="a", time="", partitionkey="", sequence=0,
        data=msgspec.Raw(b'{"task": 17}'),
    )  # fmt: skip
    assert EventFilter(task=17, endpoint="a", types=("com.example.*",)).matches(other)
    assert not EventFilter(task=18).matches(other)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("90s", "2026-01-31T11:58:30+00:00"),
        ("5m", "2026-01-31T11:55:00+00:00"),
        ("1.5h", "2026-01-31T10:30:00+00:00"),
        ("1d", "2026-01-30T12:00:00+00:00"),
        ("2026-01-31T09:00:00Z", "2026-01-31T09:00:00+00:00"),
        ("2026-01-31T09:00:00", "2026-01-31T09:00:00+00:00"),
    ],
)
def test_since(text: str, moment: str) -> None:
    assert since_time(text, NOW).isoformat() == moment


def test_since_nonsense_says_what_to_write() -> None:
    with pytest.raises(ConfigurationError, match="Write 90s, 5m"):
        since_time("yesterday", NOW)
    with pytest.raises(ConfigurationError, match="Write 90s, 5m"):
        since_time("99999999999d", NOW)


def test_events_are_told_in_order_of_time_as_they_are(feed: EventFeed, story: list[ev.Event]) -> None:
    lines: list[bytes] = []
    assert print_events(feed, EventFilter(), lines.append) == len(story)
    assert lines == [ev.encode(event) + b"\n" for event in story]
    assert json.loads(lines[0])["specversion"] == "1.0"


def test_a_limit_holds_for_what_is_kept_and_for_what_comes(feed: EventFeed) -> None:
    lines: list[bytes] = []
    assert print_events(feed, EventFilter(types=("task.*",)), lines.append, follow=True, limit=3) == 3
    assert len(lines) == 3


def test_a_fabric_that_is_away_is_an_error_unless_followed() -> None:
    def away(_url: str) -> Fabric:
        raise FabricUnavailableError("nobody there")

    with pytest.raises(FabricUnavailableError, match="nobody there"):
        print_events(EventFeed(lambda: "redis://x:1", away), EventFilter(), print)
