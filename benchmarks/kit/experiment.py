"""The parts of an experiment: cases to measure, columns to show, targets to meet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from benchmarks.kit.schema import Measurement, Report

#: Page of experiments without their own page.
MAIN_PAGE = "benchmarks.md"
#: Display names of the peers.
PEERS = {
    "pool": "diaspora_parsl",
    "plain": "Parsl",
    "dask": "Dask distributed",
    "ray": "Ray",
}


@dataclass(frozen=True)
class Case:
    """One measurement of one peer, in its own process.

    Args:
        peer: One of `PEERS`.
        variant: Name of the case, unique per peer.
        spec: JSON argument of its `measure`.
        limit: Seconds until it must report its figures, else all its processes are killed.
    """

    peer: str
    variant: str
    spec: dict[str, Any]
    limit: float


@dataclass(frozen=True)
class Column:
    """One column of an experiment's table.

    Args:
        figure: Name of the figure.
        heading: Heading of the column.
        form: Format of the value.
        value: Computes the value from other figures; None: the figure itself.
    """

    figure: str
    heading: str
    form: str = "{:.1f}"
    value: Callable[[Report, Measurement], float | None] | None = None

    def of(self, report: Report, measurement: Measurement) -> float | None:
        """Return the value to show, or None."""
        return measurement.figure(self.figure) if self.value is None else self.value(report, measurement)


@dataclass(frozen=True)
class Target:
    """A target of the pool.

    Args:
        says: Text of the target.
        holds: Returns whether a report meets it; None if measurements are missing.
    """

    says: str
    holds: Callable[[Report], bool | None]


@dataclass(frozen=True)
class Plot:
    """Bars of one figure, grouped by variant, one bar per peer."""

    figure: str
    axis: str
    is_log: bool = False


@dataclass(frozen=True)
class Experiment:
    """A question, its cases, and the targets of the answer.

    Args:
        name: Name of its module, command and JSON file.
        title: Title of its section.
        asks: Description in one or two sentences.
        cases: Returns all cases in order; the argument selects the quick form.
        columns: Columns of the table after peer and variant.
        targets: Targets of the pool.
        plot: Plot to draw, if any.
        shows_exit: Whether the table shows how the case ended.
        page: Documentation page of the experiment.
    """

    name: str
    title: str
    asks: str
    cases: Callable[[bool], list[Case]]
    columns: tuple[Column, ...]
    targets: tuple[Target, ...] = ()
    plot: Plot | None = None
    shows_exit: bool = field(default=False)
    page: str = MAIN_PAGE


def every(
    report: Report,
    peer: str,
    check: Callable[[Measurement], bool],
    variants: Callable[[str], bool] | None = None,
) -> bool | None:
    """Return whether every measurement of a peer passes; None without measurements."""
    chosen = [m for m in report.of(peer) if variants is None or variants(m.variant)]
    if not chosen:
        return None
    return all(m.status == "ok" and check(m) for m in chosen)


def at_most(name: str, limit: float) -> Callable[[Measurement], bool]:
    """Return a check that the figure was measured and is at most the limit."""

    def check(measurement: Measurement) -> bool:
        value = measurement.figure(name)
        return value is not None and value <= limit

    return check


def at_least(name: str, limit: float) -> Callable[[Measurement], bool]:
    """Return a check that the figure was measured and is at least the limit."""

    def check(measurement: Measurement) -> bool:
        value = measurement.figure(name)
        return value is not None and value >= limit

    return check
