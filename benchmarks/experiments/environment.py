"""One of two endpoints lacks a module: do applications still succeed, and at what price?"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import tasks
from benchmarks.kit.experiment import Case, Column, Experiment, Plot, Target, at_least, every
from benchmarks.kit.schema import Measurement, Report

_STEPS = 4
_GOOD_ONLY = "only the good endpoint"


def cases(quick: bool) -> list[Case]:  # noqa: FBT001 - see Experiment
    """With the good endpoint alone, then with both."""
    found = []
    for variant, sites, retries in ((_GOOD_ONLY, 1, 0), ("retries=0", 2, 0), ("retries=3", 2, 3)):
        for peer in ("pool", "plain"):
            spec = {
                "applications": 40 if quick else 200, "seconds": 0.05, "sites": sites, "retries": retries, "wait": 120,
            }  # fmt: skip
            found.append(Case(peer, variant, spec, 200))
    return found


def measure(spec: dict[str, Any], record: Callable[[dict[str, Any]], None]) -> None:
    """Applications of four tasks, each waiting for the one before it."""
    from benchmarks.peers import parsl_side as side  # noqa: PLC0415 - its package is not where other peers live

    folder = Path("only-at-alpha").resolve()
    folder.mkdir()
    (folder / "bench_science.py").write_text("def step(value):\n    return value + 1\n", encoding="utf-8")
    path = os.pathsep.join([os.environ["PYTHONPATH"], str(folder)])
    sites = [side.site("alpha", workers=2, environment={"PYTHONPATH": path}), side.site("beta", workers=2)]
    sites = sites[: spec["sites"]]
    with side.workflow(spec["peer"], [side.executor_of(s) for s in sites], retries=spec["retries"]) as kernel:
        step = side.app(tasks.needs_a_module, kernel)
        side.warm_up(kernel, {s.label for s in sites}, each=2)
        began = time.monotonic()
        finals = []
        for _ in range(spec["applications"]):
            value: Any = 0
            for _ in range(_STEPS):
                value = step(value, spec["seconds"])
            finals.append(value)
        record(side.outcome(finals, began, spec["wait"]).figures())


def relative(report: Report, measurement: Measurement) -> float | None:
    """Makespan over that of the same peer with only the good endpoint."""
    alone = report.of(measurement.peer, _GOOD_ONLY)
    makespan = measurement.figure("makespan")
    reference = alone[0].figure("makespan") if alone else None
    if makespan is None or not reference or measurement.figure("success") != 100:
        return None  # what failed early is not fast
    return makespan / reference


def _is_both(variant: str) -> bool:
    return variant != _GOOD_ONLY


EXPERIMENT = Experiment(
    name="environment",
    title="Wrong environment",
    asks=(
        "Two endpoints of two workers, one of which lacks a module; 200 applications of four tasks in a "
        "row, 0.05 s each, that import it. The makespan is compared, where every application succeeded, "
        "with that of the same peer on the good endpoint alone."
    ),
    cases=cases,
    columns=(
        Column("success", "applications done, %"),
        Column("makespan", "makespan, s"),
        Column("relative", "over the good endpoint alone", "{:.2f}", relative),
    ),
    targets=(
        Target(
            "every application done, retries=0 and 3",
            lambda r: every(r, "pool", at_least("success", 100), _is_both),
        ),
        Target(
            "makespan at most 1.2 of that with only the good endpoint",
            lambda r: every(r, "pool", lambda m: (relative(r, m) or 9) <= 1.2, _is_both),
        ),
    ),
    plot=Plot("success", "applications done, %"),
)
