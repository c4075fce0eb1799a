"""Is a second run worth it before a user's exception is believed, and where? The pure part of second opinions."""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from diaspora_parsl.failures import Failure

#: Places asked about one task at most.
MOST_PLACES: Final = 3


class Sighting(Struct, frozen=True):
    """One place where a task raised."""

    endpoint: str
    node: str
    error: str


def second_run(
    failure: Failure,
    sightings: tuple[Sighting, ...],
    *,
    repeatable: bool,
    has_other: bool,
    elsewhere: bool = False,
    may_repeat: bool = True,
) -> str:
    """Why the task should run once more, at a place where it has not failed; empty if its exception is believed.

    Args:
        failure: of the attempt that just ended, the last of the sightings.
        sightings: where it raised so far, oldest first.
        repeatable: running it twice does no harm.
        has_other: there is, or will soon be, a place where it has not failed.
        elsewhere: the function has never worked at this endpoint, and another one is open: what its nodes agree on may
            be the fault of all of them.
        may_repeat: the budget for extra attempts is not empty.
    """
    if not repeatable or not has_other or not may_repeat or len(sightings) >= MOST_PLACES:
        return ""
    last = sightings[-1]
    same = [one for one in sightings[:-1] if one.error == last.error and one.node != last.node]
    if any(one.endpoint != last.endpoint for one in same) or (same and not elsewhere):
        return ""  # the same from two places: it is the task's own
    return f"second opinion: {failure.error} on {last.node.partition(' ')[0]}, which may be the node's fault"
