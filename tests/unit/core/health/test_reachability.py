from __future__ import annotations

import pytest

from diaspora_parsl.core.health.assessor import HealthAssessor, State, Verdict
from diaspora_parsl.core.settings import PoolSettings


class Far:
    """A near endpoint, and a far one behind two bridges; both up since time 0, on a virtual clock."""

    def __init__(self, interval: float) -> None:
        self.interval = interval
        self.assessor = HealthAssessor({"near": "anl", "far": "uc"}, PoolSettings(acceptable_pause=2.5))
        for label in ("near", "far"):
            self.assessor.health[label].started_at = 0.0
            self.assessor.observed(label, 0.0, 4, blocks_expected=True)
        self.now = 0.0
        self.worst: dict[str, State] = {}

    def run(self, seconds: float, *, near: bool = True, far: bool = True, line: bool = True) -> None:
        """Let time pass; ``near`` and ``far`` send heartbeats if True; ``line``: the link of the bridge is open."""
        for _ in range(int(seconds * 4)):
            self.now += 0.25
            if near and self.now % 1.0 == 0:
                self.assessor.record_heartbeat("near", "block/node", self.now, 1.0)
            if line and self.now % self.interval == 0:
                if far:
                    self.assessor.record_heartbeat("far", "block/node", self.now, self.interval, "uc")
                self.assessor.reachability.record_bridge_poll("uc", self.now, self.interval)
            self.assessor.fabric_polled(self.now)

    def verdict(self, label: str) -> Verdict:
        return self.assessor.verdict(label, self.now, 1, lambda: True)


@pytest.fixture(params=[1.0, 10.0])
def far(request: pytest.FixtureRequest) -> Far:
    far = Far(request.param)
    far.run(60)
    assert far.verdict("far").reason == "4 slots"
    return far


def test_a_cut_link_makes_no_endpoint_suspect(far: Far) -> None:
    for _ in range(240):
        far.run(0.5, line=False)
        assert far.verdict("far").state is State.UP
        assert far.verdict("near").reason == "4 slots"
    assert far.verdict("far").reason == "4 slots; no event arrives from uc, whose link may be cut"
    far.run(2 * far.interval)
    assert far.verdict("far").reason == "4 slots"


def test_a_dead_endpoint_behind_an_open_link_is_suspect(far: Far) -> None:
    far.run(5 * far.interval, far=False)
    verdict = far.verdict("far")
    assert verdict.state is State.DOWN
    assert verdict.reason.startswith("no heartbeat for ")
    assert far.verdict("near").state is State.UP


def test_a_death_behind_a_cut_link_is_detected_when_the_link_is_mended(far: Far) -> None:
    far.run(120, far=False, line=False)
    assert far.verdict("far").state is State.UP
    far.run(far.interval, far=False)
    assert far.verdict("far").state is State.UP, "it has the same time for a heartbeat as before"
    far.run(5 * far.interval, far=False)
    assert far.verdict("far").state is State.DOWN


def test_a_cut_link_hides_no_death_at_this_site(far: Far) -> None:
    far.run(30, near=False, line=False)
    assert far.verdict("near").state is State.DOWN
    assert far.verdict("far").state is State.UP


def test_a_path_without_reports_of_its_bridge_makes_no_endpoint_suspect() -> None:
    far = Far(1.0)
    far.assessor.record_heartbeat("far", "block/node", 0.0, 1.0, "elsewhere")
    far.run(60, line=False)
    assert far.verdict("far").state is State.UP


def test_paths_of_no_endpoint_are_not_kept(far: Far) -> None:
    for number in range(100):
        far.assessor.reachability.record_bridge_poll(f"site-{number}", far.now, 1.0)
    assert set(far.assessor.reachability._bridged) == {"uc"}
