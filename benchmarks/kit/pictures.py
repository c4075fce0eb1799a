"""Plots of experiments as SVG; the digest of what is shown stands in the file, so that a stale one is found out."""

from __future__ import annotations

import hashlib
import io

import msgspec

from benchmarks.kit.experiment import PEERS, Experiment
from benchmarks.kit.schema import Report

#: Colours of Okabe and Ito, distinct for colour-blind readers.
_COLOURS = {"pool": "#009E73", "plain": "#0072B2", "dask": "#E69F00", "ray": "#CC79A7"}
_BAR = 0.2
_FOOT = 0.9


def digest(experiment: Experiment, report: Report) -> str:
    """Return a hash of the content of the plot."""
    shown = (experiment.title, [[*group] for group in _groups(experiment, report)], _bars(experiment, report))
    return hashlib.sha256(msgspec.json.encode(shown)).hexdigest()[:16]


def draw(experiment: Experiment, report: Report) -> bytes:
    """Horizontal bars, grouped by case, one a peer; a case without a figure has a dash.

    Raises:
        ValueError: the experiment has no plot.
    """
    from matplotlib import rc_context  # noqa: PLC0415 - not needed to measure
    from matplotlib.figure import Figure  # noqa: PLC0415

    plot = experiment.plot
    if plot is None:
        raise ValueError(f"{experiment.name} has no plot")
    bars, groups = _bars(experiment, report), _groups(experiment, report)
    height = sum(_BAR * len(peers) + 0.16 for _, peers in groups) + _FOOT
    with rc_context({"svg.hashsalt": "bench", "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9}):
        figure = Figure(figsize=(8, height), layout="constrained")
        axes = figure.add_subplot()
        top, ticks, named = 0.0, [], set()
        biggest = max((value for value in bars.values() if value is not None), default=1.0)
        if plot.axis.endswith("%"):
            biggest = 100.0  # shares are seen as such
        for variant, peers in groups:
            for number, peer in enumerate(peers):
                value = bars[f"{variant}/{peer}"]
                place = top - number * _BAR
                label = PEERS[peer] if peer not in named else None
                named.add(peer)
                axes.barh(place, value or 0.0, _BAR * 0.9, color=_COLOURS[peer], label=label)
                axes.text((value or 0.0) + biggest * 0.01, place, "-" if value is None else f"{value:.3g}", va="center")
            ticks.append((top - (len(peers) - 1) * _BAR / 2, variant))
            top -= _BAR * len(peers) + 0.16
        axes.set_yticks([place for place, _ in ticks], [name for _, name in ticks])
        axes.set_xlim(0, biggest * 1.12)
        axes.set_xlabel(plot.axis)
        axes.spines[["top", "right"]].set_visible(False)
        figure.legend(loc="outside upper right", ncols=len(named), frameon=False)
        sink = io.BytesIO()
        figure.savefig(sink, format="svg", metadata={"Date": None, "Title": experiment.title,
                                                     "Description": digest(experiment, report)})  # fmt: skip
    lines = sink.getvalue().decode().splitlines()
    return ("\n".join(line.rstrip() for line in lines) + "\n").encode()


def _groups(experiment: Experiment, report: Report) -> list[tuple[str, list[str]]]:
    """Cases in order, each with its peers."""
    del experiment
    groups: dict[str, list[str]] = {}
    for measurement in report.measurements:
        groups.setdefault(measurement.variant, []).append(measurement.peer)
    return list(groups.items())


def _bars(experiment: Experiment, report: Report) -> dict[str, float | None]:
    """Figures by case and peer."""
    name = experiment.plot.figure if experiment.plot is not None else ""
    return {f"{m.variant}/{m.peer}": m.figure(name) for m in report.measurements}
