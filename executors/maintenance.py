"""A window of maintenance, as the user writes it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from diaspora_parsl.errors import ConfigurationError


@dataclass(frozen=True, init=False)
class Maintenance:
    """A time in which an endpoint is not to be used.

    Args:
        start: with its zone: a `datetime`, or as in ``"2026-12-01T08:00:00-06:00"``.
        end: the same, later.
        reason: reason shown to people who ask why.

    Raises:
        ConfigurationError: these are no such times; the message says what to write instead.
    """

    start: datetime
    end: datetime
    reason: str

    def __init__(self, *, start: datetime | str, end: datetime | str, reason: str = "") -> None:
        begin, over = _moment(start, "start"), _moment(end, "end")
        if over <= begin:
            raise ConfigurationError(f"Maintenance(start={start!r}, end={end!r}) ends before it starts: swap them.")
        object.__setattr__(self, "start", begin)
        object.__setattr__(self, "end", over)
        object.__setattr__(self, "reason", reason)

    @property
    def sentence(self) -> str:
        """Why the endpoint is not used meanwhile."""
        until = self.end.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        return f"maintenance until {until}" + (f": {self.reason}" if self.reason else "")


def as_windows(given: Iterable[Maintenance], label: str) -> tuple[Maintenance, ...]:
    """The windows of an endpoint, in order.

    Raises:
        ConfigurationError: something else was given.
    """
    windows = tuple(given)
    wrong = next((window for window in windows if not isinstance(window, Maintenance)), None)
    if wrong is not None:
        raise ConfigurationError(
            f"Endpoint {label!r}: write maintenance=[Maintenance(start=..., end=...)], not {wrong!r}."
        )
    return tuple(sorted(windows, key=lambda window: window.start))


def _moment(given: datetime | str, name: str) -> datetime:
    when: datetime | None = None
    if isinstance(given, datetime):
        when = given
    elif isinstance(given, str):
        try:
            when = datetime.fromisoformat(given)
        except ValueError:
            when = None
    if when is None or when.tzinfo is None:
        raise ConfigurationError(
            f'Maintenance({name}={given!r}): write a time with its zone, as in {name}="2026-12-01T08:00:00-06:00".'
        )
    return when
