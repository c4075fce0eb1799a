"""Tasks that wait, in lines per set of eligible endpoints, oldest and most urgent first."""

from __future__ import annotations

from diaspora_parsl.core.tasks import Line


class Backlog:
    """All lines."""

    def __init__(self, labels: list[str]) -> None:
        self._lines: dict[tuple[frozenset[str], str | None], Line] = {}
        self._of: dict[str, list[Line]] = {label: [] for label in labels}

    def line(self, eligible: frozenset[str], function: str | None = None) -> Line:
        """The line for this set of endpoints, or that of one function for it."""
        line = self._lines.get((eligible, function))
        if line is None:
            line = self._lines[eligible, function] = Line(eligible, function)
            for label in eligible:
                self._of[label].append(line)
        return line

    def lines(self) -> list[Line]:
        """Every line there is."""
        return list(self._lines.values())

    def of(self, label: str) -> list[Line]:
        """The lines that this endpoint may take from."""
        return self._of[label]

    def __len__(self) -> int:
        return sum(line.length for line in self._lines.values())
