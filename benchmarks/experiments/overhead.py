"""Nothing fails: what does the pool cost?"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

from benchmarks.kit.experiment import Case, Column, Experiment, Target, at_least, at_most, every


def cases(quick: bool) -> list[Case]:  # noqa: FBT001 - see Experiment
    """The pool around one endpoint beside that endpoint alone, and the peers."""
    size = {"tasks": 600, "rounds": 2} if quick else {"tasks": 4000, "rounds": 5}
    limit = 120 if quick else 600
    return [
        Case("pool", "HTEX, two workers", {**size, "part": "htex"}, limit),
        Case("pool", "two threads", {**size, "part": "threads"}, limit),
        Case("dask", "two processes", size, limit),
        Case("ray", "two processes", size, limit),
    ]


def measure(spec: dict[str, Any], record: Callable[[dict[str, Any]], None]) -> None:
    """As ``benchmarks/overhead.py`` does: in turns, so that the ratios hold on a machine whose speed drifts."""
    from benchmarks import overhead  # noqa: PLC0415 - its packages are not where other peers live

    make = overhead.htex if spec["part"] == "htex" else overhead.threads
    reported = overhead.compare(make, spec["tasks"], spec["rounds"], "embedded")
    figures = {}
    for layer in ("executor", "kernel"):
        for name in ("bare", "pool"):
            figures[f"{layer}_{name}"] = statistics.median(reported[layer][name])
        figures[f"{layer}_ratio"], figures[f"{layer}_us"] = reported[layer]["ratio"], reported[layer]["overhead_us"]
    record(figures)


def _is_htex(variant: str) -> bool:
    return variant.startswith("HTEX")


EXPERIMENT = Experiment(
    name="overhead",
    title="Overhead without faults",
    asks=(
        "No-op tasks, submitted to the executor itself and through Parsl's DataFlowKernel (DFK): an "
        "executor alone and a pool around the same executor, in turns. For the peers, their own client."
    ),
    cases=cases,
    columns=(
        Column("executor_bare", "executor alone, tasks/s", "{:,.0f}"),
        Column("executor_pool", "in a pool, tasks/s", "{:,.0f}"),
        Column("executor_ratio", "ratio", "{:.2f}"),
        Column("executor_us", "overhead, µs", "{:.0f}"),
        Column("kernel_bare", "DFK alone, tasks/s", "{:,.0f}"),
        Column("kernel_pool", "DFK with a pool, tasks/s", "{:,.0f}"),
        Column("kernel_ratio", "ratio", "{:.2f}"),
        Column("peer", "peer, tasks/s", "{:,.0f}"),
    ),
    targets=(
        Target(
            "throughput of HTEX at least 0.95 of that without a pool",
            lambda r: every(r, "pool", at_least("executor_ratio", 0.95), _is_htex),
        ),
        Target(
            "at most 100 µs a task (threads)",
            lambda r: every(r, "pool", at_most("executor_us", 100), lambda variant: not _is_htex(variant)),
        ),
    ),
)
