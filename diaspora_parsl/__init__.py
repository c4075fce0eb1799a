"""One resilient compute pool out of several places that can run Parsl tasks."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from diaspora_parsl.core.failure_rules import Rule
    from diaspora_parsl.core.settings import PoolSettings
    from diaspora_parsl.errors import (
        AttemptLostError,
        ConfigurationError,
        DiasporaParslError,
        EndpointError,
        EndpointsUnavailableError,
        FabricError,
        FabricUnavailableError,
        FabricURLError,
        PayloadTooLargeError,
        PlacementError,
        PoisonTaskError,
        PoolError,
        PoolShutdownError,
        SubmitFailedError,
        TaskExceptionError,
    )
    from diaspora_parsl.executors.endpoint import Endpoint
    from diaspora_parsl.executors.globus.endpoint import GlobusEndpoint
    from diaspora_parsl.executors.maintenance import Maintenance
    from diaspora_parsl.executors.parsl.launcher import AgentLauncher
    from diaspora_parsl.executors.pool import ResilientPoolExecutor
    from diaspora_parsl.executors.resources import PoolResourceSpecification
    from diaspora_parsl.executors.retries import retry_handler
    from diaspora_parsl.fabric.base import Fabric, open_fabric
    from diaspora_parsl.monitors.parsl.hub import FabricMonitoringHub
    from diaspora_parsl.monitors.parsl.radio import FabricRadio

__version__ = "0.1.0"
__all__ = [
    "AgentLauncher",
    "AttemptLostError",
    "ConfigurationError",
    "DiasporaParslError",
    "Endpoint",
    "EndpointError",
    "EndpointsUnavailableError",
    "Fabric",
    "FabricError",
    "FabricMonitoringHub",
    "FabricRadio",
    "FabricURLError",
    "FabricUnavailableError",
    "GlobusEndpoint",
    "Maintenance",
    "PayloadTooLargeError",
    "PlacementError",
    "PoisonTaskError",
    "PoolError",
    "PoolResourceSpecification",
    "PoolSettings",
    "PoolShutdownError",
    "ResilientPoolExecutor",
    "Rule",
    "SubmitFailedError",
    "TaskExceptionError",
    "open_fabric",
    "retry_handler",
]

_HOMES = {
    **dict.fromkeys(
        (
            "AttemptLostError",
            "ConfigurationError",
            "DiasporaParslError",
            "EndpointError",
            "EndpointsUnavailableError",
            "FabricError",
            "FabricURLError",
            "FabricUnavailableError",
            "PayloadTooLargeError",
            "PlacementError",
            "PoisonTaskError",
            "PoolError",
            "PoolShutdownError",
            "SubmitFailedError",
            "TaskExceptionError",
            "TaskExceptionError",
        ),
        "diaspora_parsl.errors",
    ),
    "PoolResourceSpecification": "diaspora_parsl.executors.resources",
    "PoolSettings": "diaspora_parsl.core.settings",
    "AgentLauncher": "diaspora_parsl.executors.parsl.launcher",
    "Endpoint": "diaspora_parsl.executors.endpoint",
    "Fabric": "diaspora_parsl.fabric.base",
    "FabricMonitoringHub": "diaspora_parsl.monitors.parsl.hub",
    "FabricRadio": "diaspora_parsl.monitors.parsl.radio",
    "GlobusEndpoint": "diaspora_parsl.executors.globus.endpoint",
    "Maintenance": "diaspora_parsl.executors.maintenance",
    "ResilientPoolExecutor": "diaspora_parsl.executors.pool",
    "Rule": "diaspora_parsl.core.failure_rules",
    "open_fabric": "diaspora_parsl.fabric.base",
    "retry_handler": "diaspora_parsl.executors.retries",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first asked for, so that `import diaspora_parsl` costs nothing."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
