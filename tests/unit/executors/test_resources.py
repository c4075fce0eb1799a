"""Values of a resource specification are refused at submit with a sentence, or are what the core expects."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diaspora_parsl.errors import PlacementError
from diaspora_parsl.executors.resources import as_dict, priority_of, take_idempotent, take_tags, take_walltime

_ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.text(),
    st.floats(),
    st.integers(),
    st.binary(),
    st.complex_numbers(),
    st.fractions(),
    st.decimals(),
    st.lists(st.integers()),
    st.dictionaries(st.text(), st.integers()),
)


class Hostile:
    """Raises whatever is done to it."""

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        raise RuntimeError("no text")

    def __iter__(self) -> Any:
        raise RuntimeError("no items")

    def __float__(self) -> float:
        raise RuntimeError("no number")

    def __bool__(self) -> bool:
        raise RuntimeError("no truth")


@given(st.one_of(_ODD, st.builds(Hostile)))
def test_a_priority_is_a_finite_number_or_refused(value: Any) -> None:
    try:
        number = priority_of({"priority": value})
    except PlacementError:
        return
    assert type(number) is float
    assert math.isfinite(number)


@pytest.mark.parametrize("value", ["high", math.nan, math.inf, None, {}, [], True, 10**400, Decimal(1), Hostile()])
def test_what_no_queue_can_sort_is_no_priority(value: Any) -> None:
    with pytest.raises(PlacementError, match="priority="):
        priority_of({"priority": value})


@pytest.mark.parametrize(("value", "number"), [(3, 3.0), (-0.5, -0.5), (Fraction(1, 2), 0.5)])
def test_numbers_are_priorities(value: Any, number: float) -> None:
    assert priority_of({"priority": value}) == number
    assert priority_of({}) == 0.0


@given(st.one_of(_ODD, st.builds(Hostile)))
def test_a_walltime_is_seconds_above_zero_or_refused(value: Any) -> None:
    try:
        seconds = take_walltime({"walltime": value}, {})
    except PlacementError:
        return
    assert seconds is None if value is None else seconds is not None and 0 < seconds < math.inf


@given(st.one_of(_ODD, st.builds(Hostile)))
def test_a_walltime_of_an_app_that_is_no_time_is_left_to_parsl(value: Any) -> None:
    seconds = take_walltime({}, {"walltime": value})
    assert seconds is None or 0 < seconds < math.inf


@given(st.one_of(_ODD, st.builds(Hostile), st.lists(st.lists(st.text()), min_size=1)))
def test_tags_are_strings_or_refused(value: Any) -> None:
    try:
        tags = take_tags({"tags": value})
    except PlacementError:
        return
    assert all(isinstance(tag, str) for tag in tags)


@pytest.mark.parametrize("value", ["yes", 1, None, Hostile()])
def test_idempotent_is_true_or_false(value: Any) -> None:
    with pytest.raises(PlacementError, match="idempotent="):
        take_idempotent({"idempotent": value}, True)
    assert take_idempotent({"idempotent": False}, True) is False
    assert take_idempotent({}, True) is True


@pytest.mark.parametrize("value", ["priority", ["priority"], {1: 2}, 5, Hostile()])
def test_a_specification_is_a_dict_with_strings_as_keys(value: Any) -> None:
    with pytest.raises(PlacementError, match="write a dict"):
        as_dict(value)
    assert as_dict(None) == {}
