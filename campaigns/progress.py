"""Progress: what a campaign knows of itself while it runs, and how that is shown in a terminal."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from diaspora_parsl.campaigns.records import Row, Status

_RECENT: Final = 50
_FEW: Final = 5
#: Seconds between two lines when the output is no terminal.
_LINE_EVERY: Final = 5.0


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
    error: float | None
    """Mean difference between predicted and docked score over the last molecules, kcal/mol; None while unknown."""
    models: int
    """Fits of the surrogate that have chosen molecules."""
    by_site: dict[str, int]
    by_status: dict[Status, int]
    rate: float
    """Molecules per second over the last minute."""
    now: float

    @property
    def fraction(self) -> float:
        """Share of the budget that is settled, 0 to 1."""
        return self.done / self.budget if self.budget else 1.0

    @property
    def eta(self) -> float | None:
        """Seconds to go, at the present rate."""
        return (self.budget - self.done) / self.rate if self.rate > 0 else None


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
    _errors: deque[float] = field(default_factory=lambda: deque(maxlen=_RECENT))
    _ends: deque[float] = field(default_factory=lambda: deque(maxlen=_RECENT))

    def count(self, row: Row) -> None:
        """Add one row."""
        self.done += 1
        self.by_status[row.status] += 1
        self.by_site[row.site or "nowhere"] += 1
        self.models = max(self.models, row.model)
        self._ends.append(row.ended)
        if row.score is None:
            return
        self.docked += 1
        if row.predicted is not None:
            self._errors.append(abs(row.predicted - row.score))
        if self.best is None or row.score < self.best:
            self.best, self.best_name = row.score, row.name

    def only(self, statuses: frozenset[str]) -> bool:
        """Whether nothing but these has been seen."""
        return set(self.by_status) <= statuses

    def progress(self, *, in_flight: int, now: float) -> Progress:
        """A snapshot."""
        span = now - min(self._ends) if self._ends else 0.0
        return Progress(
            done=self.done,
            budget=self.budget,
            docked=self.docked,
            in_flight=in_flight,
            best=self.best,
            best_name=self.best_name,
            error=sum(self._errors) / len(self._errors) if len(self._errors) >= _FEW else None,
            models=self.models,
            by_site=dict(sorted(self.by_site.items())),
            by_status=dict(self.by_status),
            rate=len(self._ends) / span if span > 0 else 0.0,
            now=now,
        )


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
    eta = progress.eta
    return [
        ("molecules", f"{progress.done}/{progress.budget} ({progress.in_flight} in flight)"),
        ("best", f"{progress.best:.2f} kcal/mol, {progress.best_name}" if progress.best is not None else "none yet"),
        (
            "surrogate",
            f"fit {progress.models}, off by {progress.error:.2f} kcal/mol"
            if progress.error is not None
            else "learning",
        ),
        ("sites", ", ".join(f"{site} {count}" for site, count in progress.by_site.items()) or "none yet"),
        ("not docked", ", ".join(f"{name} {count}" for name, count in bad.items()) or "none"),
        ("to go", f"{eta:.0f} s" if eta is not None else "unknown"),
    ]
