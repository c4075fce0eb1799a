"""Plots of a campaign as SVG that takes its text colour from the page, so that it is readable in light and dark."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..results.analysis import Agreement, Band, Enrichment

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Colours of Okabe and Ito: distinct for every kind of colour vision, readable on white and on black.
PALETTE: Final = ("#1F83C4", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#8A6FD1")
ALARM: Final = "#D55E00"
CHANCE: Final = "#8c8c8c"
_PANELS_PER_ROW: Final = 3
#: Stands for the page's own text colour until the SVG is written.
INK: Final = "#010203"

_STYLE: Final[dict[Any, Any]] = {
    "svg.fonttype": "none",  # text stays text: searchable, and in the page's font
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "grid.color": CHANCE,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
}


def svg(name: str, draw: Callable[[Axes], None], *, width: float = 5.2, height: float = 3.5) -> str:
    """Draw one plot and return it as an ``<svg>`` element.

    Args:
        name: makes the ids inside the element its own, so that several can stand in one page.
        draw: fills the axes.
        width: in inches; one inch is 72 CSS pixels.
        height: the same.
    """
    return figure_svg(name, lambda figure: draw(figure.subplots()), width=width, height=height)


def figure_svg(name: str, draw: Callable[[Figure], None], *, width: float, height: float) -> str:
    """The same for a figure of several plots: ``draw`` makes its axes."""
    with mpl.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    text = re.sub(r"<metadata>.*?</metadata>", "", text, count=1, flags=re.DOTALL)
    text = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{name}-", text)
    return re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', 'aria-hidden="true"', text, count=1)


def hits_found(data: Enrichment) -> str:
    """Hits found against molecules docked, with the band of random choice."""

    def draw(axes: Axes) -> None:
        _against_chance(axes, data.hits, data.random_hits, "hits found", step=True)
        axes.set_ylim(bottom=0)

    return svg("hits", draw)


def best_so_far(data: Enrichment, unit: str) -> str:
    """The best score so far, with the band of random choice."""

    def draw(axes: Axes) -> None:
        _against_chance(axes, data.best, data.random_best, f"best score so far ({unit})", step=True)
        axes.invert_yaxis()

    return svg("best", draw)


def _against_chance(axes: Axes, values: Any, chance: Band, label: str, *, step: bool) -> None:
    numbers = range(1, len(chance.middle) + 1)
    axes.fill_between(
        numbers, chance.low, chance.high, color=CHANCE, alpha=0.25, linewidth=0, label="random, 90 % band"
    )
    axes.plot(numbers, chance.middle, color=CHANCE, linestyle="--", linewidth=1.4, label="random choice")
    axes.plot(
        numbers,
        values,
        color=PALETTE[0],
        linewidth=2.2,
        drawstyle="steps-post" if step else "default",
        label="this campaign",
    )
    axes.set_xlabel("molecules settled")
    axes.set_ylabel(label)
    axes.set_xlim(1, max(2, len(chance.middle)))
    axes.grid(visible=True)
    axes.legend(loc="best")


def predicted_against_docked(data: Agreement, unit: str) -> str:
    """Scatter of the surrogate's guesses against the scores found afterwards."""

    def draw(axes: Axes) -> None:
        low = min(data.predicted.min(), data.docked.min()) - 0.2
        high = max(data.predicted.max(), data.docked.max()) + 0.2
        axes.plot([low, high], [low, high], color=CHANCE, linestyle="--", linewidth=1.2)
        dots = axes.scatter(
            data.predicted, data.docked, c=data.model, cmap="viridis", s=22, edgecolors=INK, linewidths=0.4
        )
        dots.set_rasterized(len(data.docked) > 3000)  # noqa: PLR2004 - beyond it the page gets heavy
        bar = axes.figure.colorbar(dots, ax=axes, pad=0.02, ticks=MaxNLocator(nbins=6, integer=True))
        bar.set_label("number of the fit that chose it")
        bar.outline.set_visible(False)
        axes.set_xlabel(f"predicted when chosen ({unit})")
        axes.set_ylabel(f"found ({unit})")
        axes.grid(visible=True)

    return svg("agreement", draw)


def agreement_by_round(data: Sequence[Agreement], unit: str) -> str:
    """The same scatter round by round, all with the same axes: whether the surrogate learns."""
    low = min(min(one.predicted.min(), one.docked.min()) for one in data) - 0.2
    high = max(max(one.predicted.max(), one.docked.max()) for one in data) + 0.2
    rows = -(-len(data) // _PANELS_PER_ROW)

    def draw(figure: Figure) -> None:
        shape = (rows, min(len(data), _PANELS_PER_ROW))
        grid = list(figure.subplots(*shape, sharex=True, sharey=True, squeeze=False).flat)
        for axes, one in zip(grid, data, strict=False):
            axes.plot([low, high], [low, high], color=CHANCE, linestyle="--", linewidth=1)
            axes.scatter(one.predicted, one.docked, color=PALETTE[0], s=14, edgecolors=INK, linewidths=0.3)
            name = f"fit {one.first}" if one.first == one.last else f"fits {one.first} to {one.last}"
            axes.set_title(f"{name}: error {one.error:.2f}, rank {one.spearman:.2f}", fontsize=9)
            axes.grid(visible=True)
        for axes in grid[len(data) :]:
            axes.set_visible(False)
        figure.supxlabel(f"predicted when chosen ({unit})", fontsize=10)
        figure.supylabel(f"found ({unit})", fontsize=10)

    return figure_svg("rounds", draw, width=10.8, height=0.6 + 2.6 * rows)


def score_histogram(random: Sequence[float], chosen: Sequence[float], label: str) -> str:
    """Scores of the random batch and of what the surrogate chose, as shares so that they can be compared."""

    def draw(axes: Axes) -> None:
        every = [*random, *chosen]
        start, end = min(every), max(every)
        width = max((end - start) / 24, 0.05)
        edges = [start + width * step for step in range(int((end - start) / width) + 2)]
        for values, color, group in (
            (random, CHANCE, f"chosen at random ({len(random)})"),
            (chosen, PALETTE[0], f"chosen by the surrogate ({len(chosen)})"),
        ):
            if values:
                shares = [100 / len(values)] * len(values)
                axes.hist(values, edges, weights=shares, color=color, alpha=0.6, label=group)
        axes.set_xlabel(f"{label}, lower is better")
        axes.set_ylabel("share of the group (%)")
        axes.grid(visible=True, axis="y")
        axes.legend(loc="best")

    return svg("scores", draw)
