"""The picture of a benchmark: what was found of the best, against what was screened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from .plots import CHANCE, PALETTE


def draw(path: Path, curves: dict[str, list[dict[str, Any]]], *, top: int) -> None:
    """Draw the curve of each strategy: the mean of its seeds, and from the worst to the best one.

    Args:
        path: ends in ``.svg`` or ``.png``.
        curves: as in the JSON of the benchmark, by name.
        top: how many are the best.
    """
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for number, (name, curve) in enumerate(curves.items()):
        colour = CHANCE if name == "random" else PALETTE[number]
        molecules = [point["molecules"] for point in curve]
        shares = np.array([point["scores_percent"] for point in curve])
        axes.plot(molecules, shares.mean(axis=1), color=colour, label=name)
        axes.fill_between(molecules, shares.min(axis=1), shares.max(axis=1), color=colour, alpha=0.2, linewidth=0)
    axes.set(xlabel="molecules screened", ylabel=f"best {top} found (scores, %)", ylim=(0, 100), xlim=(0, None))
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
