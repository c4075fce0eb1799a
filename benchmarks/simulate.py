"""A pool of a thousand endpoints in virtual time: what faults cost, how soon they are seen, and how often wrongly."""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from msgspec.structs import replace
from rich.console import Console
from rich.table import Table

from diaspora_parsl.core import settings, stimuli
from diaspora_parsl.core.failures import Failure, Kind
from diaspora_parsl.core.invariants import validate
from diaspora_parsl.core.machine import PoolCore
from diaspora_parsl.testing.faults import Fault, FaultScript, Freeze, Kill, LoseFabric, LoseWorker
from diaspora_parsl.testing.simulation.scenario import LOADED, STALLING, Report, SimEndpoint, SimTask, quantile
from diaspora_parsl.testing.simulation.simulator import Simulator

#: Endpoints of one site.
PER_SITE = 10
MONTH = 30 * 86_400.0
SPEEDS = (0.5, 1.0, 1.5, 2.0)


def pool_of(count: int, *, heartbeat: float | None = 1.0, notice: float | None = None) -> list[SimEndpoint]:
    """Endpoints of several speeds, ten at a site, whose death nobody tells: only silence does."""
    return [
        SimEndpoint(
            label=f"e{i:04}",
            site=f"site-{i // PER_SITE:03}",
            speed=SPEEDS[i % len(SPEEDS)],
            heartbeat=heartbeat,
            lateness=LOADED,
            notice=notice,
        )
        for i in range(count)
    ]


def sites_of(endpoints: list[SimEndpoint]) -> dict[str, list[str]]:
    """Labels by site."""
    sites: dict[str, list[str]] = {}
    for spec in endpoints:
        sites.setdefault(spec.site, []).append(spec.label)
    return sites


def rounded(seconds: float | None) -> float | None:
    """To hundredths."""
    return None if seconds is None else round(seconds, 2)


def figures(report: Report) -> dict[str, Any]:
    """What a report says in figures."""
    killed, frozen, both = (report.detection_times(kind) for kind in (Kill, Freeze, None))
    return {
        "tasks": report.submitted,
        "lost": report.lost,
        "twice": report.twice,
        "failed": report.rejected,
        "makespan": round(report.makespan, 2),
        "ideal": round(report.ideal_makespan, 2),
        "ideal_surviving": round(report.surviving_makespan, 2),
        "makespan_over_ideal_surviving": round(report.makespan / report.surviving_makespan, 4),
        "executions": report.executions,
        "wasted_executions": report.wasted,
        "wasted_worker_seconds": round(report.wasted_seconds),
        "wasted_share": round(report.wasted_seconds / max(1e-9, report.useful_seconds), 5),
        "rerouted": report.rerouted,
        "detections": len(both),
        "detection_p50": rounded(quantile(both, 0.5)),
        "detection_p99": rounded(quantile(both, 0.99)),
        "detection_p99_killed": rounded(quantile(killed, 0.99)),
        "detection_p99_frozen": rounded(quantile(frozen, 0.99)),
        "false_suspicions": report.false_suspicions,
        "precautions": report.precautions,
        "endpoint_months": round(report.endpoint_seconds / MONTH, 4),
        "stimuli": report.steps,
    }


def timed(simulator: Simulator) -> dict[str, Any]:
    """Run it, and say what that took."""
    began, cpu = time.perf_counter(), time.process_time()
    found = figures(simulator.run())
    return {**found, "real_seconds": round(time.perf_counter() - began, 1),
            "cpu_us_per_stimulus": round((time.process_time() - cpu) / max(1, found["stimuli"]) * 1e6, 1)}  # fmt: skip


def at_scale(count: int, tasks: int, seed: int) -> dict[str, Any]:
    """Failures in clusters, whole sites among them."""
    endpoints = pool_of(count)
    power = sum(spec.slots * spec.speed for spec in endpoints)
    seconds = tasks / power
    faults = FaultScript.clustered(
        seed, sites_of(endpoints), seconds=0.9 * seconds, between=4.0 * seconds, down=seconds / 8, soon=seconds / 8
    )
    kinds = {kind.__name__: sum(isinstance(fault, kind) for fault in faults) for kind in (Kill, Freeze, LoseWorker)}
    return {"endpoints": count, "faults": len(faults), **kinds,
            **timed(Simulator(endpoints=endpoints, tasks=tasks, faults=faults, seed=seed))}  # fmt: skip


def without_fabric(seed: int) -> dict[str, Any]:
    """The fabric is away for ten minutes."""
    endpoints = pool_of(20, notice=1.0)
    tasks = [SimTask(function=f"f{i % 3}", seconds=1.0, at=i / 60) for i in range(60 * 900)]
    simulator = Simulator(endpoints=endpoints, tasks=tasks, faults=[LoseFabric(at=60.0, until=660.0)], seed=seed)
    report = simulator.run()
    names = ("tasks", "lost", "twice", "failed", "rerouted", "false_suspicions", "wasted_executions")
    found = figures(report)
    return {**{name: found[name] for name in names}, "suspected_or_quarantined": report.quarantined}


def one_after_another(count: int, seed: int) -> dict[str, Any]:
    """All endpoints but one are lost for good, in sequence."""
    endpoints = pool_of(count)
    faults: list[Fault] = [
        Kill(at=20.0 * (i + 1), endpoint=spec.label, until=1e9) for i, spec in enumerate(endpoints[:-1])
    ]
    found = timed(Simulator(endpoints=endpoints, tasks=count * 560, faults=faults, seed=seed))
    limit = 1.10 * found["ideal_surviving"] + (found["detection_p99"] or 0.0)
    return {"endpoints": count, **found, "limit": round(limit, 2), "kept": found["makespan"] <= limit}


def false_suspicions(months: float, lateness: tuple[float, ...], seed: int) -> dict[str, Any]:
    """Nothing is wrong and nothing runs, so that no result speaks for anybody: the worst case for silence."""
    endpoints = [replace(spec, lateness=lateness) for spec in pool_of(20, notice=1.0)]
    end = SimTask(seconds=0.1, at=months * MONTH / len(endpoints))
    began = time.perf_counter()
    report = Simulator(endpoints=endpoints, tasks=[end], seed=seed, limit=end.at + 60.0).run()
    found = report.endpoint_seconds / MONTH
    return {
        "latest_heartbeat": max(lateness),
        "endpoint_months": round(found, 3),
        "false_suspicions": report.false_suspicions,
        "per_endpoint_month": round(report.false_suspicions / found, 3),
        "real_seconds": round(time.perf_counter() - began, 1),
    }


def overhead(count: int, faults: int = 200) -> dict[str, Any]:
    """CPU time of the core per fault, from the death of an endpoint to its return, all slots busy and tasks waiting.

    Of ten endpoints one dies after another, of a thousand too; nothing else happens in between.
    """
    labels = [f"e{i:04}" for i in range(count)]
    core = PoolCore([settings.EndpointSpec(label=label, site=label, capacity=4) for label in labels])
    at, where, everywhere = 0.0, dict.fromkeys(labels, 0), frozenset(labels)
    for label in labels:
        core.handle(stimuli.Started(at, label, 0))
        core.handle(stimuli.Observed(at, label, 0, 4, blocks_expected=True))
    for number in range(1, 6 * count + 1):
        core.handle(stimuli.Submitted(at, number, "f", everywhere))
    times: dict[str, list[float]] = {"endpoint lost and back": [], "worker lost": []}
    for i in range(faults):
        at += 120.0
        label = labels[i % count]
        core.handle(stimuli.Tick(at))
        began = time.process_time()
        core.handle(stimuli.Died(at, label, where[label], "killed"))
        at += 400.0  # the longest delay before a revival is over
        core.handle(stimuli.Tick(at))
        where[label] += 1
        core.handle(stimuli.Started(at, label, where[label]))
        core.handle(stimuli.Observed(at, label, where[label], 4, blocks_expected=True))
        times["endpoint lost and back"].append(time.process_time() - began)
        at += 70.0
        core.handle(stimuli.Observed(at, label, where[label], 4, blocks_expected=True))  # it stayed: forgiven
        attempt = next(iter(core.scheduler.held[label]), None)
        if attempt is not None:
            began = time.process_time()
            core.handle(stimuli.Failed(at, attempt, Failure(Kind.WORKER_LOST, "WorkerLost", "killed")))
            times["worker lost"].append(time.process_time() - began)
    validate(core)
    found: dict[str, Any] = {"endpoints": count}
    for name, values in times.items():
        values.sort()
        found[f"{name}, ms"] = round(1e3 * sum(values) / max(1, len(values)), 3)
        found[f"{name}, p99 ms"] = round(1e3 * (quantile(values, 0.99) or 0.0), 3)
    return found


def show(console: Console, title: str, found: list[dict[str, Any]]) -> None:
    """A table with a column for each entry."""
    table = Table("", *(str(entry.get("endpoints", "")) for entry in found), title=title, title_justify="left")
    for name in found[0]:
        if name != "endpoints":
            table.add_row(name.replace("_", " "), *(str(entry[name]) for entry in found))
    console.print(table)


def main() -> int:
    """Run every part and print it as soon as it is done."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--endpoints", type=int, default=1000)
    parser.add_argument("--tasks", type=int, default=1_000_000)
    parser.add_argument("--months", type=float, default=1.0, help="endpoint-months without a fault (about 75 s each)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the figures there")
    options = parser.parse_args()
    console = Console()
    result: dict[str, Any] = {
        "machine": {"python": platform.python_version(), "system": platform.platform(), "argv": sys.argv[1:]},
        "overhead_per_fault": [overhead(count) for count in (10, 100, 1000)],
    }
    show(console, "CPU time of the core per fault, by endpoints", result["overhead_per_fault"])
    parts: dict[str, tuple[str, list[Callable[[], dict[str, Any]]]]] = {
        "scale": (
            "Failures that come in clusters and take sites down",
            [lambda: at_scale(options.endpoints, options.tasks, options.seed)],
        ),
        "sequence": ("All endpoints but one lost in sequence", [lambda: one_after_another(10, options.seed)]),
        "fabric": ("The fabric away for ten minutes", [lambda: without_fabric(options.seed)]),
        "suspicions": (
            "No fault and no work; heartbeats as late as on a loaded machine, and with stalls",
            [partial(false_suspicions, options.months, kind, options.seed) for kind in (LOADED, STALLING)],
        ),
    }
    for name, (title, runs) in parts.items():
        result[name] = [run() for run in runs]
        show(console, title, result[name])
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
