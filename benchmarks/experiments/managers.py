"""Managers die under a campaign: do its applications succeed?"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import tasks
from benchmarks.kit.experiment import Case, Column, Experiment, Plot, Target, at_least, every

_STEPS = 4


def cases(quick: bool) -> list[Case]:  # noqa: FBT001 - see Experiment
    """The pool needs no retries; plain Parsl gets three."""
    spec = {"applications": 8 if quick else 40, "rate": 0.3, "seconds": 0.2, "wait": 20 if quick else 150}
    limit = spec["wait"] + 75
    return [
        Case("pool", "retries=0", {**spec, "retries": 0}, limit),
        Case("plain", "retries=3", {**spec, "retries": 3}, limit),
    ]


def measure(spec: dict[str, Any], record: Callable[[dict[str, Any]], None]) -> None:
    """A seeded share of the applications kills the manager below one of its tasks, once."""
    from benchmarks.peers import parsl_side as side  # noqa: PLC0415 - its package is not where other peers live

    dice = random.Random(1)  # noqa: S311 - no secret
    killers = set(dice.sample(range(spec["applications"]), round(spec["rate"] * spec["applications"])))
    executors = [side.executor_of(side.site(label, workers=2)) for label in ("alpha", "beta")]
    with side.workflow(spec["peer"], executors, retries=spec["retries"]) as kernel:
        side.warm_up(kernel, {"alpha", "beta"}, each=2)
        step = side.app(tasks.kills_its_manager, kernel)
        began = time.monotonic()
        finals = []
        for application in range(spec["applications"]):
            strikes = dice.randrange(_STEPS) if application in killers else None
            value: Any = 0
            for number in range(_STEPS):
                flag = str(Path(f"struck-{application}").resolve()) if number == strikes else ""
                value = step(value, spec["seconds"], flag)
            finals.append(value)
        figures = side.outcome(finals, began, spec["wait"]).figures()
        record({**figures, "killed": len(list(Path().glob("struck-*")))})


EXPERIMENT = Experiment(
    name="managers",
    title="Managers killed during a campaign",
    asks=(
        "Forty applications of four tasks in a row on two endpoints; in three of ten, one task sends "
        "SIGKILL to the manager that it runs below, the first time it runs."
    ),
    cases=cases,
    columns=(
        Column("success", "applications done, %"),
        Column("unresolved", "unresolved at the limit", "{:.0f}"),
        Column("killed", "managers killed", "{:.0f}"),
        Column("makespan", "until then, s"),
    ),
    targets=(Target("every application done", lambda r: every(r, "pool", at_least("success", 100))),),
    plot=Plot("success", "applications done, %"),
    shows_exit=True,
)
