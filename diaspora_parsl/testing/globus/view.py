"""Text for users of a local Globus Compute: instructions and the current state."""

from __future__ import annotations

import re
from typing import Final

from rich.table import Table

from diaspora_parsl.testing.globus.service import EmulatedEndpoint, LocalGlobusCompute

#: Port at which the SDK looks for a local service.
_SDK_PORT: Final = 5000
_ANYWHERE: Final = """\
from diaspora_parsl.testing.globus import client
from globus_compute_sdk import Executor

with Executor("{endpoint}", client=client("{url}")) as executor:
    print(executor.submit(pow, 2, 10).result())"""
_AT_THE_SDK_PORT: Final = """\
from globus_compute_sdk import Client, Executor
from globus_sdk import AccessTokenAuthorizer

client = Client(local_compute_services=True, authorizer=AccessTokenAuthorizer("any token will do"))
with Executor("{endpoint}", client=client) as executor:
    print(executor.submit(pow, 2, 10).result())"""


def introduction(service: LocalGlobusCompute) -> str:
    """Return instructions for a shell and for Python; the service must have an endpoint."""
    names = [f"export {_variable(endpoint)}={endpoint.id}" for endpoint in service.endpoints]
    snippet = _AT_THE_SDK_PORT if service.url.endswith(f":{_SDK_PORT}") else _ANYWHERE
    python = snippet.format(endpoint=service.endpoints[0].id, url=service.url)
    return "\n".join([f"export GLOBUS_COMPUTE_URL={service.url}", *names, "", python])


def table(service: LocalGlobusCompute) -> Table:
    """Return a table of the endpoints."""
    shown = Table(title=f"Globus Compute at {service.url}", caption=_tasks(service))
    for column in ("endpoint", "status", "idle", "workers", "held", "waiting", "what is wrong"):
        shown.add_column(column, justify="right" if column in {"idle", "workers", "held", "waiting"} else "left")
    for endpoint in service.endpoints:
        counts = endpoint.counts()
        numbers = ("idle_workers", "total_workers", "pending_tasks", "waiting")
        shown.add_row(
            endpoint.label, endpoint.status()["status"], *(str(counts[number]) for number in numbers), _wrong(endpoint)
        )
    return shown


def line(service: LocalGlobusCompute) -> str:
    """Return the state of the endpoints in one line, for files and pipes."""
    parts = []
    for endpoint in service.endpoints:
        counts = endpoint.counts()
        workers = f"{counts['idle_workers']}/{counts['total_workers']} idle"
        wrong = _wrong(endpoint)
        parts.append(f"{endpoint.label} {endpoint.status()['status']} {workers}{f' ({wrong})' if wrong else ''}")
    return "; ".join([*parts, _tasks(service)])


def _tasks(service: LocalGlobusCompute) -> str:
    states = [f"{count} {state}" for state, count in service.tasks.items() if count]
    return f"{sum(service.requests_seen.values())} requests; tasks: {', '.join(states) or 'none'}"


def _wrong(endpoint: EmulatedEndpoint) -> str:
    return ", ".join(type(fault).__name__ for fault in endpoint.troubles())


def _variable(endpoint: EmulatedEndpoint) -> str:
    return re.sub(r"\W", "_", endpoint.label).upper()
