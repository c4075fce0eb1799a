"""The retry budget: income, refusals, and the delay of lost work."""

from __future__ import annotations

from typing import Any

import pytest

from diaspora_parsl import events
from diaspora_parsl.core import actions, settings, stimuli
from diaspora_parsl.core.failures import Kind
from diaspora_parsl.core.placement.retry_budget import RetryBudget
from diaspora_parsl.core.tasks import TaskState
from diaspora_parsl.errors import ConfigurationError


def spent_at_most(budget: RetryBudget, now: float) -> int:
    """Spend all tokens; return their number."""
    taken = 0
    while budget.may_repeat(now):
        budget.spend(now)
        taken += 1
    return taken


def test_a_pool_that_starts_has_ten_seconds_of_the_floor() -> None:
    assert spent_at_most(RetryBudget(settings.PoolSettings(retry_budget_per_second=3.0)), 0.0) == 30


def test_first_attempts_bring_a_share_and_time_brings_the_floor() -> None:
    budget = RetryBudget(settings.PoolSettings(retry_budget_ratio=0.2, retry_budget_per_second=2.0))
    assert spent_at_most(budget, 0.0) == 20
    budget.firsts += 50
    assert spent_at_most(budget, 0.0) == 10
    assert spent_at_most(budget, 3.0) == 6
    assert spent_at_most(budget, 3.0) == 0
    assert budget.spent == 36
    assert budget.refused == 4


def test_no_more_is_saved_than_the_limit() -> None:
    budget = RetryBudget(settings.PoolSettings(retry_budget_max=7.0))
    budget.firsts += 1_000_000
    assert spent_at_most(budget, 1e9) == 7


def test_lost_work_waits_for_the_floor_but_never_longer_than_the_limit() -> None:
    budget = RetryBudget(settings.PoolSettings(retry_budget_per_second=2.0, retry_budget_max=1.0, retry_max_delay=3.0))
    waits = [budget.delay(0.0) for _ in range(20)]
    assert waits[:4] == [0.0, 0.5, 1.0, 1.5]
    assert waits[-1] == max(waits) == 3.0
    assert not budget.may_repeat(1.0), "a debt is paid before anything else is allowed"
    assert budget.delay(4.0) == 0.0, "a debt is never longer than the longest wait"


def test_without_a_floor_lost_work_waits_the_longest_time() -> None:
    budget = RetryBudget(
        settings.PoolSettings(retry_budget_per_second=0.0, retry_budget_ratio=0.0, retry_max_delay=3.0)
    )
    assert budget.delay(100.0) == 3.0


@pytest.mark.parametrize(
    "setting", [{"retry_budget_ratio": -0.1}, {"hedge_quantile": 1.0}, {"hedge_factor": 0.5}, {"hedge_min_results": 0}]
)
def test_budgets_that_mean_nothing_are_refused(setting: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match=f"{next(iter(setting))}=.*: write"):
        settings.PoolSettings(**setting)  # type: ignore[arg-type]


def test_an_empty_budget_paces_reroutes_and_fails_none(bench: Any) -> None:
    pool = bench(
        "alpha",
        "beta",
        slots=4,
        retry_budget_ratio=0.0,
        retry_budget_per_second=1.0,
        retry_budget_max=2.0,
        retry_max_delay=2.0,
    ).up("alpha")
    tasks = [pool.submit() for _ in range(4)]
    pool.up("beta")
    pool.die("alpha")
    assert [pool.where(task) for task in tasks] == ["beta", "beta", None, None]
    assert all(pool.core.tasks[task].state is TaskState.WAITING for task in tasks[2:])
    assert "the retry budget is empty: paced for 1.0 s" in pool.of(events.TaskRerouted)[2].reason
    pool.wait(2.2)
    assert [pool.where(task) for task in tasks] == ["beta"] * 4


def test_a_late_result_settles_a_task_that_is_paced(bench: Any) -> None:
    pool = bench(
        "alpha", "beta", retry_budget_ratio=0.0, retry_budget_per_second=0.0, retry_budget_max=0.0, retry_max_delay=9.0
    ).up()
    task = pool.submit()
    late = pool.attempt(task)
    pool.die(pool.where(task))
    assert pool.where(task) is None
    assert actions.Resolve(task, late) in pool.send(stimuli.Finished, late)
    pool.wait(20.0)
    assert len(pool.of(actions.Dispatch)) == 1


def test_shutting_down_rejects_what_is_paced(bench: Any) -> None:
    pool = bench(
        "alpha", "beta", retry_budget_ratio=0.0, retry_budget_per_second=0.0, retry_budget_max=0.0, retry_max_delay=9.0
    ).up()
    task = pool.submit()
    pool.fail(task, Kind.MANAGER_LOST)
    assert pool.where(task) is None
    pool.send(stimuli.Stopped)
    assert [reject.task for reject in pool.of(actions.Reject)] == [task]
