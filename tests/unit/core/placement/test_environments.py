"""A function prefers endpoints that do not seem to lack its imports."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diaspora_parsl import events as ev
from diaspora_parsl.core import stimuli
from diaspora_parsl.core.failures import Kind

if TYPE_CHECKING:
    from tests.unit.core.conftest import Bench

NUMPY = frozenset({"numpy"})


def submit(b: Bench, function: str = "f") -> int:
    """Submit a task that imports numpy."""
    task = 1000 + len(b.actions)
    b.send(stimuli.Submitted, task, function, frozenset(b.labels), imports=NUMPY)
    return task


def installed(b: Bench, label: str, *modules: str) -> None:
    b.send(stimuli.Environment, label, b.core.assessor.health[label].generation, frozenset(modules))


def test_it_goes_where_its_imports_are_and_waits_for_that(bench: type[Bench]) -> None:
    b = bench("alpha", "beta").up()
    installed(b, "alpha", "scipy")
    installed(b, "beta", "numpy", "scipy")
    first, second, other = submit(b), submit(b), b.submit("imports nothing")
    assert [b.where(first), b.where(second), b.where(other)] == ["beta", None, "alpha"]
    b.finish(other)
    assert b.where(second) is None
    b.finish(first)
    assert b.where(second) == "beta"


def test_it_runs_there_if_no_endpoint_seems_to_have_the_imports_or_reports_any(bench: type[Bench]) -> None:
    b = bench("alpha", "beta", "gamma").up("alpha", "beta")
    installed(b, "alpha", "scipy")
    installed(b, "beta", "scipy")
    assert {b.where(submit(b)), b.where(submit(b))} == {"alpha", "beta"}
    b.up("gamma")  # of which nothing is known
    assert b.where(submit(b)) == "gamma"


def test_if_the_place_that_has_them_is_lost_the_other_gets_it(bench: type[Bench]) -> None:
    b = bench("alpha", "beta").up()
    installed(b, "alpha")
    installed(b, "beta", "numpy")
    task = submit(b)
    b.die("beta")
    assert b.where(task) == "alpha"


def test_once_a_minute_one_may_try_and_a_success_settles_it(bench: type[Bench]) -> None:
    b = bench("alpha", "beta", slots=2).up()
    installed(b, "alpha", "scipy")
    installed(b, "beta", "numpy")
    tasks = [submit(b) for _ in range(5)]
    assert [b.where(task) for task in tasks] == ["beta", "beta", None, None, None]
    b.wait(60.0)
    assert [b.where(task) for task in tasks[2:]] == ["alpha", None, None]
    assert b.of(ev.TaskDispatched)[-1].reason == "trial, though numpy seems to be missing there"
    b.finish(tasks[2])  # it is there, after all
    assert [b.where(task) for task in tasks[3:]] == ["alpha", "alpha"]


def test_a_trial_that_fails_costs_one_attempt_a_minute(bench: type[Bench]) -> None:
    b = bench("alpha", "beta", slots=2).up()
    installed(b, "alpha", "scipy")
    installed(b, "beta", "numpy")
    tasks = [submit(b) for _ in range(5)]
    b.wait(60.0)
    b.fail(tasks[2], Kind.PLACE, "No module named 'numpy'")
    assert [b.where(task) for task in tasks[2:]] == [None, None, None]
    b.wait(60.0)
    assert [b.where(task) for task in tasks[2:]] == [None, "alpha", None]


def test_reports_of_a_fenced_generation_are_discarded(bench: type[Bench]) -> None:
    b = bench("alpha", "beta").up()
    installed(b, "beta", "numpy")
    b.die("alpha")
    b.wait(5.0)
    b.up("alpha")
    b.send(stimuli.Environment, "alpha", 0, frozenset())
    assert {b.where(submit(b)), b.where(submit(b))} == {"alpha", "beta"}
