from __future__ import annotations

import pytest

from diaspora_parsl.errors import ConfigurationError
from diaspora_parsl.testing.faults import FaultScript, Freeze, Kill, LoseFabric


def test_a_script_comes_in_order_of_time() -> None:
    script = FaultScript((Kill(at=5.0, endpoint="a"), LoseFabric(at=1.0, until=2.0)))
    assert [fault.at for fault in script] == [1.0, 5.0]
    assert len(script) == 2


def test_a_drawn_script_depends_on_its_seed_only() -> None:
    first, again, other = (FaultScript.drawn(s, ["a", "b"], count=50, seconds=100.0) for s in (1, 1, 2))
    assert first == again != other
    assert len({type(fault) for fault in first}) == 6


def test_a_script_survives_json() -> None:
    script = FaultScript.drawn(1, ["a"], count=20, seconds=10.0)
    assert FaultScript.from_json(script.to_json()) == script


def test_wrong_scripts_are_refused_with_a_sentence() -> None:
    with pytest.raises(ConfigurationError, match="give `until` >= `at`"):
        FaultScript((Freeze(at=5.0, endpoint="a", until=4.0),))
    with pytest.raises(ConfigurationError, match="give `at` >= 0"):
        FaultScript((Kill(at=-1.0, endpoint="a"),))
    with pytest.raises(ConfigurationError, match="not a fault script"):
        FaultScript.from_json(b'{"faults": [{"type": "Earthquake"}]}')
