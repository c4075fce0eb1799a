from __future__ import annotations

import pytest

from diaspora_parsl.testing.faults import Freeze, Kill, LoseWorker, Slow
from diaspora_parsl.testing.faults.targets import Troubles


def test_what_lasts_is_remembered_until_it_ends() -> None:
    troubles = Troubles()
    slow, slower = (Slow(at=0.0, endpoint="a", until=1.0, factor=factor) for factor in (2.0, 3.0))
    freeze = Freeze(at=0.0, endpoint="a", until=1.0)
    for fault in (slow, freeze, LoseWorker(at=0.0, endpoint="a"), slower, Kill(at=0.0, endpoint="a")):
        troubles.begin(fault)
    assert list(troubles) == [slow, freeze, slower]
    assert troubles.of(Slow) == [slow, slower]
    assert not troubles.end(slow)
    assert troubles.end(slower)
    assert troubles.end(freeze)
    with pytest.raises(ValueError, match="not in list"):
        troubles.end(freeze)


def test_the_same_fault_twice_ends_twice() -> None:
    troubles = Troubles()
    for _ in range(2):
        troubles.begin(Freeze(at=0.0, endpoint="a", until=1.0))
    assert [troubles.end(Freeze(at=0.0, endpoint="a", until=1.0)) for _ in range(2)] == [False, True]
