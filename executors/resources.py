"""Resource specifications: what an app asks of a pool."""

from __future__ import annotations

import math
import numbers
import reprlib
from collections.abc import Iterable
from typing import Any, Final, TypedDict

from diaspora_parsl.errors import PlacementError

#: Keys that the pool itself reads: an endpoint that does not know them still takes the task.
POOL_KEYS: Final = frozenset({"priority", "idempotent", "walltime"})


class PoolResourceSpecification(TypedDict, total=False):
    """Keys of ``parsl_resource_specification`` that a pool reads, or that Parsl's executors know.

    Each endpoint gets the keys that it knows, and only endpoints that know a key get the task.
    """

    priority: float
    """Tasks with a lower number go first."""
    walltime: float
    """Seconds that the task takes at most; the pool sends it only where it can end in time."""
    idempotent: bool
    """Whether a second attempt may run beside the first, or after an exception of the user's own code."""
    tags: Iterable[str]
    """Tags that an endpoint must have."""
    cores: int
    """Cores per task, for executors that know it."""
    memory: int
    """MB of memory per task, for executors that know it."""
    disk: int
    """MB of disk per task, for executors that know it."""
    num_nodes: int
    """Nodes of an MPI task."""
    ranks_per_node: int
    """Ranks per node of an MPI task."""
    num_ranks: int
    """Ranks of an MPI task in all."""


def as_dict(given: object) -> dict[str, Any]:
    """Return a copy of a specification.

    Raises:
        PlacementError: It is no dict with strings as keys.
    """
    if given is None:
        return {}
    if not isinstance(given, dict) or not all(type(key) is str for key in given):
        raise PlacementError(f'{reprlib.repr(given)} is no resource specification: write a dict, {{"priority": 1}}.')
    return dict(given)


def priority_of(resources: dict[str, Any]) -> float:
    """Return the ``priority`` of a specification; 0 if it has none.

    Raises:
        PlacementError: It is no number.
    """
    given = resources.get("priority", 0.0)
    number = _finite(given)
    if number is None:
        raise PlacementError(
            f'priority={reprlib.repr(given)} in a resource specification: write a number, {{"priority": 1}}.'
        )
    return number


def take_idempotent(resources: dict[str, Any], default: bool) -> bool:  # noqa: FBT001 - the value of a key
    """Remove ``idempotent`` from a specification and return it.

    Raises:
        PlacementError: It is neither true nor false.
    """
    given = resources.pop("idempotent", default)
    if not isinstance(given, bool):
        raise PlacementError(
            f'idempotent={reprlib.repr(given)} in a resource specification: write {{"idempotent": True}}.'
        )
    return given


def take_walltime(resources: dict[str, Any], kwargs: dict[str, Any]) -> float | None:
    """Remove ``walltime`` from a specification and return it in seconds; else the limit of the Parsl app, if any.

    Raises:
        PlacementError: It is not a number above 0.
    """
    given = resources.pop("walltime", None)
    if given is None:
        limit = _finite(kwargs.get("walltime"))
        return limit if limit is not None and limit > 0 else None
    seconds = _finite(given)
    if seconds is None or seconds <= 0:
        raise PlacementError(
            f'walltime={reprlib.repr(given)} in a resource specification: write seconds, {{"walltime": 3600}}.'
        )
    return seconds


def take_tags(resources: dict[str, Any]) -> frozenset[str]:
    """Remove ``tags`` from a specification and return them.

    Raises:
        PlacementError: They are not an iterable of strings.
    """
    given = resources.pop("tags", ())
    if isinstance(given, str):
        return frozenset({given})
    tags = strings_of(given)
    if tags is None:
        raise PlacementError(f'tags={reprlib.repr(given)} in a resource specification: write {{"tags": ["gpu"]}}.')
    return tags


def strings_of(given: Iterable[Any]) -> frozenset[str] | None:
    """Return the items, if all are strings; None otherwise, and for what cannot be iterated."""
    try:
        items = frozenset(given)
    except Exception:  # noqa: BLE001 - not iterable, or with items that have no hash
        return None
    return items if all(isinstance(item, str) for item in items) else None


def _finite(given: object) -> float | None:
    """Return a finite number as float, and None for everything else, booleans included."""
    if isinstance(given, bool) or not isinstance(given, numbers.Real):
        return None
    try:
        number = float(given)
    except (OverflowError, ValueError):
        return None
    return number if math.isfinite(number) else None
