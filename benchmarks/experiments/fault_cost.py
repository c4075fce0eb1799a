"""What one fault costs the pool itself, in a small pool and in a large one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.kit.experiment import Case, Column, Experiment, Target, at_most, every
from benchmarks.kit.schema import Report

_SIZES = (10, 100, 1000)
_LIMIT_MS = 5.0
_FLAT = 3.0


def cases(quick: bool) -> list[Case]:  # noqa: FBT001 - see Experiment
    """Pools of growing size."""
    faults = 100 if quick else 500
    return [Case("pool", f"{size:,} endpoints", {"endpoints": size, "faults": faults}, 300) for size in _SIZES]


def measure(spec: dict[str, Any], record: Callable[[dict[str, Any]], None]) -> None:
    """As ``benchmarks/simulate.py`` does."""
    from benchmarks import simulate  # noqa: PLC0415 - its packages are not where other peers live

    found = simulate.overhead(spec["endpoints"], spec["faults"])
    record({
        f"{name}_{kind}_ms": found[f"{words}, {unit}"]
        for name, words in (("worker", "worker lost"), ("endpoint", "endpoint lost and back"))
        for kind, unit in (("mean", "ms"), ("p99", "p99 ms"))
    })  # fmt: skip


def _is_flat(report: Report) -> bool | None:
    means = [m.figure("endpoint_mean_ms") for m in report.of("pool")]
    if len(means) != len(_SIZES):
        return None
    small, large = means[0], means[-1]
    return small is not None and large is not None and large <= _FLAT * small


EXPERIMENT = Experiment(
    name="fault-cost",
    title="Cost of a fault",
    asks=(
        "Processor time of the pool's decisions about one fault, without any other process: a lost worker, and a dead"
        " endpoint with all that it held, until it is back and full. Every slot is busy, and tasks wait."
    ),
    cases=cases,
    columns=(
        Column("worker_mean_ms", "lost worker, ms (mean)", "{:.3f}"),
        Column("worker_p99_ms", "lost worker, ms (p99)", "{:.3f}"),
        Column("endpoint_mean_ms", "dead endpoint, ms (mean)", "{:.3f}"),
        Column("endpoint_p99_ms", "dead endpoint, ms (p99)", "{:.3f}"),
    ),
    targets=(
        Target(
            "a lost worker costs at most 5 ms (p99)", lambda r: every(r, "pool", at_most("worker_p99_ms", _LIMIT_MS))
        ),
        Target(
            "a dead endpoint costs at most 5 ms (p99)",
            lambda r: every(r, "pool", at_most("endpoint_p99_ms", _LIMIT_MS)),
        ),
        Target("a dead endpoint costs with 1,000 endpoints at most three times what it does with 10", _is_flat),
    ),
)
