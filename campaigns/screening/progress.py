"""Progress: what a campaign knows of itself while it runs, and how that is shown in a terminal."""

from __future__ import annotations

import bisect
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from .records import Row, Status

_RECENT: Final = 50
_FEW: Final = 5
#: Seconds over which rates are measured.
_SPAN: Final = 60.0
#: A hit is at least as good as the best tenth of the random batch.
_HIT_SHARE: Final = 0.1
#: Seconds between two lines when the output is no terminal.
_LINE_EVERY: Final = 5.0


class Quality(NamedTuple):
    """How good the last predictions were."""

    checked: int
    """Number of molecules that this is computed from."""
    spearman: float | None
    """Rank correlation of predicted and found scores; None while unknown."""
    error: float | None
    """Median absolute difference; None while unknown."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """How far a campaign is."""

    done: int
    budget: int
    docked: int
    in_flight: int
    best: float | None
    """Best score so far, kcal/mol."""
    best_name: str
    hits: int
    """Molecules at least as good as the best tenth of the random batch."""
    quality: Quality
    """Of the last predictions."""
    models: int
    """Fits of the surrogate that have been adopted."""
    by_site: dict[str, int]
    by_status: dict[Status, int]
    site_rates: dict[str, float]
    """Molecules per second over the last minute, by site."""
    left: dict[str, float]
    """What is left of further limits: ``cpu_hours``, and ``wall_time`` in seconds."""
    now: float

    @property
    def fraction(self) -> float:
        """Share of the number of molecules that is settled, 0 to 1."""
        return self.done / self.budget if self.budget else 1.0

    @property
    def rate(self) -> float:
        """Molecules per second over the last minute."""
        return sum(self.site_rates.values())

    @property
    def eta(self) -> float | None:
        """Seconds to go at the present rate, until the first limit is reached."""
        limits = [self.left["wall_time"]] if "wall_time" in self.left else []
        if self.rate > 0:
            limits.append((self.budget - self.done) / self.rate)
        return min(limits, default=None)


@dataclass
class Tally:
    """Counts settled molecules."""

    budget: int
    done: int = 0
    docked: int = 0
    best: float | None = None
    best_name: str = ""
    models: int = 0
    by_site: Counter[str] = field(default_factory=Counter)
    by_status: Counter[Status] = field(default_factory=Counter)
    _scores: list[float] = field(default_factory=list)
    _random: list[float] = field(default_factory=list)
    _pairs: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=_RECENT))
    _ends: deque[tuple[float, str]] = field(default_factory=deque)
    _first: float | None = None

    def count(self, row: Row, *, earlier: bool = False) -> None:
        """Add one row; one of an earlier session says nothing about the present rate."""
        site = row.site or "nowhere"
        self.done += 1
        self.by_status[row.status] += 1
        self.by_site[site] += 1
        self.models = max(self.models, row.model)
        if not earlier:
            self._ends.append((row.ended, site))
            self._first = row.ended if self._first is None else self._first
        if row.score is None:
            return
        self.docked += 1
        bisect.insort(self._scores if row.model else self._random, row.score)
        if row.predicted is not None:
            self._pairs.append((row.predicted, row.score))
        if self.best is None or row.score < self.best:
            self.best, self.best_name = row.score, row.name

    def quality(self) -> Quality:
        """How good the last predictions were."""
        if len(self._pairs) < _FEW:
            return Quality(0, None, None)
        predicted, found = np.array(self._pairs).T
        return Quality(
            len(self._pairs), rank_correlation(predicted, found), float(np.median(np.abs(predicted - found)))
        )

    def progress(self, *, in_flight: int, now: float, left: dict[str, float] | None = None) -> Progress:
        """A snapshot."""
        while self._ends and self._ends[0][0] < now - _SPAN:
            self._ends.popleft()
        span = min(_SPAN, now - self._first) if self._first is not None else 0.0
        recent = Counter(site for _, site in self._ends)
        return Progress(
            done=self.done,
            budget=self.budget,
            docked=self.docked,
            in_flight=in_flight,
            best=self.best,
            best_name=self.best_name,
            hits=self._hits(),
            quality=self.quality(),
            models=self.models,
            by_site=dict(sorted(self.by_site.items())),
            by_status=dict(self.by_status),
            site_rates={site: recent[site] / span if span > 0 else 0.0 for site in sorted(self.by_site)},
            left=left or {},
            now=now,
        )

    def _hits(self) -> int:
        if len(self._random) < _FEW:
            return 0
        threshold = self._random[max(1, round(_HIT_SHARE * len(self._random))) - 1]
        return sum(bisect.bisect_right(scores, threshold) for scores in (self._scores, self._random))


def rank_correlation(one: NDArray[np.float64], other: NDArray[np.float64]) -> float | None:
    """Spearman's rank correlation, ties at their mean rank; None where one of them does not vary."""
    first, second = _ranks(one), _ranks(other)
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return float(np.corrcoef(first, second)[0, 1])


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    last: NDArray[np.float64] = np.cumsum(count).astype(np.float64)
    mean: NDArray[np.float64] = (last - (count - 1) / 2)[place]
    return mean


class Display:
    """Shows progress: a live panel in a terminal, a line every few seconds elsewhere."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None
        self._last_line = 0.0
        self._notes: deque[str] = deque(maxlen=4)

    @contextmanager
    def shown(self) -> Iterator[Display]:
        """Show while the block runs."""
        if not self._console.is_terminal:
            yield self
            return
        with Live(console=self._console, refresh_per_second=4) as self._live:
            yield self
        self._live = None

    def note(self, sentence: str) -> None:
        """Say something that is not progress, such as that a site was killed."""
        self._notes.append(sentence)
        if self._live is None:
            self._console.print(sentence, highlight=False)

    def __call__(self, progress: Progress) -> None:
        """Take the newest progress."""
        if self._live is not None:
            self._live.update(self._panel(progress))
        elif progress.now - self._last_line >= _LINE_EVERY or progress.done == progress.budget:
            if progress.done == progress.budget and self._last_line == float("inf"):
                return
            self._last_line = float("inf") if progress.done == progress.budget else progress.now
            self._console.print(line(progress), highlight=False, soft_wrap=True)

    def _panel(self, progress: Progress) -> RenderableType:
        table = Table.grid(padding=(0, 2))
        table.add_column(style="dim", no_wrap=True)
        table.add_column()
        for name, value in _facts(progress):
            table.add_row(name, value)
        bar = ProgressBar(total=progress.budget, completed=progress.done)
        notes = [Text(note, style="bold yellow") for note in self._notes]
        return Group(bar, table, *notes)


def line(progress: Progress) -> str:
    """Progress in one line, for logs."""
    return " | ".join(f"{name} {value}" for name, value in _facts(progress))


def _facts(progress: Progress) -> list[tuple[str, str]]:
    bad = {name: count for name, count in progress.by_status.items() if name != "ok"}
    best = f"best {progress.best:.2f}, {progress.best_name}; {progress.hits} hits" if progress.best is not None else ""
    sites = [
        f"{site} {count} ({60 * progress.site_rates.get(site, 0.0):.0f}/min)"
        for site, count in progress.by_site.items()
    ]
    left = [f"{progress.budget - progress.done} molecules"]
    left += [f"{progress.left['cpu_hours']:.2f} CPU h"] if "cpu_hours" in progress.left else []
    left += [_duration(progress.left["wall_time"])] if "wall_time" in progress.left else []
    return [
        ("molecules", f"{progress.done}/{progress.budget} ({progress.in_flight} in flight)"),
        ("found", best or "nothing yet"),
        ("model", _model(progress)),
        ("sites", ", ".join(sites) or "none yet"),
        ("not docked", ", ".join(f"{name} {count}" for name, count in bad.items()) or "none"),
        ("budget left", ", ".join(left)),
        ("to go", _duration(progress.eta) if progress.eta is not None else "unknown"),
    ]


def _model(progress: Progress) -> str:
    quality = progress.quality
    if quality.error is None:
        return f"fit {progress.models}" if progress.models else "learning"
    agreement = f", rank correlation {quality.spearman:.2f}" if quality.spearman is not None else ""
    return f"fit {progress.models}{agreement}, off by {quality.error:.2f} in the last {quality.checked}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
