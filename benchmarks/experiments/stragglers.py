"""Some tasks are slow where they run, not in themselves: how long do the slowest take, and for how much extra work?"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from benchmarks import tasks
from benchmarks.kit.experiment import Case, Column, Experiment, Plot, Target, at_least, at_most, every
from benchmarks.kit.schema import Report

_SHARE = 0.05
_SLOW = "5 % stragglers"
_NONE = "no stragglers"


def cases(quick: bool) -> list[Case]:  # noqa: FBT001 - see Experiment
    """With and without stragglers."""
    spec = {"tasks": 120 if quick else 1000, "per_second": 15, "seconds": 0.2, "slow": 4.0, "wait": 60}
    return [
        Case(peer, variant, {**spec, "share": share}, 300)
        for variant, share in ((_SLOW, _SHARE), (_NONE, 0.0))
        for peer in ("pool", "plain")
    ]


def measure(spec: dict[str, Any], record: Callable[[dict[str, Any]], None]) -> None:
    """A steady stream at about 40 % of what the workers could take, so that waiting is no part of the time."""
    from benchmarks.peers import parsl_side as side  # noqa: PLC0415 - its package is not where other peers live

    dice = random.Random(1)  # noqa: S311 - no secret
    slow = set(dice.sample(range(spec["tasks"]), round(spec["share"] * spec["tasks"])))
    executors = [side.executor_of(side.site(label, workers=4)) for label in ("alpha", "beta")]
    with side.workflow(spec["peer"], executors) as kernel:
        side.warm_up(kernel, {"alpha", "beta"}, each=4)
        straggles = side.app(tasks.straggles, kernel)
        began = time.monotonic()
        futures: list[Future[int]] = []
        took: list[float] = []
        for number in range(spec["tasks"]):
            time.sleep(max(0.0, began + number / spec["per_second"] - time.monotonic()))
            flag = str(Path(f"slow-{number}").resolve()) if number in slow else ""
            submitted = time.monotonic()
            future = straggles(number, spec["seconds"], spec["slow"], flag, str(Path("book").resolve()))
            future.add_done_callback(lambda _, submitted=submitted: took.append(time.monotonic() - submitted))
            futures.append(future)
        outcome = side.outcome(futures, time.monotonic(), spec["wait"])
        starts = len(tasks.lines("book", "start"))
        record({
            "success": outcome.figures()["success"],
            "p50": statistics.median(took),
            "p99": statistics.quantiles(took, n=100)[98],
            "extra": 100 * (starts - spec["tasks"]) / spec["tasks"],
        })  # fmt: skip


def _halved(report: Report) -> bool | None:
    pool, plain = ([m.figure("p99") for m in report.of(peer, _SLOW)] for peer in ("pool", "plain"))
    if not pool or not plain or pool[0] is None or plain[0] is None:
        return None
    return pool[0] <= plain[0] / 2


EXPERIMENT = Experiment(
    name="stragglers",
    title="Stragglers",
    asks=(
        "Two endpoints of four workers, 15 tasks of 0.2 s a second; of every twenty tasks one takes 4 s the first time"
        " that it runs, and 0.2 s anywhere else. Both at their defaults, without retries."
        " The pool first has to learn what is usual; that is part of what is measured."
    ),
    cases=cases,
    columns=(
        Column("success", "tasks done, %"),
        Column("p50", "time of a task, s (p50)", "{:.2f}"),
        Column("p99", "time of a task, s (p99)", "{:.2f}"),
        Column("extra", "extra executions, %"),
    ),
    targets=(
        Target("every task done", lambda r: every(r, "pool", at_least("success", 100))),
        Target("p99 at most half of that without the pool", _halved),
        Target(
            "extra attempts at most 6 % with 5 % stragglers",
            lambda r: every(r, "pool", at_most("extra", 6), lambda variant: variant == _SLOW),
        ),
        Target(
            "extra attempts at most 3 % without stragglers",
            lambda r: every(r, "pool", at_most("extra", 3), lambda variant: variant == _NONE),
        ),
    ),
    plot=Plot("p99", "time of a task, s (p99)"),
)
