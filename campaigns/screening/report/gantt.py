"""The Gantt chart of the sites: one bar per task, lost attempts hatched, kill and return as vertical lines."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from ..records import Row
from ..results.reroutes import Fault, Story
from .plots import ALARM, CHANCE, INK, PALETTE, svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_FAULT_COLOR: Final = {"killed": ALARM, "restored": "#009E73", "frozen": ALARM, "thawed": "#009E73"}
_FAULT_WORD: Final = {"killed": "killed", "restored": "allowed back", "frozen": "frozen", "thawed": "thawed"}


class Bar(NamedTuple):
    """One attempt of a task at a site, times in seconds since the campaign began."""

    site: str
    start: float
    end: float
    kind: str
    """``first`` (ran where it was first sent), ``again`` (rerouted to here) or ``lost`` (given up here)."""


def bars(rows: Sequence[Row], story: Story, began: float) -> list[Bar]:
    """Every attempt that is known: finished ones from the ledger, lost ones from the events."""
    again = {(attempt.session, attempt.task) for attempt in story.lost_attempts}
    found = [
        Bar(
            row.site,
            row.started - began,
            row.ended - began,
            "again" if (row.session, row.pool_task) in again else "first",
        )
        for row in rows
        if row.started and row.site
    ]
    found += [
        Bar(attempt.site, attempt.dispatched - began, attempt.given_up - began, "lost")
        for attempt in story.lost_attempts
    ]
    return sorted(found)


def lanes(intervals: Sequence[Bar]) -> list[int]:
    """A lane for each bar, sorted by start, so that no two in a lane overlap; as few lanes as possible."""
    free: list[int] = []
    busy: list[tuple[float, int]] = []
    found = []
    count = 0
    for bar in intervals:
        while busy and busy[0][0] <= bar.start + 0.02:  # clocks of worker and pool differ by a few milliseconds
            heapq.heappush(free, heapq.heappop(busy)[1])
        if free:
            lane = heapq.heappop(free)
        else:
            lane, count = count, count + 1
        heapq.heappush(busy, (bar.end, lane))
        found.append(lane)
    return found


def gantt(
    rows: Sequence[Row],
    story: Story,
    faults: Sequence[Fault],
    began: float,
    pauses: Sequence[tuple[float, float]] = (),
) -> str:
    """The chart as an ``<svg>`` element; empty if nothing ran. Pauses, in Unix time, are bands across all sites."""
    every = bars(rows, story, began)
    if not every:
        return ""
    by_site = {site: list(group) for site, group in groupby(every, key=lambda bar: bar.site)}
    placed = {site: lanes(group) for site, group in by_site.items()}
    total = sum(max(lane) + 1 for lane in placed.values())

    def draw(axes: Axes) -> None:
        base = 0.0
        ticks = []
        for number, (site, group) in enumerate(by_site.items()):
            _draw_site(axes, group, placed[site], base, PALETTE[number % len(PALETTE)])
            high = max(placed[site]) + 1
            ticks.append((base + high / 2, site))
            for fault in (fault for fault in faults if fault.site == site):
                _draw_fault(axes, fault, began, base, high)
            base += high + 0.9
        for start, end in pauses:
            axes.axvspan(start - began, end - began, color=CHANCE, alpha=0.25, linewidth=0)
        axes.set_yticks([middle for middle, _ in ticks], [site for _, site in ticks], fontsize=12)
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(base - 0.3, -0.9)
        axes.set_xlim(left=0)
        axes.set_xlabel("seconds since the campaign began")
        axes.grid(visible=True, axis="x")
        axes.spines["left"].set_visible(False)
        axes.legend(
            handles=_legend(every, is_paused=bool(pauses)), loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=4
        )

    return svg("gantt", draw, width=13.5, height=min(12.0, 2.0 + 0.36 * total + 0.4 * len(by_site)))


def _draw_site(axes: Axes, group: list[Bar], placed: list[int], base: float, color: str) -> None:
    looks: dict[str, dict[str, Any]] = {
        "first": {"facecolors": color, "edgecolors": INK, "linewidth": 0.4, "alpha": 0.75},
        "again": {"facecolors": color, "edgecolors": INK, "linewidth": 1.8},
        "lost": {"facecolors": "none", "edgecolors": ALARM, "linewidth": 1.2, "hatch": "/////"},
    }
    shortest = 0.003 * max(bar.end for bar in group)  # an attempt that is lost immediately stays visible
    for kind, look in looks.items():
        for lane in sorted(set(placed)):
            spans = [
                (bar.start, max(bar.end - bar.start, shortest))
                for bar, here in zip(group, placed, strict=True)
                if here == lane and bar.kind == kind
            ]
            if spans:
                drawn = axes.broken_barh(spans, (base + lane + 0.08, 0.84), **look)
                drawn.set_rasterized(len(group) > 3000)  # noqa: PLR2004 - beyond it the page gets heavy


def _draw_fault(axes: Axes, fault: Fault, began: float, base: float, high: float) -> None:
    color = _FAULT_COLOR[fault.what]
    at = fault.at - began
    axes.plot([at, at], [base - 0.25, base + high + 0.1], color=color, linewidth=2.4, zorder=5)
    label = f"{_FAULT_WORD[fault.what]}, {at:.0f} s"
    side = "right" if fault.what in ("killed", "frozen") else "left"  # away from each other, however short the outage
    axes.text(at, base - 0.28, label, color=color, ha=side, va="bottom", weight="bold")


def _legend(every: list[Bar], *, is_paused: bool) -> list[Patch | Line2D]:
    kinds = {bar.kind for bar in every}
    handles: list[Patch | Line2D] = [Patch(facecolor="#8c8c8c", edgecolor=INK, linewidth=0.4, label="task")]
    if "again" in kinds:
        handles.append(Patch(facecolor="#8c8c8c", edgecolor=INK, linewidth=1.8, label="task that was rerouted to here"))
    if "lost" in kinds:
        label = "lost attempt, from dispatch until given up"
        handles.append(Patch(facecolor="none", edgecolor=ALARM, hatch="/////", label=label))
    if is_paused:
        handles.append(Patch(facecolor=CHANCE, alpha=0.25, label="nobody conducted the campaign"))
    return handles
