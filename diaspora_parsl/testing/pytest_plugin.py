"""Fixtures for the tests of workflows: places that clean up after themselves."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest

if TYPE_CHECKING:  # a plugin is loaded by every run of pytest: what is large comes when it is used
    from diaspora_parsl.testing.globus import EmulatedEndpoint, LocalGlobusCompute
    from diaspora_parsl.testing.sites import LocalSite
    from diaspora_parsl.testing.slurm import LocalSlurm

    LocalSites: TypeAlias = Callable[..., list[LocalSite]]
    LocalClusters: TypeAlias = Callable[..., list[LocalSlurm]]


@pytest.fixture
def local_sites() -> Iterator[LocalSites]:
    """Makes local sites.

    ``alpha, beta = local_sites("alpha", "beta", workers=2)`` makes two; further
    arguments are those of `LocalSite`. All of them, and all their processes, are gone when the test is over.
    """
    from diaspora_parsl.testing.sites import LocalSite  # noqa: PLC0415 - see above

    with contextlib.ExitStack() as stack:

        def make(*labels: str, **options: Any) -> list[LocalSite]:
            return [stack.enter_context(LocalSite(label, **options)) for label in labels]

        yield make


@pytest.fixture
def local_clusters() -> Iterator[LocalClusters]:
    """Starts Slurm clusters.

    ``alpha, beta = local_clusters("alpha", "beta", nodes=2)`` starts two; further
    arguments are those of `LocalSlurm`. The test is skipped where Slurm cannot run. All clusters, and all their
    jobs, are gone when the test is over.
    """
    from diaspora_parsl.testing.slurm import LocalSlurm  # noqa: PLC0415 - see above

    reason = LocalSlurm.why_not()
    if reason is not None:
        pytest.skip(f"no Slurm cluster can run here: {reason}")
    with contextlib.ExitStack() as stack:

        def make(*names: str, **options: Any) -> list[LocalSlurm]:
            return [stack.enter_context(LocalSlurm(name, **options)) for name in names]

        yield make


@pytest.fixture
def globus_compute_service() -> Iterator[LocalGlobusCompute]:
    """A local Globus Compute, to which the SDK of Globus Compute talks as it is.

    ``service.client()`` is a client for it, ``service.endpoint("alpha", workers=2)`` adds an endpoint. The test is
    skipped where the extra ``globus-test`` is not installed. All endpoints and their processes are gone when the test
    is over.
    """
    from diaspora_parsl.testing import globus  # noqa: PLC0415 - see above

    reason = globus.why_not()
    if reason is not None:
        pytest.skip(f"no local Globus Compute can run here: {reason}")
    with globus.LocalGlobusCompute() as service:
        yield service


@pytest.fixture
def globus_compute_endpoint(globus_compute_service: LocalGlobusCompute) -> EmulatedEndpoint:
    """An endpoint of the local Globus Compute, with two workers; its ``id`` is what the SDK wants."""
    return globus_compute_service.endpoint("local", workers=2)
