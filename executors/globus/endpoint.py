"""A Globus Compute endpoint as a member of a pool."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

from parsl.executors.base import ParslExecutor

from diaspora_parsl.errors import ConfigurationError

from ..endpoint import Endpoint
from ..maintenance import Maintenance
from .journal import journal_at
from .rate_limit import RateLimit

#: Bytes that one submission may have, as the service says.
PAYLOAD_LIMIT: Final = 10 * 1024 * 1024


class GlobusEndpoint(Endpoint):
    """A Globus Compute endpoint in a pool.

    It keeps the pool's promises where Globus Compute alone does not: a submission that fails costs one batch and not
    the endpoint; tasks at an endpoint that went offline, or that says "online" and does nothing, go elsewhere; before
    that the service is asked for results that it already holds. Nothing can be cancelled there: what a task that was
    rerouted gives later is taken if it is first, else dropped, counted and published.

    Args:
        endpoint_id: UUID of the endpoint.
        label: unique in the pool.
        site: the facility it belongs to; its label if not given.
        client_factory: makes a `globus_compute_sdk.Client`; called twice, so that asking for the status never waits
            for a submission. If not given, ``Client()``, with the login that is stored on this host.
        max_concurrency: workers that it has once its blocks are there. If not given, what its status says, at least 1.
        tags: as of `Endpoint`.
        mem_per_worker: as of `Endpoint`.
        maintenance: as of `Endpoint`.
        rate_limit: the account whose allowance of requests (20 in 10 s) the endpoint shares with others, by name; or a
            `RateLimit` with another allowance, for a service of your own.
        user_endpoint_config: for templated endpoints.
        status_period: seconds between two looks at its status.
        patience: seconds without any sign of life, though a worker should be free, after which an endpoint that says
            "online" is ignored. Where all workers may be busy it takes longer.
        prefetch_seconds: seconds of known work that are sent ahead to each worker, since a round trip takes seconds.
        payload_limit: bytes of arguments that a task may have.
        journal: a file that remembers what is in flight. If this process dies and the workflow is run again with that
            file, the results of calls that were in flight are taken from the service, instead of running them again.
            Endpoints may share it.

    Raises:
        ConfigurationError: something cannot work, or the SDK is not installed; the message says what to do.
    """

    def __init__(
        self,
        *,
        endpoint_id: str | uuid.UUID,
        label: str,
        site: str | None = None,
        client_factory: Callable[[], Any] | None = None,
        max_concurrency: int | None = None,
        tags: Iterable[str] = (),
        mem_per_worker: float | None = None,
        maintenance: Iterable[Maintenance] = (),
        rate_limit: str | RateLimit = "default",
        user_endpoint_config: dict[str, Any] | None = None,
        status_period: float = 5.0,
        patience: float = 30.0,
        prefetch_seconds: float = 10.0,
        payload_limit: int = PAYLOAD_LIMIT,
        journal: str | Path | None = None,
    ) -> None:
        try:
            identity = str(uuid.UUID(str(endpoint_id)))
        except ValueError:
            raise ConfigurationError(
                f"GlobusEndpoint {label!r}: endpoint_id={endpoint_id!r} is no UUID. "
                f"`globus-compute-endpoint list` on the machine of the endpoint shows it."
            ) from None
        if status_period <= 0 or patience <= 0 or prefetch_seconds <= 0 or payload_limit < 1:
            raise ConfigurationError(
                f"GlobusEndpoint {label!r}: status_period, patience, prefetch_seconds and payload_limit "
                f"(bytes) must be above 0."
            )
        if client_factory is not None and not callable(client_factory):
            raise ConfigurationError(
                f"GlobusEndpoint {label!r}: client_factory must be callable. Write client_factory=lambda: Client(...)."
            )

        def build() -> ParslExecutor:
            # Only now: to configure a pool, the SDK is not needed.
            from .executor import GlobusExecutor  # noqa: PLC0415
            from .sdk import default_client  # noqa: PLC0415

            return GlobusExecutor(
                label=label,
                site=site or label,
                endpoint_id=identity,
                client_factory=client_factory or default_client,
                slots=max_concurrency,
                rate_limit=rate_limit,
                user_endpoint_config=user_endpoint_config,
                status_period=status_period,
                patience=patience,
                payload_limit=payload_limit,
                journal=None if journal is None else journal_at(journal),
            )

        super().__init__(
            build,
            label=label,
            site=site,
            max_concurrency=max_concurrency,
            tags=tags,
            mem_per_worker=mem_per_worker,
            maintenance=maintenance,
            prefetch_seconds=prefetch_seconds,
        )
        self._client_factory = client_factory

    def log_in(self) -> None:
        """If there is no ``client_factory`` and no login on this host, ask for one at the terminal.

        Raises:
            ConfigurationError: there is no login, and nobody to be asked; the message says what to do.
        """
        if self._client_factory is None:
            from .sdk import log_in  # noqa: PLC0415 - as above

            log_in()
