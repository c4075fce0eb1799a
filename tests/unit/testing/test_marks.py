from __future__ import annotations

from typing import Any

import pytest

from diaspora_parsl.errors import ConfigurationError
from diaspora_parsl.testing.faults import FaultScript, Freeze, Kill
from diaspora_parsl.testing.marks import describe, script_of

KILL = Kill(at=2.0, endpoint="alpha")
DRAWN = {"seed": 7, "count": 3, "seconds": 20.0, "endpoints": ["alpha", "beta"]}


def test_faults_are_taken_as_they_are() -> None:
    assert script_of([((KILL,), {})]) == (FaultScript((KILL,)), None)
    assert script_of([], seed=3) == (FaultScript(), None)


def test_the_same_seed_gives_the_same_script_and_another_overrides_it() -> None:
    script, seed = script_of([((KILL,), {}), ((), DRAWN)])
    assert seed == 7
    assert script == FaultScript((KILL,)) + FaultScript.drawn(7, ["alpha", "beta"], count=3, seconds=20.0)
    other, seed = script_of([((), DRAWN)], seed=8)
    assert (other, seed) == (FaultScript.drawn(8, ["alpha", "beta"], count=3, seconds=20.0), 8)
    assert script_of([((), {**DRAWN, "kinds": [Kill]})])[0].faults[0].__class__ is Kill


@pytest.mark.parametrize(
    ("args", "kwargs", "sentence"),
    [
        (("alpha",), {}, "give faults, such as"),
        ((), {}, "give faults, such as"),
        ((), {"seed": 7}, "faults are drawn from `count`"),
        ((), {**DRAWN, "sites": 1}, "faults are drawn from `count`"),
    ],
)
def test_what_a_mark_cannot_mean_is_refused(args: tuple[Any, ...], kwargs: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        script_of([(args, kwargs)])


def test_a_script_is_described_as_it_can_be_written() -> None:
    text = describe(FaultScript((Freeze(at=1.23456, endpoint="beta", until=2.0), KILL)), 7)
    first, *faults = text.splitlines()
    assert "pytest --fault-seed 7" in first
    assert faults == ["Freeze(at=1.235, endpoint='beta', until=2.0),", "Kill(at=2.0, endpoint='alpha'),"]
    assert describe(FaultScript((KILL,)), None) == "Kill(at=2.0, endpoint='alpha'),"
