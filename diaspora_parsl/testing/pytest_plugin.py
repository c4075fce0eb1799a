"""Pytest fixtures for tests of workflows: endpoints and pools that clean up after themselves."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import pytest

if TYPE_CHECKING:  # every run of pytest loads this plugin: large imports wait for their use
    from diaspora_parsl.testing.faults import FaultScript
    from diaspora_parsl.testing.globus import EmulatedEndpoint, LocalGlobusCompute
    from diaspora_parsl.testing.local_sites import LocalSite
    from diaspora_parsl.testing.pools import MakePool, PoolRun
    from diaspora_parsl.testing.services.slurm import LocalSlurm

    LocalSites: TypeAlias = Callable[..., list[LocalSite]]
    LocalClusters: TypeAlias = Callable[..., list[LocalSlurm]]

#: Sections added to the report of a failed test: titles and texts.
_SECTIONS: Final = pytest.StashKey[list[tuple[str, str]]]()
_MARK: Final = (
    "faults(*faults, seed=0, count=None, seconds=None, endpoints=None, kinds=None): faults that the fixtures "
    "fault_script and resilient_pool apply; `count` adds faults drawn at random"
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option ``--fault-seed``."""
    group = parser.getgroup("diaspora_parsl")
    group.addoption("--fault-seed", type=int, metavar="N", help="draw the faults of marks from this seed")


def pytest_configure(config: pytest.Config) -> None:
    """Register the mark ``faults``."""
    config.addinivalue_line("markers", _MARK)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the faults and the pool history of a failed test to its report."""
    report = yield
    if report.failed:
        sections = item.stash.get(_SECTIONS, [])
        report.sections += sections
    return report


@pytest.fixture
def fault_script(request: pytest.FixtureRequest) -> FaultScript:
    """Return the fault script of the test's marks; empty without a mark.

    ``@pytest.mark.faults(Kill(at=2, endpoint="alpha"))`` gives faults,
    ``@pytest.mark.faults(seed=7, count=3, seconds=20, endpoints=["alpha", "beta"])`` draws them from a seed, and
    ``pytest --fault-seed 8`` overrides the seed. The report of a failed test lists the faults.
    """
    from diaspora_parsl.testing import marks  # noqa: PLC0415 - see above

    given = [(mark.args, mark.kwargs) for mark in request.node.iter_markers("faults")]
    script, seed = marks.script_of(given, request.config.getoption("--fault-seed"))
    if given:
        request.node.stash.setdefault(_SECTIONS, []).append(("faults of this test", marks.describe(script, seed)))
    return script


@pytest.fixture
def resilient_pool(request: pytest.FixtureRequest, tmp_path: Path, fault_script: FaultScript) -> MakePool:
    """Return a function that builds a pool, loads it with Parsl and applies faults.

    ``with resilient_pool("alpha", "beta", workers=2, retries=1) as run:`` builds a pool of two local sites. ``faults=``
    replaces the faults of the test's marks. See `diaspora_parsl.testing.pools.resilient_pool` for the arguments. The
    report of a failed test includes the history of the pool.
    """
    from diaspora_parsl.testing import pools  # noqa: PLC0415 - see above

    sections = request.node.stash.setdefault(_SECTIONS, [])

    def make(*parts: Any, faults: Any = None, **options: Any) -> contextlib.AbstractContextManager[PoolRun]:
        def tell(text: str) -> None:
            sections.append(("what happened to the pool", text))

        script = fault_script if faults is None else faults
        return pools.resilient_pool(*parts, folder=tmp_path, faults=script, tell=tell, **options)

    return make


@pytest.fixture
def local_sites() -> Iterator[LocalSites]:
    """Return a function that starts local sites.

    ``alpha, beta = local_sites("alpha", "beta", workers=2)`` starts two, with keyword arguments of `LocalSite`. The
    end of the test removes the sites and all their processes.
    """
    from diaspora_parsl.testing.local_sites import LocalSite  # noqa: PLC0415 - see above

    with contextlib.ExitStack() as stack:

        def make(*labels: str, **options: Any) -> list[LocalSite]:
            return [stack.enter_context(LocalSite(label, **options)) for label in labels]

        yield make


@pytest.fixture
def local_clusters() -> Iterator[LocalClusters]:
    """Return a function that starts local Slurm clusters; skip the test where Slurm cannot run.

    ``alpha, beta = local_clusters("alpha", "beta", nodes=2)`` starts two, with keyword arguments of `LocalSlurm`. The
    end of the test removes the clusters and all their jobs.
    """
    from diaspora_parsl.testing.services.slurm import LocalSlurm  # noqa: PLC0415 - see above

    reason = LocalSlurm.why_not()
    if reason is not None:
        pytest.skip(f"no Slurm cluster can run here: {reason}")
    with contextlib.ExitStack() as stack:

        def make(*names: str, **options: Any) -> list[LocalSlurm]:
            return [stack.enter_context(LocalSlurm(name, **options)) for name in names]

        yield make


@pytest.fixture
def globus_compute_service() -> Iterator[LocalGlobusCompute]:
    """Yield a local Globus Compute service for the unmodified Globus Compute SDK.

    ``service.client()`` returns a client, ``service.endpoint("alpha", workers=2)`` adds an endpoint. The test is
    skipped without the extra ``globus-test``. The end of the test removes all endpoints and their processes.
    """
    from diaspora_parsl.testing import globus  # noqa: PLC0415 - see above

    reason = globus.why_not()
    if reason is not None:
        pytest.skip(f"no local Globus Compute can run here: {reason}")
    with globus.LocalGlobusCompute() as service:
        yield service


@pytest.fixture
def globus_compute_endpoint(globus_compute_service: LocalGlobusCompute) -> EmulatedEndpoint:
    """Return an endpoint of the local Globus Compute with two workers; pass its ``id`` to the SDK."""
    return globus_compute_service.endpoint("local", workers=2)
