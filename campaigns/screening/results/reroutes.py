"""What happened to the tasks: reroutes, faults and the three sentences about them, joined from ledger and fabric."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from diaspora_parsl.events import EndpointPayload, Event, TaskDispatched, TaskFinished, TaskRerouted

from ..records import Row


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """Something that was done to a site on purpose."""

    at: float
    """Unix time."""
    site: str
    what: Literal["killed", "restored", "frozen", "thawed"]


@dataclass(frozen=True, kw_only=True, slots=True)
class LostAttempt:
    """An attempt that was given up; its task went elsewhere."""

    task: int
    dispatched: float
    given_up: float
    site: str
    endpoint: str
    reason: str
    next_site: str
    """Where the task was sent next; empty if the events do not say."""
    next_start: float | None
    """Start of the task there: from the worker if the ledger has it, else the time of dispatch."""
    molecule: str
    session: int = 1
    """Of the campaign; the pool of each numbers its tasks from 1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EndpointChange:
    """One change of state of an endpoint."""

    at: float
    endpoint: str
    site: str
    state: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Story:
    """Reroutes and lost attempts, from the events."""

    lost_attempts: tuple[LostAttempt, ...] = ()
    endpoint_changes: tuple[EndpointChange, ...] = ()

    @property
    def rerouted_tasks(self) -> int:
        """Tasks that had to go elsewhere at least once."""
        return len({(attempt.session, attempt.task) for attempt in self.lost_attempts})

    def came_back(self, fault: Fault) -> bool:
        """Whether the site of a fault took attempts again after it."""
        return any(
            change.state == "up" and fault.site in (change.site, change.endpoint) and change.at >= fault.at
            for change in self.endpoint_changes
        )

    def first_start_after(self, fault: Fault) -> float | None:
        """Seconds from a fault to the first start, elsewhere, of a task that it took; None if it took none."""
        starts = [
            attempt.next_start - fault.at
            for attempt in self.lost_attempts
            if attempt.next_start is not None and attempt.next_start >= fault.at
            if fault.site in (attempt.site, attempt.endpoint) and attempt.given_up >= fault.at
        ]
        return min(starts, default=None)


def build_story(events: Iterable[Event], rows: Sequence[Row], session: int = 1) -> Story:
    """Join the events of a pool with the rows that one session of a campaign settled on it."""
    row_of = {row.pool_task: row for row in rows if row.pool_task is not None}
    dispatched: dict[int, list[tuple[float, TaskDispatched]]] = {}
    given_up: list[tuple[float, TaskRerouted]] = []
    finished: dict[int, int] = {}
    changes: list[EndpointChange] = []
    for event in events:
        payload, at = event.payload(), datetime.fromisoformat(event.time).timestamp()
        match payload:
            case TaskDispatched():
                dispatched.setdefault(payload.task, []).append((at, payload))
            case TaskRerouted():
                given_up.append((at, payload))
            case TaskFinished():
                finished[payload.task] = payload.attempt
            case EndpointPayload():
                state = type(payload).__name__.removeprefix("Endpoint").lower()
                changes.append(
                    EndpointChange(
                        at=at, endpoint=payload.endpoint, site=payload.site, state=state, reason=payload.reason
                    )
                )
            case _:
                pass
    attempts = []
    for at, gone in given_up:
        history = dispatched.get(gone.task, [])
        begun = next((when for when, sent in history if sent.attempt == gone.attempt), at)
        later = [(when, sent) for when, sent in history if sent.attempt > gone.attempt]
        when, after = min(later, key=lambda one: one[1].attempt, default=(None, None))
        row = row_of.get(gone.task)
        won = after is not None and finished.get(gone.task) == after.attempt
        attempts.append(
            LostAttempt(
                task=gone.task,
                dispatched=begun,
                given_up=at,
                site=gone.site,
                endpoint=gone.endpoint,
                reason=gone.reason,
                next_site=after.site if after else "",
                next_start=row.started if row is not None and row.started and won else when,
                molecule=row.name if row is not None else f"task {gone.task}",
                session=session,
            )
        )
    return Story(
        lost_attempts=tuple(sorted(attempts, key=lambda one: one.given_up)),
        endpoint_changes=tuple(sorted(changes, key=lambda one: one.at)),
    )


def together(stories: Iterable[Story]) -> Story:
    """The stories of all sessions, one after the other."""
    reported = list(stories)
    return Story(
        lost_attempts=tuple(attempt for story in reported for attempt in story.lost_attempts),
        endpoint_changes=tuple(change for story in reported for change in story.endpoint_changes),
    )


def at_their_sites(rows: Sequence[Row], events: Iterable[Event]) -> list[Row]:
    """The rows, those of workers that have no name for their site with what the pool calls it."""
    finished = (payload for event in events if isinstance(payload := event.payload(), TaskFinished))
    site_of: dict[int | None, str] = {payload.task: payload.site for payload in finished}
    return [replace(row, site=site_of.get(row.pool_task, row.site)) if row.site == row.host else row for row in rows]


def sentences(submitted: int, lost: int, story: Story, faults: Sequence[Fault]) -> list[str]:
    """What happened, in as many sentences as it takes: three if a site was killed."""
    said = [f"{submitted} {_plural(submitted, 'task was', 'tasks were')} submitted, {lost} lost."]
    kills = [fault for fault in faults if fault.what == "killed"]
    count = story.rerouted_tasks
    if not kills:
        return [*said, f"{count} {_plural(count, 'task was', 'tasks were')} rerouted."]
    names = " and ".join(dict.fromkeys(fault.site for fault in kills))
    said.append(
        f"{count} {_plural(count, 'task was', 'tasks were')} rerouted after {names} was killed without warning"
        + (" and later came back." if any(f.what == "restored" and story.came_back(f) for f in faults) else ".")
    )
    delays = [delay for fault in kills if (delay := story.first_start_after(fault)) is not None]
    if delays:
        said.append(f"From the kill to the first start of a rerouted task it took {max(delays):.1f} seconds.")
    else:
        said.append("No task had to start again elsewhere: the killed site held none.")
    return said


def _plural(count: int, one: str, many: str) -> str:
    return one if count == 1 else many
