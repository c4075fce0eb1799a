"""Fixtures for the tests of workflows: places and pools that clean up after themselves."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import pytest

if TYPE_CHECKING:  # a plugin is loaded by every run of pytest: what is large comes when it is used
    from diaspora_parsl.testing.faults import FaultScript
    from diaspora_parsl.testing.globus import EmulatedEndpoint, LocalGlobusCompute
    from diaspora_parsl.testing.local_sites import LocalSite
    from diaspora_parsl.testing.pools import MakePool, PoolRun
    from diaspora_parsl.testing.services.slurm import LocalSlurm

    LocalSites: TypeAlias = Callable[..., list[LocalSite]]
    LocalClusters: TypeAlias = Callable[..., list[LocalSlurm]]

#: What a test has to say if it fails: titles and texts.
_TOLD: Final = pytest.StashKey[list[tuple[str, str]]]()
_MARK: Final = (
    "faults(*faults, seed=0, count=None, seconds=None, endpoints=None, kinds=None): what the fixtures fault_script and "
    "resilient_pool apply: these faults, and some that are drawn at random"
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that overrides seeds."""
    group = parser.getgroup("diaspora_parsl")
    group.addoption("--fault-seed", type=int, metavar="N", help="draw the faults of marks from this seed")


def pytest_configure(config: pytest.Config) -> None:
    """Announce the mark, for ``--strict-markers``."""
    config.addinivalue_line("markers", _MARK)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let a test that fails say what happened to its pools."""
    report = yield
    if report.failed:
        told = item.stash.get(_TOLD, [])
        report.sections += told
    return report


@pytest.fixture
def fault_script(request: pytest.FixtureRequest) -> FaultScript:
    """The script that the test's marks ask for; empty without.

    ``@pytest.mark.faults(Kill(at=2, endpoint="alpha"))`` takes faults as they are,
    ``@pytest.mark.faults(seed=7, count=3, seconds=20, endpoints=["alpha", "beta"])`` draws some, always the same;
    ``pytest --fault-seed 8`` draws others. If the test fails, its output says which.
    """
    from diaspora_parsl.testing import marks  # noqa: PLC0415 - see above

    given = [(mark.args, mark.kwargs) for mark in request.node.iter_markers("faults")]
    script, seed = marks.script_of(given, request.config.getoption("--fault-seed"))
    if given:
        request.node.stash.setdefault(_TOLD, []).append(("faults of this test", marks.told(script, seed)))
    return script


@pytest.fixture
def resilient_pool(request: pytest.FixtureRequest, tmp_path: Path, fault_script: FaultScript) -> MakePool:
    """Makes a pool and lets Parsl load it.

    ``with resilient_pool("alpha", "beta", workers=2, retries=1) as run:`` makes one of two local sites, which meet the
    faults of the test's marks, or those that are given as ``faults=``. See `diaspora_parsl.testing.pools`. If the test
    fails, its output says what happened to the pool.
    """
    from diaspora_parsl.testing import pools  # noqa: PLC0415 - see above

    told = request.node.stash.setdefault(_TOLD, [])

    def make(*parts: Any, faults: Any = None, **options: Any) -> contextlib.AbstractContextManager[PoolRun]:
        def tell(story: str) -> None:
            told.append(("what happened to the pool", story))

        script = fault_script if faults is None else faults
        return pools.resilient_pool(*parts, folder=tmp_path, faults=script, tell=tell, **options)

    return make


@pytest.fixture
def local_sites() -> Iterator[LocalSites]:
    """Makes local sites.

    ``alpha, beta = local_sites("alpha", "beta", workers=2)`` makes two; further
    arguments are those of `LocalSite`. All of them, and all their processes, are gone when the test is over.
    """
    from diaspora_parsl.testing.local_sites import LocalSite  # noqa: PLC0415 - see above

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
