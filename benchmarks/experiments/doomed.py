"""A task that fails by its own fault: how often does it run, and how soon is that known?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks import tasks
from benchmarks.kit.experiment import Case, Column, Experiment, Plot, Target, at_most, every
from benchmarks.peers.common import time_failures


def cases(quick: bool) -> list[Case]:  # noqa: FBT001 - see Experiment
    """Every peer with three retries."""
    spec = {"tasks": 4 if quick else 20, "seconds": 0.2, "retries": 3}
    return [Case(peer, "retries=3", spec, 90) for peer in ("pool", "plain", "dask", "ray")]


def measure(spec: dict[str, Any], record: Callable[[dict[str, Any]], None]) -> None:
    """One after the other, on two warm endpoints."""
    from benchmarks.peers import parsl_side as side  # noqa: PLC0415 - its package is not where other peers live

    executors = [side.executor_of(side.site(label, workers=2)) for label in ("alpha", "beta")]
    with side.workflow(spec["peer"], executors, retries=spec["retries"]) as kernel:
        side.warm_up(kernel, {"alpha", "beta"}, each=2)
        doomed = side.app(tasks.doomed, kernel)
        record(time_failures(lambda n: doomed(n, spec["seconds"], "book").exception(60), spec))


EXPERIMENT = Experiment(
    name="doomed",
    title="Doomed task",
    asks=(
        "A task that runs for 0.2 s and then divides by zero, wherever it runs, with three retries asked "
        "for; 20 of them, one after the other, on two warm endpoints of two workers (four workers at the "
        "peers)."
    ),
    cases=cases,
    columns=(
        Column("executions", "executions of each", "{:.2f}"),
        Column("to_failure", "to its failure, s (median)", "{:.3f}"),
        Column("beyond_ms", "beyond one execution, ms", "{:.0f}"),
    ),
    targets=(
        Target("executed once", lambda r: every(r, "pool", at_most("executions", 1))),
        Target("fails after one execution + 50 ms", lambda r: every(r, "pool", at_most("beyond_ms", 50))),
    ),
    plot=Plot("to_failure", "time to failure, s"),
)
