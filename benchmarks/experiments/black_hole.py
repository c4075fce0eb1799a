"""A node that fails at once is always the free one: does it swallow all work?"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from benchmarks import tasks
from benchmarks.kit.experiment import Case, Column, Experiment, Plot, Target, at_least, at_most, every

_NODES = 4
_SLOTS_BAD = 1


def cases(quick: bool) -> list[Case]:  # noqa: FBT001 - see Experiment
    """Every peer with and without retries; under Parsl also with a host that stays broken."""
    count = 100 if quick else 400
    found = []
    for retries in (0, 3):
        for peer in ("pool", "plain", "dask", "ray"):
            spec = {"tasks": count, "seconds": 0.2, "retries": retries, "nodes": 0, "wait": 120}
            found.append(Case(peer, f"retries={retries}", spec, 200))
    for peer in ("pool", "plain"):
        spec = {"tasks": count, "seconds": 0.2, "retries": 0, "nodes": _NODES, "wait": 120}
        found.append(Case(peer, "retries=0, the host stays broken", spec, 200))
    return found


def measure(spec: dict[str, Any], record: Callable[[dict[str, Any]], None]) -> None:
    """Four one-worker blocks of one HTEX, block 0 broken."""
    from benchmarks.peers import parsl_side as side  # noqa: PLC0415 - its package is not where other peers live

    with side.workflow(spec["peer"], [side.blocks("alpha", _NODES)], retries=spec["retries"]) as kernel:
        work = side.app(tasks.in_a_block, kernel)
        counted = side.app(tasks.counted, kernel)
        side.until(lambda: _warm(counted), side.WARM_UP, "not all blocks took work")
        began = time.monotonic()
        futures = [work(n, spec["seconds"], "book", spec["nodes"]) for n in range(spec["tasks"])]
        figures = side.outcome(futures, began, spec["wait"]).figures()
        record({**figures, "user_failures": len(tasks.lines("book", "bad"))})


def _warm(counted: Any) -> bool:
    """Whether all four workers have run something that works everywhere."""
    for future in [counted(n, 0.5, "warm-up") for n in range(2 * _NODES)]:
        future.result(60)
    return len({line.pid for line in tasks.lines("warm-up", "end")}) >= _NODES


EXPERIMENT = Experiment(
    name="black-hole",
    title="Black hole",
    asks=(
        "One endpoint with four one-worker nodes, one of which raises at once whatever it is given, so that "
        "it is always free; 400 tasks of 0.2 s. Peers have four one-process workers, one of them broken in "
        "the same way."
    ),
    cases=cases,
    columns=(
        Column("success", "tasks done, %"),
        Column("user_failures", "runs that failed on the broken node", "{:.0f}"),
        Column("makespan", "makespan, s"),
    ),
    targets=(
        Target("every task done, retries=0 and 3", lambda r: every(r, "pool", at_least("success", 100))),
        Target(
            f"at most {_SLOTS_BAD + 3} runs of user code fail on the broken node",
            lambda r: every(r, "pool", at_most("user_failures", _SLOTS_BAD + 3)),
        ),
    ),
    plot=Plot("success", "tasks done, %"),
)
