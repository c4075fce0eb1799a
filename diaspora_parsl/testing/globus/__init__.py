"""A local Globus Compute, to which the unmodified SDK talks: service, broker, and endpoints that can be broken."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from diaspora_parsl.testing.globus.sdk import client
    from diaspora_parsl.testing.globus.service import EmulatedEndpoint, LocalGlobusCompute

__all__ = ["EmulatedEndpoint", "LocalGlobusCompute", "client"]

_HOMES = {
    "EmulatedEndpoint": "diaspora_parsl.testing.globus.service",
    "LocalGlobusCompute": "diaspora_parsl.testing.globus.service",
    "client": "diaspora_parsl.testing.globus.sdk",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first asked for: the workers, which are modules of this package, need none."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
