"""The fold of events into a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from diaspora_parsl import events as ev
from diaspora_parsl.monitors.view.fabric_state import FabricState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from diaspora_parsl.monitors.view.pool_state import PoolView

    Made = Callable[..., ev.Event]


def picture_of(events: Iterable[ev.Event]) -> FabricState:
    state = FabricState()
    for event in events:
        state.apply(event)
    return state


def summary(pool: PoolView) -> object:
    endpoints = {
        each.name: (each.state, each.site, each.finished, each.in_flight, each.slots, each.generation, each.evidence)
        for each in pool.endpoints.values()
    }
    reroutes = sorted((each.task, each.attempt, each.left, each.reason) for each in pool.reroutes)
    return pool.tasks(), endpoints, reroutes, pool.rerouted, pool.late, bool(pool.stopped)


def test_the_story_is_understood(story: list[ev.Event]) -> None:
    (pool,) = picture_of(story).pools()
    assert pool.name == "pool"
    assert pool.tasks() == {"waiting": 3, "running": 0, "finished": 6, "failed": 1}
    assert (pool.rerouted, pool.late) == (2, 1)
    alpha, beta = pool.endpoints["alpha"], pool.endpoints["beta"]
    assert (alpha.state, alpha.finished, alpha.in_flight, alpha.site) == ("down", 2, 0, "anl")
    assert alpha.evidence == "interchange exited with -9"
    assert (beta.state, beta.finished, beta.in_flight) == ("up", 4, 0)
    assert [(each.task, each.left, each.went) for each in pool.reroutes] == [(0, "alpha", "beta"), (1, "alpha", "")]


@given(data=st.data())
def test_order_and_doubles_do_not_matter(story: list[ev.Event], data: st.DataObject) -> None:
    # Evidence is told in the order of sequence, which the fold itself restores for endpoints.
    shuffled = data.draw(st.permutations(story))
    doubled = shuffled + data.draw(st.lists(st.sampled_from(story), max_size=20))
    (reported,), (pool,) = picture_of(story).pools(), picture_of(doubled).pools()
    assert summary(pool) == summary(reported)


@given(data=st.data())
def test_every_prefix_adds_up(story: list[ev.Event], data: st.DataObject) -> None:
    prefix = data.draw(st.permutations(story))[: data.draw(st.integers(0, len(story)))]
    state = picture_of(prefix)
    assert state.events == len(prefix)
    for pool in state.sources.values():
        counts = pool.tasks()
        tasks = {getattr(event.payload(), "task", None) for event in prefix if ".task.late" not in event.type}
        assert all(count >= 0 for count in counts.values())
        assert sum(counts.values()) == len(tasks - {None})
        # A task has two attempts in flight as long as the news of the reroute is on its way.
        assert sum(each.in_flight for each in pool.endpoints.values()) >= counts["running"]


KINDS = [*ev.known_types().values(), None]
VALUES = [0, 1, -3, 2**80, 0.5, "alpha", "beta", "", None, True, ["alpha"], {"task": 1}]


@st.composite
def wild_events(draw: st.DrawFn) -> ev.Event:
    kind = draw(st.sampled_from(KINDS))
    data: object = draw(st.sampled_from(VALUES))
    if kind and draw(st.integers(0, 4)):
        fields = {field.name: draw(st.sampled_from(VALUES[:8])) for field in msgspec.structs.fields(kind)}
        data = fields | ({"endpoints": ["alpha", "x"]} if "endpoints" in fields else {})
    return ev.Event(
        id="1",
        source=draw(st.sampled_from(["/a", "/b", ""])),
        type=kind.event_type() if kind else "org.other.thing.v1",
        subject="",
        time=draw(st.sampled_from(["2026-01-31T12:00:00Z", "", "yesterday"])),
        partitionkey="",
        sequence=draw(st.integers(-2, 5)),
        data=msgspec.Raw(msgspec.json.encode(data)),
    )


@given(st.lists(wild_events(), max_size=30))
def test_nothing_that_comes_upsets_it(events: list[ev.Event]) -> None:
    state = picture_of(events)
    assert state.events == len(events)
    for pool in state.pools() + state.others():
        assert all(count >= 0 for count in pool._counts.values())


def test_the_pools_own_figures_win_when_the_log_was_trimmed(made: Made, story: list[ev.Event]) -> None:
    status = ev.PoolStatus(pool="pool", waiting=5, in_flight=2, finished=990, failed=3, rerouted=7, late=2)
    (pool,) = picture_of([*story[15:], made(status, 100)]).pools()
    assert pool.tasks() == {"waiting": 5, "running": 2, "finished": 990, "failed": 3}
    assert (pool.rerouted, pool.late) == (7, 2)


def test_a_stale_sample_does_not_raise_the_dead(made: Made, story: list[ev.Event]) -> None:
    up = ev.EndpointStatus(endpoint="alpha", site="anl", state="up", slots=4, in_flight=2, finished=2, rate=1.0)
    old, new = made(up, 1), made(msgspec.structs.replace(up, reason="back", generation=2), 99)
    (pool,) = picture_of([*story, old]).pools()
    assert pool.endpoints["alpha"].state == "down"
    (pool,) = picture_of([*story, old, new]).pools()
    assert (pool.endpoints["alpha"].state, pool.endpoints["alpha"].generation) == ("up", 2)


def test_nodes_beat_fall_silent_and_say_goodbye(made: Made) -> None:
    state = FabricState()
    for sequence, node in enumerate(["n1", "n2", "n1"]):
        beat = ev.NodeHeartbeat(endpoint="alpha", block="0", node=node)
        state.apply(made(beat, sequence, source=f"/agent/{node}"), received=float(sequence))
    assert sorted((node.node, node.received) for node in state.nodes_of("alpha")) == [("n1", 2.0), ("n2", 1.0)]
    bye = ev.NodeStopped(endpoint="alpha", block="0", node="n1", reason="SIGTERM")
    state.apply(made(bye, 3, source="/agent/n1"))
    state.apply(made(ev.NodeHeartbeat(endpoint="alpha", block="0", node="n1"), 2, source="/agent/n1"), received=9.0)
    assert [node.node for node in state.nodes_of("alpha")] == ["n2"]
    again = ev.NodeHeartbeat(endpoint="alpha", block="0", node="n1")
    state.apply(made(again, 0, source="/agent/n1-again"), received=5.0)
    assert len(state.nodes_of("alpha")) == 2
    assert not state.pools()


def test_what_others_say_is_no_pool_of_its_own(made: Made, story: list[ev.Event]) -> None:
    said = ev.EndpointDown(endpoint="alpha", site="anl", reason="maintenance until 18:00")
    state = picture_of([*story, made(said, source="/facility/anl")])
    assert len(state.pools()) == 1
    assert [other.source for other in state.others()] == ["/facility/anl"]


def test_a_running_pool_comes_before_ended_ones(made: Made) -> None:
    def started(name: str, hour: int) -> ev.Event:
        when = f"2026-01-31T{hour}:00:00Z"
        return made(ev.PoolStarted(pool=name, endpoints=()), source=f"/{name}", time=when)

    stop = made(ev.PoolStopped(pool="c"), 1, source="/c", time="2026-01-31T16:00:00Z")
    state = picture_of([started("a", 12), started("b", 13), started("c", 14), stop])
    assert [pool.name for pool in state.pools()] == ["b", "a", "c"]


def test_drops_add_up(made: Made) -> None:
    drops = [made(ev.FabricDropped(state_changes=1, samples=5), n) for n in range(2)]
    state = picture_of(drops)
    assert (state.dropped_changes, state.dropped_samples) == (2, 10)
