from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from diaspora_parsl.errors import ConfigurationError
from diaspora_parsl.testing.faults import (
    BlackHole,
    Fault,
    FaultScript,
    Flaky,
    Kill,
    LoseConnection,
    LoseFabric,
    LoseNode,
    LoseResults,
    OutOfMemory,
    Refuse,
    Slow,
    worker_faults,
)
from diaspora_parsl.testing.faults.injector import Injector
from diaspora_parsl.testing.local_sites import LocalSite


@pytest.fixture
def site() -> Iterator[LocalSite]:
    with LocalSite("alpha", nodes=2) as alpha:
        yield alpha


def wrong(site: LocalSite) -> set[object]:
    return set(worker_faults.read_faults(site._folder))


def test_faults_begin_and_end_when_the_script_says(site: LocalSite) -> None:
    slow = Slow(at=0.0, endpoint="alpha", until=0.3)
    full = OutOfMemory(at=0.1, endpoint="alpha", until=0.2)
    with Injector(FaultScript((slow, full)), [site]) as injector:
        injector.wait(10.0)
        assert wrong(site) == set()
    assert [(step.fault, step.ended) for step in injector.done] == [
        (slow, False), (full, False), (full, True), (slow, True),
    ]  # fmt: skip
    assert all(step.at >= step.fault.at for step in injector.done)


def test_who_leaves_early_leaves_nothing_wrong(site: LocalSite) -> None:
    first = Slow(at=0.0, endpoint="alpha", until=1e6)
    never = OutOfMemory(at=1e6, endpoint="alpha", until=2e6)
    with Injector(FaultScript((first, never)), [site]) as injector:
        while not injector.done:
            time.sleep(0.01)
        with pytest.raises(TimeoutError, match="3 steps are left"):
            injector.wait(0.01)
    assert wrong(site) == set()
    assert [step.fault for step in injector.done] == [first, first]


def test_what_fails_is_raised_where_the_injector_is_left(site: LocalSite, tmp_path: object) -> None:
    script = FaultScript((LoseFabric(at=0.0, until=1.0),))
    with (
        pytest.raises(RuntimeError, match="could not be applied"),
        Injector(script, [site], run_dir=str(tmp_path)) as injector,
    ):
        injector.wait(10.0)


def test_a_script_that_does_not_fit_the_sites_is_refused(site: LocalSite) -> None:
    with pytest.raises(ConfigurationError, match="no such site: beta"):
        Injector(FaultScript((LoseNode(at=0.0, endpoint="beta"),)), [site])
    with pytest.raises(ConfigurationError, match="has 2 nodes"):
        Injector(FaultScript((BlackHole(at=0.0, endpoint="alpha", until=1.0, node=2),)), [site])
    with pytest.raises(ConfigurationError, match="run_dir"):
        Injector(FaultScript((LoseFabric(at=0.0, until=1.0),)), [site])
    with pytest.raises(ConfigurationError, match="at least one node"):
        LocalSite("alpha", nodes=0)
    for fault in (LoseConnection(at=0.0), LoseResults(at=0.0, endpoint="alpha", until=1.0)):
        with pytest.raises(ConfigurationError, match="only Globus Compute has this fault"):
            Injector(FaultScript((fault,)), [site])
    with pytest.raises(ConfigurationError, match="no place is given"):
        Injector(FaultScript((LoseConnection(at=0.0),)), [])


class Recorder:
    """A place that writes down what happens to it."""

    def __init__(self, label: str, domain: object, *, knows: bool = True) -> None:
        self.label = label
        self.domain = domain
        self.knows = knows
        self.steps: list[tuple[Fault, str]] = []

    def refuses(self, fault: Fault) -> str | None:
        return None if self.knows else f"{fault.at} is no good"

    def begin(self, fault: Fault) -> None:
        self.steps.append((fault, "begin"))

    def end(self, fault: Fault) -> None:
        self.steps.append((fault, "end"))


def test_a_fault_without_an_endpoint_meets_each_service_once() -> None:
    places = [Recorder("a", 1), Recorder("b", 1), Recorder("c", 2), Recorder("d", 3, knows=False)]
    refuse = Refuse(at=0.0, until=0.01)
    with Injector(FaultScript((refuse, LoseConnection(at=0.02))), places) as injector:
        injector.wait(10.0)
    met = [place.steps for place in places]
    assert met[3] == []
    assert sorted(map(len, met[:2])) == [0, 3]
    assert met[2] == [(refuse, "begin"), (refuse, "end"), (LoseConnection(at=0.02), "begin")]


def test_faults_of_a_kind_that_overlap_end_with_the_last(site: LocalSite) -> None:
    short, long = (Kill(at=0.0, endpoint="alpha", until=until) for until in (1.0, 2.0))
    site.begin(short)
    site.begin(long)
    site.end(short)
    site.begin(Kill(at=0.0, endpoint="alpha"))
    assert site._closed.exists()
    site.end(long)
    assert not site._closed.exists()
    site.begin(Kill(at=0.0, endpoint="alpha"))
    assert not site._closed.exists()


def test_a_function_without_a_place_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(worker_faults.VARIABLE, raising=False)
    assert worker_faults.subject_to_faults(lambda x: x + 1)(1) == 2


def test_the_draws_of_a_flaky_place_are_those_of_its_seed(site: LocalSite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(worker_faults.VARIABLE, str(site._folder))

    def run(seed: int) -> list[bool]:
        site.afflict(Flaky(at=0.0, endpoint="alpha", until=1.0, rate=0.5, seed=seed))
        failed = []
        for _ in range(50):
            try:
                worker_faults.subject_to_faults(int)()
            except worker_faults.FlakyError:
                failed.append(True)
            else:
                failed.append(False)
        for file in site._folder.glob("draws-*"):
            file.unlink()
        return failed

    assert run(1) == run(1) != run(2)
