"""Pareto choice: molecules that no other one beats in both objectives come first."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..settings import Second

Floats = NDArray[np.float64]


def second_cost(values: ArrayLike, second: Second) -> Floats:
    """What a property costs, less is better: how far beyond the limit, or the property itself.

    Args:
        values: of the property, of shape (molecules,); NaN costs infinitely much.
        second: objective.
    """
    cost = second.sign * np.asarray(values, np.float64)
    if second.limit is not None:
        cost = np.maximum(0.0, cost - second.sign * second.limit)
    return np.nan_to_num(cost, nan=np.inf, posinf=np.inf)


def pareto_order(first: ArrayLike, second: ArrayLike) -> NDArray[np.int64]:
    """Order by non-dominated fronts, and within a front those first that have most room to themselves.

    Method: Deb et al. 2002, IEEE Trans. Evol. Comput. 6, 182, sections III-A and III-B; with two objectives a front
    is what is left after one pass over the sorted molecules. Equal ones share a front.

    Args:
        first: objective, less is better, of shape (molecules,).
        second: objective, less is better, of shape (molecules,).
    """
    one, two = np.asarray(first, np.float64), np.asarray(second, np.float64)
    left = np.lexsort((two, one))
    fronts = []
    while len(left):
        on_front = _undominated(one[left], two[left])
        front = left[on_front]
        fronts.append(front[np.argsort(-_room(one[front], two[front]), kind="stable")])
        left = left[~on_front]
    return np.concatenate(fronts) if fronts else left


def _undominated(one: Floats, two: Floats) -> NDArray[np.bool_]:
    """Return the molecules that no earlier one equals or beats in the second objective; sorted by both."""
    before = np.concatenate([[np.inf], np.minimum.accumulate(two)[:-1]])
    fresh = two < before
    fresh[0] = True  # even if its second objective is infinitely bad
    same = np.concatenate([[False], (one[1:] == one[:-1]) & (two[1:] == two[:-1])])
    # A double of an undominated molecule is undominated too.
    starts = np.flatnonzero(~same)
    doubled: NDArray[np.bool_] = fresh[starts][np.cumsum(~same) - 1]
    return doubled


def _room(one: Floats, two: Floats) -> Floats:
    """Crowding distance along a front that is sorted by the first objective."""
    room = np.full(len(one), np.inf)
    for values in (one, two):
        finite = values[np.isfinite(values)]
        width = float(np.ptp(finite)) if len(finite) else 0.0
        if len(values) > 2 and width > 0:  # noqa: PLR2004 - both ends have all the room
            clipped = np.clip(values, finite.min(), finite.max())
            room[1:-1] = np.where(np.isinf(room[1:-1]), 0, room[1:-1]) + np.abs(clipped[2:] - clipped[:-2]) / width
    return room
