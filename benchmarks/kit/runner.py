"""Run experiments: measure the cases one after the other with progress, and return a report."""

from __future__ import annotations

import sys
from collections.abc import Collection
from datetime import UTC, datetime

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.kit.child import run_case
from benchmarks.kit.experiment import PEERS, Case, Experiment
from benchmarks.kit.machine import machine
from benchmarks.kit.schema import Measurement, Report

_NEEDS = {"pool": "diaspora-parsl", "plain": "parsl", "dask": "distributed", "ray": "ray"}


def run(
    experiment: Experiment,
    *,
    quick: bool,
    console: Console,
    note: str = "",
    ray_python: str = sys.executable,
    peers: Collection[str] | None = None,
    words: Collection[str] | None = None,
) -> Report:
    """Measure the cases of an experiment; a missing peer has the status "not installed".

    Args:
        experiment: Experiment to measure.
        quick: Whether to run the quick form.
        console: Console for progress.
        note: Remark in the report.
        ray_python: Python interpreter with Ray.
        peers: Peers to measure; None: all.
        words: Measure only cases with one of these words in their names; None: all.
    """
    seen = machine(ray_python)
    date = datetime.now(UTC).isoformat(timespec="seconds")
    cases = [case for case in experiment.cases(quick) if peers is None or case.peer in peers]
    if words is not None:
        cases = [case for case in cases if any(word in case.variant for word in words)]
    measurements = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task(experiment.title, total=len(cases))
        for case in cases:
            progress.update(bar, description=f"{experiment.name}: {PEERS[case.peer]}, {case.variant}")
            measurement = _measure(experiment, case, seen, ray_python)
            console.print(_line(experiment, measurement))
            measurements.append(measurement)
            progress.advance(bar)
    return Report(
        experiment=experiment.name,
        date=date,
        is_quick=quick,
        note=note,
        machine=seen,
        measurements=tuple(measurements),
    )


def _measure(experiment: Experiment, case: Case, seen: dict[str, str], ray_python: str) -> Measurement:
    if seen[_NEEDS[case.peer]] == "not installed":
        return Measurement(peer=case.peer, variant=case.variant, status="not installed")
    python = ray_python if case.peer == "ray" else sys.executable
    return run_case(experiment.name, case, python)


def _line(experiment: Experiment, measurement: Measurement) -> str:
    shown = []
    for column in experiment.columns:
        value = measurement.figures.get(column.figure)
        if value is not None:
            shown.append(f"{column.heading} {value if isinstance(value, str) else column.form.format(value)}")
    ended = [] if measurement.exit_seconds is None else [f"exit {measurement.exit_seconds:.1f} s"]
    left = [f"{measurement.processes_left} processes left"] if measurement.processes_left else []
    status = [] if measurement.status == "ok" else [f"{measurement.status} {measurement.detail}".strip()]
    what = f"{experiment.name}: {PEERS[measurement.peer]}, {measurement.variant}"
    return f"{what}: {'; '.join([*status, *shown, *ended, *left])} ({measurement.seconds:.0f} s)"
