"""A local Globus Compute for the unmodified SDK: REST service, AMQP broker, and endpoints that accept faults.

`service` is the public face, `web` the REST interface, `broker` delivers results, `engines` run the tasks. Start with
`service.LocalGlobusCompute`.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from diaspora_parsl.testing.globus.sdk import client
    from diaspora_parsl.testing.globus.service import EmulatedEndpoint, LocalGlobusCompute

__all__ = ["EmulatedEndpoint", "LocalGlobusCompute", "client", "why_not"]

_HOMES = {
    "EmulatedEndpoint": "diaspora_parsl.testing.globus.service",
    "LocalGlobusCompute": "diaspora_parsl.testing.globus.service",
    "client": "diaspora_parsl.testing.globus.sdk",
}

#: Modules that come with the extra ``globus-test``.
_NEEDS = ("globus_compute_sdk", "aiohttp")


def why_not() -> str | None:
    """Return why a local Globus Compute cannot run on this host, or None if it can."""
    missing = [module for module in _NEEDS if importlib.util.find_spec(module) is None]
    if not missing:
        return None
    return f"{' and '.join(missing)} cannot be imported. Write: pip install 'diaspora-parsl[globus-test]'"


def __getattr__(name: str) -> object:
    """Import a public name at its first use: the workers, modules of this package, need none."""
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
