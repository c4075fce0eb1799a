from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from diaspora_parsl.campaigns.screening.selection.pareto import pareto_order, second_cost
from diaspora_parsl.campaigns.screening.settings import Second

POINTS = st.lists(st.tuples(st.integers(-5, 5), st.integers(-5, 5)), max_size=40)


def dominates(one: tuple[int, int], other: tuple[int, int]) -> bool:
    return one != other and one[0] <= other[0] and one[1] <= other[1]


@given(POINTS)
def test_nothing_comes_before_what_beats_it_in_both(points: list[tuple[int, int]]) -> None:
    order = pareto_order([one for one, _ in points], [two for _, two in points])
    assert sorted(order) == list(range(len(points)))
    ordered = [points[place] for place in order]
    for place, point in enumerate(ordered):
        assert not any(dominates(later, point) for later in ordered[place + 1 :])


@given(POINTS.filter(bool))
def test_the_whole_front_comes_first(points: list[tuple[int, int]]) -> None:
    front = {place for place, point in enumerate(points) if not any(dominates(other, point) for other in points)}
    order = pareto_order([one for one, _ in points], [two for _, two in points])
    assert set(order[: len(front)].tolist()) == front


def test_ends_of_a_front_and_lonely_places_come_first() -> None:
    order = pareto_order([0, 1, 2, 6, 10], [10, 9, 8, 4, 0])
    assert order.tolist()[:3] == [0, 4, 3]


def test_costs() -> None:
    values = [400.0, 500.0, 530.0, np.nan]
    assert second_cost(values, Second("mw", 1, 500.0)).tolist() == [0, 0, 30, np.inf]
    assert second_cost(values, Second("mw", -1, 500.0)).tolist() == [100, 0, 0, np.inf]
    assert second_cost(values, Second("mw", -1, None)).tolist() == [-400, -500, -530, np.inf]


def test_infinite_costs_come_last_in_the_order_of_the_first_objective() -> None:
    assert pareto_order([1, 2, 3, 0], [np.inf, np.inf, 0, 1]).tolist() == [3, 2, 0, 1]
