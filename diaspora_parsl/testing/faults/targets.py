"""What a fault script can be applied to, and what is wrong there now."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, TypeVar

from diaspora_parsl.testing.faults import script as f

FaultT = TypeVar("FaultT", bound=f.Fault)


class Place(Protocol):
    """A place that faults can be applied to while it works: a local site, an emulated endpoint.

    `begin` and `end` return when it is done, and are called by one thread at a time.
    """

    @property
    def label(self) -> str:
        """Of the endpoint there."""

    @property
    def domain(self) -> object:
        """What it shares with others: a fault that names no endpoint is applied once to each domain."""

    def refuses(self, fault: f.Fault) -> str | None:
        """Why the fault cannot be applied here, None if it can."""

    def begin(self, fault: f.Fault) -> None:
        """From now on this is wrong here; what has no ``until`` is over at once."""

    def end(self, fault: f.Fault) -> None:
        """What has begun is wrong no longer, unless another fault of the same kind lasts."""


class Troubles:
    """Faults that have begun and not ended, in this order."""

    def __init__(self) -> None:
        self._open: list[f.Fault] = []

    def __iter__(self) -> Iterator[f.Fault]:
        return iter(list(self._open))

    def begin(self, fault: f.Fault) -> None:
        """Remember it, if it lasts."""
        if getattr(fault, "until", None) is not None:
            self._open.append(fault)

    def end(self, fault: f.Fault) -> bool:
        """Forget it; returns whether it was the last of its kind.

        Raises:
            ValueError: it has not begun, or ended before.
        """
        self._open.remove(fault)
        return not self.of(type(fault))

    def of(self, kind: type[FaultT]) -> list[FaultT]:
        """Those of a kind."""
        return [fault for fault in self._open if isinstance(fault, kind)]
