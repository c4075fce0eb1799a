"""The budget: how many molecules, how many CPU hours, how much wall time; whichever is spent first ends a campaign."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from diaspora_parsl.errors import ConfigurationError

_UNITS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_HOUR: Final = 3600.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """What may be spent; at least one of the three."""

    molecules: int | None = None
    """Failures included."""
    cpu_hours: float | None = None
    """Of workers, one core each: what they spent on molecules, waiting not counted."""
    wall_time: float | None = None
    """Seconds in which a controller runs, all sessions together."""

    def __post_init__(self) -> None:
        given = [value for value in (self.molecules, self.cpu_hours, self.wall_time) if value is not None]
        if not given:
            raise ConfigurationError(
                "When shall the campaign end? Write --budget MOLECULES, --cpu-hours HOURS or --wall-time 2h."
            )
        if min(given) <= 0:
            raise ConfigurationError(f"A budget of {min(given):g} docks nothing. Write more than 0.")


@dataclass
class Spending:
    """What has been spent, and whether one more molecule can be afforded.

    A molecule is begun only if it can be expected to end within the budget, as those in flight take their mean time.

    Args:
        budget: what may be spent.
        earlier: seconds of wall time that earlier sessions took.
        began: Unix time at which this session began.
    """

    budget: Budget
    began: float
    earlier: float = 0.0
    seconds: float = 0.0
    """Of workers, on settled molecules."""
    settled: int = 0

    def count(self, seconds: float) -> None:
        """A molecule is settled, and has cost so much."""
        self.seconds += seconds
        self.settled += 1

    def wall_time(self, now: float) -> float:
        """Seconds in which a controller has run."""
        return self.earlier + now - self.began

    def affords_more(self, in_flight: int, now: float) -> bool:
        """Whether time and CPU hours allow one more molecule; their number is the chooser's to count."""
        mean = self.seconds / self.settled if self.settled else 0.0
        cpu, wall = self.budget.cpu_hours, self.budget.wall_time
        if cpu is not None and self.seconds + (in_flight + 1) * mean > cpu * _HOUR:
            return False
        return wall is None or self.wall_time(now) + mean < wall

    def left(self, in_flight: int, now: float) -> dict[str, float]:
        """What is left of each limit but the number of molecules: ``cpu_hours``, and ``wall_time`` in seconds."""
        found = {}
        if self.budget.cpu_hours is not None:
            mean = self.seconds / self.settled if self.settled else 0.0
            found["cpu_hours"] = max(0.0, self.budget.cpu_hours - (self.seconds + in_flight * mean) / _HOUR)
        if self.budget.wall_time is not None:
            found["wall_time"] = max(0.0, self.budget.wall_time - self.wall_time(now))
        return found


def seconds_of(text: str) -> float:
    """A duration such as ``90s``, ``30m``, ``2h``, ``1d`` or ``1h30m``, in seconds.

    Raises:
        ConfigurationError: it is none.
    """
    if not re.fullmatch(r"(\d+(\.\d+)?[smhd])+", text):
        raise ConfigurationError(f'"{text}" is no duration. Write 90s, 30m, 2h, 1d or 1h30m.')
    return sum(float(number) * _UNITS[unit] for number, _, unit in re.findall(r"(\d+(\.\d+)?)([smhd])", text))
