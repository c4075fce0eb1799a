from __future__ import annotations

import pytest

from diaspora_parsl.testing.faults import Freeze, Kill, LoseWorker, Slow
from diaspora_parsl.testing.faults.targets import ActiveFaults


def test_what_lasts_is_remembered_until_it_ends() -> None:
    active = ActiveFaults()
    slow, slower = (Slow(at=0.0, endpoint="a", until=1.0, factor=factor) for factor in (2.0, 3.0))
    freeze = Freeze(at=0.0, endpoint="a", until=1.0)
    for fault in (slow, freeze, LoseWorker(at=0.0, endpoint="a"), slower, Kill(at=0.0, endpoint="a")):
        active.begin(fault)
    assert list(active) == [slow, freeze, slower]
    assert active.of(Slow) == [slow, slower]
    assert not active.end(slow)
    assert active.end(slower)
    assert active.end(freeze)
    with pytest.raises(ValueError, match="not in list"):
        active.end(freeze)


def test_the_same_fault_twice_ends_twice() -> None:
    active = ActiveFaults()
    for _ in range(2):
        active.begin(Freeze(at=0.0, endpoint="a", until=1.0))
    assert [active.end(Freeze(at=0.0, endpoint="a", until=1.0)) for _ in range(2)] == [False, True]
