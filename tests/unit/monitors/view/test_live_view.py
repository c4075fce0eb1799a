"""Frames and lines, as a terminal shows them."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from diaspora_parsl import events as ev
from diaspora_parsl.fabric.base import open_fabric
from diaspora_parsl.fabric.transports.memory import forget
from diaspora_parsl.monitors.view.event_feed import EventFeed
from diaspora_parsl.monitors.view.fabric_state import FabricState
from diaspora_parsl.monitors.view.live_view import Watch
from diaspora_parsl.monitors.view.terminal import ConnectionState, frame, plain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from diaspora_parsl.fabric.base import Fabric

    Made = Callable[..., ev.Event]


@pytest.fixture
def fabric(request: pytest.FixtureRequest) -> Iterator[Fabric]:
    name = request.node.name.replace("[", "-").strip("]")
    opened = open_fabric(f"memory://{name}")
    yield opened
    opened.close()
    forget(name)


def shown(state: FabricState, line: ConnectionState, width: int = 130, height: int = 40) -> str:
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=False)
    console.print(frame(state, line, width, height))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def picture_of(events: list[ev.Event]) -> FabricState:
    state = FabricState()
    for event in events:
        state.apply(event)
    return state


@pytest.mark.parametrize("width", [80, 130, 200])
def test_a_frame_says_everything(story: list[ev.Event], width: int) -> None:
    text = shown(picture_of(story), ConnectionState(clock=0), width)
    words = " ".join(text.split())
    for said in ["alpha", "beta", "down", "interchange exited", "3 waiting", "6 finished", "1 failed", "70 % of 10"]:
        assert said in words
    assert "2 rerouted" in words
    assert "alpha is down: interchange exited with -9" in words
    assert "fabric connected" in words
    assert max(map(len, text.splitlines())) <= width


def test_a_hundred_endpoints_fit_and_trouble_comes_first(made: Made) -> None:
    events = [made(ev.PoolStarted(pool="p", endpoints=()))]
    events += [made(ev.EndpointUp(endpoint=f"e{n:03}", site="s", reason="ok"), n) for n in range(100)]
    events += [made(ev.EndpointDown(endpoint="e077", site="s", reason="gone"), 1000)]
    text = shown(picture_of(events), ConnectionState(clock=0), 80, 24)
    assert len(text.splitlines()) <= 24
    assert "e077" in text
    assert "and 88 more" in text


def test_markup_in_what_was_said_is_only_text(made: Made) -> None:
    events = [made(ev.PoolStarted(pool="[red]p", endpoints=()))]
    events += [made(ev.EndpointDown(endpoint="[bold]a", site="[/]", reason="[/red] oops [link]"), 1)]
    events += [made(ev.TaskRerouted(task=1, attempt=1, endpoint="[bold]a", site="s", reason="[/x] why"), 2)]
    text = shown(picture_of(events), ConnectionState(clock=0))
    assert "[red]p" in text
    assert "[/red] oops [link]" in text
    assert "[/x] why" in text


def test_the_fabric_and_the_end_are_told(made: Made, story: list[ev.Event]) -> None:
    lost = shown(picture_of(story), ConnectionState(clock=0, lost_for=12.3))
    assert "fabric lost since 12 s" in lost
    ended = [*story, made(ev.PoolStopped(pool="pool", reason="all is done"), 99, time="2026-01-31T12:01:00Z")]
    text = shown(picture_of(ended), ConnectionState(clock=0))
    assert "run ended" in text
    assert "all is done" in text
    killed = shown(picture_of(story), ConnectionState(clock=0, finished_run=True))
    assert "without a goodbye" in killed
    assert "No pool" in shown(FabricState(), ConnectionState(clock=0))


def test_silent_nodes_are_told(made: Made, story: list[ev.Event]) -> None:
    state = picture_of(story)
    for node in ("n1", "n2"):
        beat = ev.NodeHeartbeat(endpoint="beta", block="0", node=node)
        state.apply(made(beat, 1, source=node), received=0.0 if node == "n1" else 9.5)
    assert "1 of 2 silent 10 s" in shown(state, ConnectionState(clock=10.0))
    state.apply(made(ev.NodeHeartbeat(endpoint="beta", block="0", node="n1"), 2, source="n1"), received=9.9)
    assert "2 nodes" in shown(state, ConnectionState(clock=10.0))


def test_notes_tell_what_others_say_and_what_is_missing(made: Made, story: list[ev.Event]) -> None:
    state = picture_of(story)
    said = ev.EndpointDown(endpoint="alpha", site="anl", reason="maintenance")
    state.apply(made(said, source="/facility"))
    state.apply(made(ev.FabricDropped(state_changes=0, samples=7), source="/x"))
    state.apply(made(ev.PoolStarted(pool="older", endpoints=()), source="/older", time="2020-01-01T00:00:00Z"))
    text = shown(state, ConnectionState(clock=0, resyncs=2))
    assert "said by /facility: alpha down: maintenance" in text
    assert "7 samples" in text
    assert "1 other run" in text
    assert "2 gaps" in text


def test_plain_says_the_same_in_a_line(story: list[ev.Event]) -> None:
    text = plain(picture_of(story), ConnectionState(clock=0))
    assert "\n" not in text
    assert text.startswith("pool: 3 waiting, 0 running, 6 finished, 1 failed, 2 rerouted, 1 late; alpha down 0/4")
    assert plain(FabricState(), ConnectionState(clock=0)) == "no pool yet; fabric connected"


def test_once_shows_a_recorded_run(fabric: Fabric, story: list[ev.Event]) -> None:
    fabric.publish(story)
    console = Console(file=io.StringIO(), width=100, height=30)
    feed = EventFeed(lambda: fabric.url)
    Watch(feed, console).once()
    feed.close()
    assert isinstance(console.file, io.StringIO)
    assert "alpha is down" in console.file.getvalue()


@pytest.mark.parametrize("how", ["live", "lines"])
def test_it_follows_until_the_run_ends(fabric: Fabric, made: Made, story: list[ev.Event], how: str) -> None:
    fabric.publish(story)
    feed = EventFeed(lambda: fabric.url)

    class Ending(Watch):
        frames = 0

        def _line(self) -> ConnectionState:
            # Seen running at least once, the run may end: no clock decides when.
            self.frames += 1
            if self.frames == 2:
                fabric.publish([made(ev.PoolStopped(pool="pool", reason="enough"), 99)])
            return super()._line()

    console = Console(file=io.StringIO(), width=100, height=30, force_terminal=how == "live")
    view = Ending(feed, console)
    if how == "live":
        view.live()
    else:
        view.lines(0.0)
    feed.close()
    assert isinstance(console.file, io.StringIO)
    assert "enough" in console.file.getvalue()
