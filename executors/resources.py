"""Resource specifications: what an app asks of a pool."""

from __future__ import annotations

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


def take_walltime(resources: dict[str, Any], kwargs: dict[str, Any]) -> float | None:
    """Remove ``walltime`` from a specification and return it in seconds; else the limit of the Parsl app, if any.

    Raises:
        PlacementError: it is not a number above 0.
    """
    given = resources.pop("walltime", None)
    if given is None:
        limit = kwargs.get("walltime")
        return float(limit) if isinstance(limit, int | float) and not isinstance(limit, bool) and limit > 0 else None
    if isinstance(given, bool) or not isinstance(given, int | float) or given <= 0:
        raise PlacementError(f'walltime={given!r} in a resource specification: write seconds, {{"walltime": 3600}}.')
    return float(given)


def take_tags(resources: dict[str, Any]) -> frozenset[str]:
    """Remove ``tags`` from a specification and return them.

    Raises:
        PlacementError: they are not an iterable of strings.
    """
    tags = resources.pop("tags", ())
    if isinstance(tags, str):
        return frozenset({tags})
    try:
        return frozenset(tags)
    except TypeError:
        raise PlacementError(f'tags={tags!r} in a resource specification: write {{"tags": ["gpu"]}}.') from None
