from __future__ import annotations

from itertools import pairwise

import pytest

from diaspora_parsl.errors import ConfigurationError
from diaspora_parsl.testing.faults import (
    BlackHole,
    ClockJump,
    Fault,
    FaultScript,
    Flaky,
    ForgetResults,
    Freeze,
    Kill,
    LoseBroker,
    LoseConnection,
    LoseFabric,
    LoseNode,
    LoseResults,
    LoseWorker,
    Mute,
    OutOfMemory,
    PlaceFault,
    Refuse,
    RepeatResults,
    Slow,
    WrongEnvironment,
    WrongStatus,
)

ALL: tuple[type[Fault], ...] = (
    Kill, LoseNode, LoseWorker, Freeze, Mute, Slow, Flaky, BlackHole, WrongEnvironment, OutOfMemory, LoseFabric,
    ClockJump, Refuse, LoseResults, RepeatResults, WrongStatus, LoseConnection, LoseBroker, ForgetResults,
)  # fmt: skip
SITES = {f"site{i}": [f"e{i}{j}" for j in range(5)] for i in range(20)}


def test_a_script_comes_in_order_of_time() -> None:
    script = FaultScript((Kill(at=5.0, endpoint="a"), LoseFabric(at=1.0, until=2.0)))
    assert [fault.at for fault in script] == [1.0, 5.0]
    assert len(script) == 2


def test_a_drawn_script_depends_on_its_seed_only() -> None:
    first, again, other = (FaultScript.drawn(s, ["a", "b"], count=50, seconds=100.0) for s in (1, 1, 2))
    assert first == again != other
    assert len({type(fault) for fault in first}) == 6


def test_a_script_survives_json() -> None:
    script = FaultScript.drawn(1, ["a"], count=400, seconds=10.0, kinds=ALL)
    assert {type(fault) for fault in script} == set(ALL)
    assert FaultScript.from_json(script.to_json()) == script


def test_wrong_scripts_are_refused_with_a_sentence() -> None:
    with pytest.raises(ConfigurationError, match="give `until` >= `at`"):
        FaultScript((Freeze(at=5.0, endpoint="a", until=4.0),))
    with pytest.raises(ConfigurationError, match="give `at` >= 0"):
        FaultScript((Kill(at=-1.0, endpoint="a"),))
    with pytest.raises(ConfigurationError, match="not a fault script"):
        FaultScript.from_json(b'{"faults": [{"type": "Earthquake"}]}')
    with pytest.raises(ConfigurationError, match="not a fault script"):
        FaultScript.from_json(b"faults:")


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (Flaky(at=0.0, endpoint="a", until=1.0, rate=1.5), "give `rate` from 0 to 1"),
        (Slow(at=0.0, endpoint="a", until=1.0, factor=0.5), "give `factor` >= 1"),
        (ClockJump(at=0.0, seconds=0.0), "give `seconds` > 0"),
        (LoseNode(at=0.0, endpoint="a", node=-1), "give `node` >= 0"),
        (LoseResults(at=0.0, endpoint="a", until=1.0, rate=-0.1), "give `rate` from 0 to 1"),
        (RepeatResults(at=0.0, endpoint="a", until=1.0, rate=2.0), "give `rate` from 0 to 1"),
        (Refuse(at=0.0, until=1.0, status=200), "give `status` from 400 to 599"),
        (Refuse(at=0.0, until=1.0, delay=-1.0), "`delay` >= 0"),
        (LoseBroker(at=2.0, until=1.0), "give `until` >= `at`"),
    ],
)
def test_impossible_faults_are_refused(fault: Fault, sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        FaultScript((fault,))


def test_a_script_names_the_endpoints_that_it_needs() -> None:
    script = FaultScript((Kill(at=0.0, endpoint="a"), Refuse(at=0.0, until=1.0), LoseConnection(at=0.0)))
    assert script.endpoints() == {"a"}
    assert (script + FaultScript((Refuse(at=0.0, until=1.0, endpoint="b"),))).endpoints() == {"a", "b"}


def test_a_clustered_script_depends_on_its_seed_only() -> None:
    first, again, other = (FaultScript.clustered(s, SITES, seconds=1e5, between=1e4) for s in (1, 1, 2))
    assert first == again != other
    assert all(fault.at < 1e5 for fault in first)


def test_failures_come_in_clusters() -> None:
    def soon_again(again: float) -> float:
        script = FaultScript.clustered(1, SITES, seconds=1e6, between=1e5, again=again, soon=60.0, together=0.0)
        times: dict[str, list[float]] = {}
        for fault in script:
            assert isinstance(fault, PlaceFault)
            times.setdefault(fault.endpoint, []).append(fault.at)
        gaps = [b - a for of in times.values() for a, b in pairwise(of)]
        return sum(gap < 300.0 for gap in gaps) / len(gaps)

    assert soon_again(0.0) < 0.02
    assert soon_again(0.5) > 0.3


def test_some_failures_take_the_whole_site_along() -> None:
    script = FaultScript.clustered(1, SITES, seconds=1e5, between=1e4, together=0.2)
    at_once: dict[float, set[str]] = {}
    for fault in script:
        assert isinstance(fault, Kill | Freeze | LoseWorker)
        at_once.setdefault(fault.at, set()).add(fault.endpoint)
    outages = [labels for labels in at_once.values() if len(labels) > 1]
    assert len(outages) > 10
    assert all(sorted(labels) in SITES.values() for labels in outages)
    with pytest.raises(ConfigurationError, match="`again` from 0 to below 1"):
        FaultScript.clustered(1, SITES, seconds=1.0, between=1.0, again=1.0)
