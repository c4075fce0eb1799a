from __future__ import annotations

import pytest

from diaspora_parsl.campaigns.screening.budget import Budget, Spending, seconds_of
from diaspora_parsl.errors import ConfigurationError


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1800), ("2h", 7200), ("1d", 86400), ("1h30m", 5400), ("0.5h", 1800)]
)
def test_durations(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "2", "2 h", "h", "-1h", "1w"])
def test_no_durations(text: str) -> None:
    with pytest.raises(ConfigurationError, match="Write 90s"):
        seconds_of(text)


def test_a_budget_must_end_somewhere() -> None:
    with pytest.raises(ConfigurationError, match="When shall the campaign end"):
        Budget()
    with pytest.raises(ConfigurationError, match="more than 0"):
        Budget(molecules=10, cpu_hours=0)


def test_cpu_hours_count_what_is_in_flight() -> None:
    spending = Spending(Budget(cpu_hours=100 / 3600), began=0.0)
    assert spending.affords_more(1000, 0.0)  # nothing is known yet
    for _ in range(6):
        spending.count(10.0)
    assert spending.affords_more(3, 50.0)
    assert not spending.affords_more(4, 50.0)
    assert spending.left(4, 50.0) == {"cpu_hours": 0.0}


def test_wall_time_goes_on_in_a_later_session() -> None:
    spending = Spending(Budget(molecules=5, wall_time=100), began=1000.0, earlier=60.0)
    spending.count(10.0)
    assert spending.affords_more(2, 1029.0)
    assert not spending.affords_more(2, 1031.0)
    assert spending.left(0, 1030.0) == {"wall_time": 10.0}
