"""The report: one HTML file that explains a campaign to a chemist, offline, in light and dark, wide and narrow."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ..chemistry.novelty import novelty
from ..records import MEANING, Fit, Row, Session
from ..results.analysis import HIT_SHARE, agreement, agreement_by_round, enrichment, in_time
from ..results.exports import ranked
from ..results.reroutes import Fault, Story
from . import plots
from .gantt import gantt
from .structures import structure

_PACKAGES: Final = ("diaspora-parsl", "parsl", "vina", "meeko", "rdkit", "numpy", "scipy")
_PICTURES: Final = 12
_FAILURES: Final = 50


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportInput:
    """Everything the report is made from."""

    title: str
    headline: Sequence[str]
    """What happened, in sentences."""
    rows: Sequence[Row]
    candidates: int
    """Readable, distinct molecules that could be chosen."""
    started: float
    ended: float
    settings: Mapping[str, object]
    command: str
    """How to do it again."""
    story: Story = field(default_factory=Story)
    faults: Sequence[Fault] = ()
    interrupted: bool = False
    quantity: str = "Vina score"
    """What the scores are; lower is better."""
    unit: str = "kcal/mol"
    """Unit of the scores; empty if they have none."""
    pauses: Sequence[tuple[float, float]] = ()
    """Unix times from and to which nobody conducted the campaign: between an end and a resume."""
    sessions: Sequence[Session] = ()
    """Each run of a controller."""
    fits: Sequence[Fit] = ()
    """Each fit of the surrogate."""
    known: Sequence[str] = ()
    """SMILES that novelty is measured from; without any, what the random first batch was made of."""


def write_report(path: Path, data: ReportInput) -> None:
    """Write the report as one self-contained file."""
    environment = Environment(
        loader=PackageLoader("diaspora_parsl.campaigns.screening"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["when"] = _when
    environment.filters["score"] = lambda value: f"{value:.2f}".replace("-", "\N{MINUS SIGN}")
    template = environment.get_template("report.html.j2")
    path.write_text(template.render(_content(data)), encoding="utf-8")


def _content(data: ReportInput) -> dict[str, Any]:
    best = ranked(data.rows)
    tried = in_time(data.rows)
    gain = enrichment(data.rows)
    guess = agreement(data.rows)
    rounds = agreement_by_round(data.rows)
    known = data.known or [row.smiles for row in tried if row.model == 0 and row.score is not None]
    new = novelty([row.smiles for row in best[:_PICTURES]], known)
    failures = [row for row in data.rows if row.score is None]
    scale = data.unit or "no unit"
    random = [row.score for row in tried if row.model == 0 and row.score is not None]
    chosen = [row.score for row in tried if row.model > 0 and row.score is not None]
    return {
        "data": data,
        "best": [
            (row, Markup(structure(row.smiles)), far)  # noqa: S704 - drawn by RDKit
            for row, far in zip(best, new, strict=False)
        ],
        "poses": any(row.pose for row in best),
        "novel_from": "the known ligands" if data.known else "the random first batch",
        "unit": f" {data.unit}" if data.unit else "",
        "docked": len(best),
        "tried": len(tried),
        "gain": gain,
        "hit_share": HIT_SHARE,
        "guess": guess,
        "rounds": rounds,
        "plots": {
            name: Markup(text)  # noqa: S704 - drawn by matplotlib
            for name, text in {
                "hits": plots.hits_found(gain) if gain else "",
                "best": plots.best_so_far(gain, scale) if gain else "",
                "agreement": plots.predicted_against_docked(guess, scale) if guess else "",
                "rounds": plots.agreement_by_round(rounds, scale) if len(rounds) > 1 else "",
                "scores": plots.score_histogram(random, chosen, f"{data.quantity} ({scale})") if best else "",
                "gantt": gantt(data.rows, data.story, data.faults, data.started, data.pauses),
            }.items()
        },
        "sites": _sites(tried),
        "failure_counts": Counter(row.status for row in failures).most_common(),
        "failures": failures[:_FAILURES],
        "meaning": MEANING,
        "versions": versions(),
        "when": _when(data.started),
        "minutes": (data.ended - data.started) / 60,
    }


def _sites(tried: Sequence[Row]) -> list[dict[str, Any]]:
    found = []
    for site in sorted({row.site for row in tried if row.site}):
        rows = [row for row in tried if row.site == site]
        found.append(
            {
                "name": site,
                "tasks": len(rows),
                "docked": sum(row.docked for row in rows),
                "seconds": sum(row.seconds for row in rows) / len(rows),
                "busy": sum(row.ended - row.started for row in rows),
            }
        )
    return found


def versions() -> list[tuple[str, str]]:
    """Python and the packages that decide the outcome."""
    return [("Python", platform.python_version()), *((name, _version(name)) for name in _PACKAGES)]


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
