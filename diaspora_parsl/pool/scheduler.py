"""Which waiting task goes where, and what every endpoint holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from diaspora_parsl.health.board import Board, State, Verdict
from diaspora_parsl.pool.backlog import Backlog, Line
from diaspora_parsl.pool.tasks import Attempt, AttemptState, Task, TaskState
from diaspora_parsl.pool.words import EndpointSpec, PoolSettings
from diaspora_parsl.routing import Load, Pace

#: Of very many idle endpoints only so many are compared for one task (as in "power of d choices", d is enough).
_COMPARED = 32
#: Busy endpoints asked for room when no slot is idle.
_ASKED = 4
#: Waiting tasks looked at behind one that prefers another place.
LOOKED_PAST = 16


class Scheduler:
    """Binds tasks late: they wait here, and an endpoint holds only what it can start soon.

    Args:
        specs: the endpoints by label.
        settings: of the pool.
        board: asked for breakers and generations.
        dispatched: called with each new attempt and the reason for its place.
    """

    def __init__(
        self,
        specs: dict[str, EndpointSpec],
        settings: PoolSettings,
        board: Board,
        dispatched: Callable[[Attempt, str], None],
    ) -> None:
        self.loads = {label: Load(settings.horizon) for label in specs}
        self.backlog = Backlog(list(specs))
        self.held: dict[str, dict[int, Attempt]] = {label: {} for label in specs}
        self.live = dict.fromkeys(specs, 0)
        #: Endpoints that take attempts without reserve.
        self.open: set[str] = set()
        self.verdicts = dict.fromkeys(specs, Verdict(State.STARTING, "being started"))
        self.pace = Pace()
        self._board = board
        self._dispatched = dispatched
        #: An ordered set, so that a log of stimuli replays to the same actions.
        self._idle: dict[str, None] = {}
        self._asked = list(specs)
        self._next_attempt = 1

    # --- what endpoints hold --------------------------------------------------------------------------------------

    def judged(self, label: str, verdict: Verdict, slots: int) -> None:
        """A new verdict or slot count of an endpoint."""
        self.verdicts[label] = verdict
        self.loads[label].slots = slots
        if verdict.accepts:
            self.open.add(label)
        else:
            self.open.discard(label)
        self._note_idle(label)

    def ended(self, attempt: Attempt, *, succeeded_at: float | None = None) -> None:
        """An attempt came to its end: learn from it and free its slot."""
        label, load, function = attempt.endpoint, self.loads[attempt.endpoint], attempt.task.function
        if attempt.state is AttemptState.BOUND:
            self.live[label] -= 1
            if succeeded_at is None:
                load.failed(function)
            else:
                self.pace.learn(load, function, load.succeeded(function, succeeded_at, attempt.dispatched_at))
        attempt.move(AttemptState.ENDED)
        self.vacate(label, (attempt.id,))

    def superseded(self, attempt: Attempt) -> None:
        """Its outcome is no longer needed; it still occupies its slot until it ends."""
        attempt.move(AttemptState.SUPERSEDED)
        self.live[attempt.endpoint] -= 1

    def vacate(self, label: str, attempts: Iterable[int]) -> None:
        """These attempts, if still there, occupy no slot any more."""
        held, load = self.held[label], self.loads[label]
        for number in attempts:
            attempt = held.pop(number, None)
            if attempt is not None:
                load.release(attempt.work)
        self._note_idle(label)

    def emptied(self, label: str) -> None:
        """The endpoint is gone with all it held; its attempts are superseded already."""
        self.held[label].clear()
        self.loads[label].reset()
        self._note_idle(label)

    def bound(self, label: str) -> list[Attempt]:
        """The attempts there whose outcome is wanted."""
        return [a for a in self.held[label].values() if a.state is AttemptState.BOUND]

    # --- what goes where ------------------------------------------------------------------------------------------

    def place(self, line: Line, function: str, at: float) -> None:
        """A task was added to this line: give some endpoint the chance to take it."""
        best: str | None = None
        best_score = float("inf")
        for count, label in enumerate(self._idle):
            if label in line.eligible:
                score = self.loads[label].score() + (0.0 if label in self.open else 100.0)
                if score < best_score:
                    best, best_score = label, score
            if count >= _COMPARED and best is not None:
                break
        if best is not None:
            self.fill(best, at)
        elif line.length == 1:
            for _ in range(min(_ASKED, len(self._asked))):
                label = self._asked.pop(0)
                self._asked.append(label)
                if label in line.eligible and label in self.open and self.loads[label].has_room(function):
                    self.fill(label, at)
                    return

    def fill(self, label: str, at: float) -> None:
        """Let an endpoint take what it has room for."""
        verdict, load = self.verdicts[label], self.loads[label]
        if not (verdict.accepts or verdict.probe or verdict.last_resort):
            return
        passed: list[tuple[Line, Task]] = []
        while True:
            line = self._next_line(label, verdict)
            if line is None:
                break
            head = line.head()
            if head is None or not load.has_room(head[2].function):
                break
            task = line.pop()
            if task.avoid is not None and label in task.avoid and self._has_alternative(task):
                passed.append((line, task))
                if len(passed) >= LOOKED_PAST:
                    break
                continue
            self._dispatch(task, label, at)
            if verdict.probe:
                self.verdicts[label] = Verdict(verdict.state, verdict.reason)
                break
        for line, task in passed:
            line.push(task)
        self._note_idle(label)

    def _next_line(self, label: str, verdict: Verdict) -> Line | None:
        """The line with the most urgent head that this endpoint may serve now."""
        best: Line | None = None
        best_key: tuple[float, int] | None = None
        for line in self.backlog.of(label):
            if not line.length:
                continue
            if not (verdict.accepts or verdict.probe) and not line.eligible.isdisjoint(self.open):
                continue  # a last resort, and there is another place
            head = line.head()
            if head is not None and (best_key is None or head[:2] < best_key):
                best, best_key = line, head[:2]
        return best

    def _has_alternative(self, task: Task) -> bool:
        return any(other in self.open and other not in (task.avoid or ()) for other in task.eligible)

    def _dispatch(self, task: Task, label: str, at: float) -> None:
        health, load = self._board.health[label], self.loads[label]
        attempt = Attempt(self._next_attempt, task, label, health.generation, at, load.bind(task.function))
        self._next_attempt += 1
        task.attempts += 1
        task.bound = attempt
        task.move(TaskState.RUNNING)
        self.held[label][attempt.id] = attempt
        self.live[label] += 1
        health.breaker.dispatched(at)
        self._dispatched(attempt, self._reason(task, label))

    def _reason(self, task: Task, label: str) -> str:
        verdict, load = self.verdicts[label], self.loads[label]
        if verdict.probe:
            return f"probe: {verdict.reason}"
        if not verdict.accepts:
            return f"last resort, nothing better is up: {verdict.reason}"
        if load.in_flight <= load.slots:
            again = f", elsewhere than {', '.join(sorted(task.avoid))}" if task.avoid else ""
            return f"idle slot, pace {load.pace:.2f}{again}"
        return f"prefetch: {load.in_flight - load.slots} beyond {load.slots} slots"

    @property
    def idle(self) -> list[str]:
        """Endpoints that could take something and have an idle slot."""
        return list(self._idle)

    def _note_idle(self, label: str) -> None:
        verdict = self.verdicts[label]
        if (verdict.accepts or verdict.probe or verdict.last_resort) and self.loads[label].has_idle_slot():
            self._idle[label] = None
        else:
            self._idle.pop(label, None)
