"""Everything that can happen to one of two endpoints, one fault after the other."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import psutil

from benchmarks import tasks
from benchmarks.kit.experiment import Case, Column, Experiment, Plot, Target, at_least, every
from benchmarks.kit.schema import Measurement
from benchmarks.peers.common import SECONDS, SLOTS, TASKS, second_starts

FAULTS = {
    "kill-manager": "kill -9 of the manager",
    "kill-worker": "kill -9 of a worker",
    "stop-manager": "SIGSTOP of the manager",
    "kill-block": "kill -9 of the whole block",
    "kill-interchange": "kill -9 of the interchange",
    "stop-interchange": "SIGSTOP of the interchange",
}
_START = 90.0


def cases(quick: bool) -> list[Case]:  # noqa: FBT001 - see Experiment
    """Each fault, with Parsl's own heartbeats and with short ones, under the pool and without."""
    found = []
    for name, heartbeats in (("default", None), ("short", (1, 3))):
        if quick and heartbeats is not None:
            continue
        for fault, words in FAULTS.items():
            variant = f"{words}, {name} heartbeats"
            spec = {"fault": fault, "heartbeats": heartbeats, "retries": 0, "wait": 60}
            found.append(Case("pool", variant, spec, 60 + _START))
            # Without the pool some cases never end: they are told as unresolved after this time.
            wait = 15 if quick else 150 if heartbeats is None else 60
            plain = {**spec, "retries": 1, "wait": wait}
            if not quick or fault in {"kill-manager", "kill-interchange"}:
                found.append(Case("plain", variant, plain, wait + _START))
            if fault == "kill-worker" and heartbeats is None:
                found += [Case(peer, words, {**spec, "retries": 3}, 60 + _START) for peer in ("dask", "ray")]
    return found


def measure(spec: dict[str, Any], record: Callable[[dict[str, Any]], None]) -> None:
    """48 tasks of 0.25 s; the fault strikes one endpoint as soon as all of its workers are busy with them."""
    from benchmarks.peers import parsl_side as side  # noqa: PLC0415 - its package is not where other peers live

    heartbeats = tuple(spec["heartbeats"]) if spec["heartbeats"] else None
    alpha, beta = (side.site(label, workers=SLOTS, heartbeats=heartbeats) for label in ("alpha", "beta"))
    executors = [side.executor_of(place) for place in (alpha, beta)]
    with side.workflow(spec["peer"], executors, retries=spec["retries"]) as kernel:
        side.warm_up(kernel, {"alpha", "beta"}, each=SLOTS)
        counted = side.app(tasks.counted, kernel)
        futures = [counted(n, SECONDS, "book") for n in range(TASKS)]
        side.until(lambda: len(_at_alpha()) > SLOTS, 20, "alpha took no tasks")
        began, struck = time.monotonic(), time.time()
        strike(alpha, spec["fault"])
        figures = side.outcome(futures, began, spec["wait"]).figures()
        record({**figures, **second_starts("book", struck, lambda line: line.site == "alpha")})


def strike(place: Any, fault: str) -> None:
    """Do it."""
    if fault == "kill-worker":
        psutil.Process(_at_alpha()[-1].pid).kill()
    elif fault == "kill-block":
        interchange = place.interchange()
        for process in place.processes():
            if process != interchange:
                process.kill()
    else:
        verb, _, whom = fault.partition("-")
        process = place.manager() if whom == "manager" else place.interchange()
        if process is None:
            raise RuntimeError(f"there is no {whom}")
        if verb == "kill":
            process.kill()
        else:
            process.suspend()


def _at_alpha() -> list[tasks.Line]:
    return [line for line in tasks.lines("book", "start") if line.site == "alpha"]


def _limit(measurement: Measurement) -> bool:
    """Five seconds; two for a killed worker."""
    rerouted = measurement.figure("rerouted")
    return rerouted is not None and rerouted <= (2.0 if "worker" in measurement.variant else 5.0)


def _is_clean(measurement: Measurement) -> bool:
    return measurement.exit_seconds is not None and measurement.processes_left == 0


EXPERIMENT = Experiment(
    name="fault-table",
    title="Fault table",
    asks=(
        "Two endpoints of two workers and 48 tasks of 0.25 s; the fault strikes one endpoint while its "
        "workers are busy. The pool gets no retries, plain Parsl one. Unresolved is what had no result 60 s "
        "later (plain Parsl with default heartbeats: 150 s). The rerouted start is the first second start, "
        "anywhere, of a task that had been started at the endpoint that was struck. For the peers, four "
        "workers, one of which is killed."
    ),
    cases=cases,
    columns=(
        Column("success", "tasks done, %"),
        Column("unresolved", "unresolved", "{:.0f}"),
        Column("rerouted", "first rerouted start, s", "{:.2f}"),
        Column("makespan", "fault to the last result, s"),
        Column("needless", "needless second runs", "{:.0f}"),
    ),
    targets=(
        Target("every task done", lambda r: every(r, "pool", at_least("success", 100))),
        Target("first rerouted start within 5 s (killed worker: 2 s)", lambda r: every(r, "pool", _limit)),
        Target("clean exit, no process left", lambda r: every(r, "pool", _is_clean)),
    ),
    plot=Plot("success", "tasks done, %"),
    shows_exit=True,
)
