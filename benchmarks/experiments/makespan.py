"""All endpoints but one are lost, one after the other: what does that cost beyond the lost capacity?"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from benchmarks import tasks
from benchmarks.kit.experiment import Case, Column, Experiment, Plot, Target, at_least, every
from benchmarks.kit.schema import Measurement

_SITES = ("alpha", "beta", "gamma", "delta")
_WORKERS = 2


def cases(quick: bool) -> list[Case]:  # noqa: FBT001 - see Experiment
    """The pool without retries, plain Parsl with three."""
    spec = {"tasks": 60 if quick else 200, "seconds": 0.5, "apart": 2.0 if quick else 5.0, "wait": 20 if quick else 120}
    return [
        Case("pool", "retries=0", {**spec, "retries": 0}, spec["wait"] + 75),
        Case("plain", "retries=3", {**spec, "retries": 3}, spec["wait"] + 75),
    ]


def measure(spec: dict[str, Any], record: Callable[[dict[str, Any]], None]) -> None:
    """Every process of a site is killed at once, every few seconds one more site, and none comes back."""
    from benchmarks.peers import parsl_side as side  # noqa: PLC0415 - its package is not where other peers live
    from diaspora_parsl import events as ev  # noqa: PLC0415

    sites = [side.site(label, workers=_WORKERS) for label in _SITES]
    with side.workflow(spec["peer"], [side.executor_of(s) for s in sites], retries=spec["retries"]) as kernel:
        side.warm_up(kernel, set(_SITES), each=_WORKERS)
        counted = side.app(tasks.counted, kernel)
        began, began_unix = time.monotonic(), time.time()
        futures = [counted(n, spec["seconds"], "book") for n in range(spec["tasks"])]
        killed = {}
        for number, place in enumerate(sites[:-1], start=1):
            time.sleep(max(0.0, began + number * spec["apart"] - time.monotonic()))
            killed[place.label] = time.time()
            place.kill()
        outcome = side.outcome(futures, began, spec["wait"])
        ideal = ideal_seconds(
            spec["tasks"] * spec["seconds"], [at - began_unix for at in killed.values()], len(sites), _WORKERS
        )
        figures = {**outcome.figures(), "ideal": ideal}
        if outcome.done == spec["tasks"]:
            figures["over_ideal"] = outcome.seconds / ideal
        if spec["peer"] == "pool":
            downs = side.reported(kernel, ev.EndpointDown)
            waits = []
            for label, struck in killed.items():
                waits += [at - struck for at, down in downs if down.endpoint == label and at >= struck][:1]
            if len(waits) == len(killed):
                figures["detection"] = max(waits)
        record(figures)


def ideal_seconds(work: float, losses: list[float], sites: int, workers: int) -> float:
    """The shortest time for ``work`` (worker seconds) if a site is lost at each of ``losses`` (seconds, in order)."""
    now = 0.0
    for number, loss in enumerate(losses):
        capacity = (sites - number) * workers
        if work <= capacity * (loss - now):
            return now + work / capacity
        work -= capacity * (loss - now)
        now = loss
    return now + work / ((sites - len(losses)) * workers)


def _fits(measurement: Measurement) -> bool:
    makespan, ideal = measurement.figure("makespan"), measurement.figure("ideal")
    detection = measurement.figure("detection")
    return None not in {makespan, ideal, detection} and makespan <= 1.10 * ideal + detection  # type: ignore[operator]


EXPERIMENT = Experiment(
    name="makespan",
    title="Makespan under loss",
    asks=(
        "Four endpoints of two workers and 200 tasks of 0.5 s; every five seconds every process of one more "
        "endpoint is killed, until one is left, and none comes back. Ideal is the time that the surviving "
        "workers need if nothing is lost and nothing waits. Detection is the longest time from a kill to "
        "the event that says that the endpoint is down."
    ),
    cases=cases,
    columns=(
        Column("success", "tasks done, %"),
        Column("ideal", "ideal, s"),
        Column("makespan", "makespan, s"),
        Column("over_ideal", "over ideal", "{:.2f}"),
        Column("detection", "detection, s", "{:.2f}"),
    ),
    targets=(
        Target("every task done", lambda r: every(r, "pool", at_least("success", 100))),
        Target("makespan at most 1.10 of ideal + detection", lambda r: every(r, "pool", _fits)),
    ),
    plot=Plot("success", "tasks done, %"),
    shows_exit=True,
)
