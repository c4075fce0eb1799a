"""What an experiment is: cases to measure, columns to show, and what must hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from benchmarks.kit.schema import Measurement, Report

#: Where experiments are shown that have no page of their own.
MAIN_PAGE = "benchmarks.md"
#: Peers by name, as a reader knows them.
PEERS = {
    "pool": "diaspora_parsl",
    "plain": "Parsl",
    "dask": "Dask distributed",
    "ray": "Ray",
}


@dataclass(frozen=True)
class Case:
    """One thing to measure at one peer, in a process of its own.

    Args:
        peer: one of `PEERS`.
        variant: what tells it from the other cases at this peer.
        spec: what its `measure` gets; plain JSON.
        limit: seconds that it may take to tell its figures; then everything of it is killed.
    """

    peer: str
    variant: str
    spec: dict[str, Any]
    limit: float


@dataclass(frozen=True)
class Column:
    """One column of an experiment's table.

    Args:
        figure: its name.
        heading: what a reader sees.
        form: how it is written.
        value: how it is made of other figures, where it is not one itself.
    """

    figure: str
    heading: str
    form: str = "{:.1f}"
    value: Callable[[Report, Measurement], float | None] | None = None

    def of(self, report: Report, measurement: Measurement) -> float | None:
        """The number to show, if there is one."""
        return measurement.figure(self.figure) if self.value is None else self.value(report, measurement)


@dataclass(frozen=True)
class Target:
    """What the pool must show.

    Args:
        says: in words.
        holds: whether a report shows it; None if the report lacks what it takes.
    """

    says: str
    holds: Callable[[Report], bool | None]


@dataclass(frozen=True)
class Plot:
    """Bars of one figure, grouped by variant, one bar a peer."""

    figure: str
    axis: str
    is_log: bool = False


@dataclass(frozen=True)
class Experiment:
    """A question, how it is asked, and what the answer must be.

    Args:
        name: of its module, its command and its JSON.
        title: of its section.
        asks: what is done, in a sentence or two.
        cases: all of them, in order; the argument says whether to be quick.
        columns: of its table, after peer and variant.
        targets: what the pool must show.
        plot: what to draw, if anything.
        shows_exit: whether the table tells how the case ended.
        page: of the documentation that it is shown on.
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
    """Whether every measurement of a peer passes; None if there is none."""
    chosen = [m for m in report.of(peer) if variants is None or variants(m.variant)]
    if not chosen:
        return None
    return all(m.status == "ok" and check(m) for m in chosen)


def at_most(name: str, limit: float) -> Callable[[Measurement], bool]:
    """A check: the figure was measured, and is not above the limit."""

    def check(measurement: Measurement) -> bool:
        value = measurement.figure(name)
        return value is not None and value <= limit

    return check


def at_least(name: str, limit: float) -> Callable[[Measurement], bool]:
    """A check: the figure was measured, and is not below the limit."""

    def check(measurement: Measurement) -> bool:
        value = measurement.figure(name)
        return value is not None and value >= limit

    return check
