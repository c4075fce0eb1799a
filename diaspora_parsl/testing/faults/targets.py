"""The protocol of what a fault script can be applied to, and the list of its active faults."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, TypeVar

from diaspora_parsl.testing.faults import script as f

FaultT = TypeVar("FaultT", bound=f.Fault)


class Place(Protocol):
    """An endpoint that faults can be applied to while it runs: a local site or an emulated endpoint.

    `begin` and `end` return once the fault is applied. One thread at a time calls them.
    """

    @property
    def label(self) -> str:
        """Label of the endpoint."""

    @property
    def domain(self) -> object:
        """The service that endpoints share: a fault without an endpoint is applied once per domain."""

    def refuses(self, fault: f.Fault) -> str | None:
        """Return why the fault cannot be applied, or None if it can."""

    def begin(self, fault: f.Fault) -> None:
        """Begin a fault. A fault without ``until`` also ends here."""

    def end(self, fault: f.Fault) -> None:
        """End a fault, unless another fault of its kind is active."""


class ActiveFaults:
    """Faults that have begun and not ended, in the order of their begin."""

    def __init__(self) -> None:
        self._open: list[f.Fault] = []

    def __iter__(self) -> Iterator[f.Fault]:
        return iter(list(self._open))

    def begin(self, fault: f.Fault) -> None:
        """Add the fault if it has an ``until``."""
        if getattr(fault, "until", None) is not None:
            self._open.append(fault)

    def end(self, fault: f.Fault) -> bool:
        """Remove the fault; return whether it was the last of its kind.

        Raises:
            ValueError: The fault is not active.
        """
        self._open.remove(fault)
        return not self.of(type(fault))

    def of(self, kind: type[FaultT]) -> list[FaultT]:
        """Return the active faults of a kind."""
        return [fault for fault in self._open if isinstance(fault, kind)]
