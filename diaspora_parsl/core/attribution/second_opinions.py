"""Second opinions: compare what a task raises at two endpoints, and keep evidence per function and endpoint."""

from __future__ import annotations

import math
from collections.abc import Callable

from diaspora_parsl.core.failures import ALL_RETRIES, Attribution, Failure, FailureAction, Kind
from diaspora_parsl.core.settings import EndpointSpec, PoolSettings
from diaspora_parsl.core.tasks import Attempt, Opinion, Task

#: Upper bound of the second opinions on one task; each endpoint may raise another error.
MOST_OPINIONS = 3
#: Score above which a function avoids an endpoint.
_BAD = 0.5
#: Score below which evidence is dropped.
_FAINT = 0.05
#: Score of one refuted failure: where the function never succeeded, and where it has.
_SINGLE, _AFTER_SUCCESS = 1.0, 0.4
_MOST = 8.0
_WHERE = {
    FailureAction.ANYWHERE: "again",
    FailureAction.ELSEWHERE: "elsewhere",
    FailureAction.MORE: "where there is more memory",
}


class _Record:
    """Evidence against one endpoint for one function."""

    __slots__ = ("at", "banned_until", "pending", "score", "until")

    def __init__(self) -> None:
        #: Number of pending second opinions.
        self.pending = 0
        self.banned_until = float("-inf")
        #: Score at the time ``at``; it fades.
        self.score = 0.0
        self.at = 0.0
        #: Time until which the score is above `_BAD`.
        self.until = float("-inf")


class SecondOpinions:
    """Decides whether an error is delivered, and keeps evidence of functions that fail at an endpoint.

    Two runs distinguish a task's own error from an endpoint's: the same error at two endpoints is the task's own, and a
    success at the second is evidence against the first. Evidence fades.

    Args:
        specs: Endpoints by label.
        settings: Settings of the pool.
        may_recover: Returns whether a task may wait for an endpoint at a time.
        is_up: Returns whether an endpoint accepts attempts.
        may_repeat: Returns whether the retry budget allows another run at a time.
    """

    def __init__(
        self,
        specs: dict[str, EndpointSpec],
        settings: PoolSettings,
        *,
        may_recover: Callable[[str, float], bool],
        is_up: Callable[[str], bool],
        may_repeat: Callable[[float], bool] = lambda _: True,
    ) -> None:
        self._specs = specs
        self._settings = settings
        self._may_recover = may_recover
        self._is_up = is_up
        self.may_repeat = may_repeat
        #: Evidence by label and function; empty while nothing failed, so that queries are cheap.
        self.records: dict[tuple[str, str], _Record] = {}
        #: Tasks whose first error is kept, by id, oldest first.
        self.open: dict[int, Task] = {}

    # --- one task -------------------------------------------------------------------------------------------------

    def ask(self, attempt: Attempt, failure: Failure, at: float, *, worked: bool) -> str | Attribution:
        """Decide on the error of an attempt.

        Args:
            attempt: The attempt that ended.
            failure: Its classified error.
            at: Current time in seconds.
            worked: Whether the last attempt of the function succeeded there.

        Returns:
            The reason to run the task again, or the attribution with which it fails.
        """
        task, label = attempt.task, attempt.endpoint
        earlier = dict(task.opinion.places) if task.opinion is not None else {}
        attribution = self._after_one_run(task, failure)
        if attribution is None:
            opinion = self.note(attempt, failure, at, worked=worked)
            attribution = self._after_other_runs(opinion, attempt, failure, earlier, at)
            if attribution is None:
                opinion.asked += 1
                if opinion.kept is None:
                    opinion.kept, opinion.failure = attempt, failure
                    self.open[task.id] = task
                if failure.then is FailureAction.ELSEWHERE:
                    self._ban(opinion, label, task.function, at)
                return f"second opinion: {failure} at {label}, so it runs {_WHERE[failure.then]}"
        return attribution

    def _after_one_run(self, task: Task, failure: Failure) -> Attribution | None:
        """Return the attribution that needs no second run, if any."""
        charge = 1.0 if failure.charge else 0.0
        if failure.then is FailureAction.FAIL:
            return Attribution(failure.kind if failure.kind is Kind.POISON else _own(failure), ALL_RETRIES)
        if failure.raised and not task.idempotent:
            return Attribution(failure.kind, charge, "the task is not idempotent")
        if failure.raised and not self._settings.second_opinion:
            return Attribution(failure.kind, charge, "second opinions are off")
        return None

    def _after_other_runs(
        self, opinion: Opinion, attempt: Attempt, failure: Failure, earlier: dict[str, str], at: float
    ) -> Attribution | None:
        """Return the attribution that follows from the runs at all endpoints, if any."""
        task, label, charge = attempt.task, attempt.endpoint, 1.0 if failure.charge else 0.0
        if failure.then is FailureAction.MORE and opinion.need is not None:
            if not any(self._fits(task, other, at) for other in task.eligible):
                text = f"it ran out of memory with {opinion.need:g} GB per slot at {label}, and there is no more now"
                return Attribution(Kind.RESOURCE, ALL_RETRIES, text)
        elif failure.then is not FailureAction.ANYWHERE:
            same = [other for other, error in earlier.items() if error == failure.error and other != label]
            if same:
                return Attribution(_own(failure), ALL_RETRIES, f"{failure.error} came from {same[0]} and from {label}")
            if not any(self._fits(task, other, at) for other in task.eligible):
                return Attribution(failure.kind, charge, "no other endpoint can verify it now")
        if opinion.asked >= MOST_OPINIONS:
            return Attribution(_own(failure), charge, f"it failed {opinion.asked + 1} times")
        spent = task.attempts >= self._settings.max_attempts
        if spent or not self.may_repeat(at):
            why = f"it had {task.attempts} attempts" if spent else "the retry budget is empty"
            return Attribution(failure.kind, charge, why)
        return None

    def note(self, attempt: Attempt, failure: Failure, at: float, *, worked: bool = False) -> Opinion:
        """Record the endpoint where a task failed."""
        task, label = attempt.task, attempt.endpoint
        opinion = task.opinion
        if opinion is None:
            opinion = task.opinion = Opinion(at, self._settings)
        if failure.then is not FailureAction.ANYWHERE:
            opinion.places[label] = failure.error
        if worked:
            opinion.worked.add(label)
        memory = self._specs[label].mem_per_worker
        if failure.then is FailureAction.MORE and memory is not None:
            opinion.need = max(memory, opinion.need or 0.0)
        return opinion

    def bars(self, task: Task, label: str, at: float) -> bool:
        """Whether a task whose first error is kept must not run at this endpoint."""
        opinion = task.opinion
        if opinion is None or opinion.kept is None:
            return False
        if not self._suits(opinion, label):
            return True
        # Prefer another site for a while: endpoints of one site may share the fault.
        if at >= opinion.local_until:
            return False
        sites = {self._specs[place].site or place for place in opinion.places}
        return (self._specs[label].site or label) in sites and any(
            self._suits(opinion, other) and (self._specs[other].site or other) not in sites and self._is_up(other)
            for other in task.eligible
        )

    def opinion_endpoints(self, task: Task) -> frozenset[str]:
        """Return the eligible endpoints; of a task whose first error is kept, only those that can verify it."""
        opinion = task.opinion
        if opinion is None or opinion.kept is None:
            return task.eligible
        return frozenset(label for label in task.eligible if self._suits(opinion, label))

    def is_unverifiable(self, task: Task, at: float) -> bool:
        """Whether no endpoint can give the second opinion on this task."""
        opinion = task.opinion
        if opinion is None or opinion.kept is None:
            return False
        return not any(self._fits(task, other, at) for other in task.eligible)

    def first(self, task: Task) -> tuple[Attempt, Failure] | None:
        """Return the kept first attempt of this task and its failure."""
        opinion = task.opinion
        if opinion is None or opinion.kept is None or opinion.failure is None:
            return None
        return opinion.kept, opinion.failure

    def close(self, task: Task) -> list[str]:
        """End the opinions on a settled task; return the endpoints that may run its function again."""
        self.open.pop(task.id, None)
        freed = []
        for label in task.opinion.banned if task.opinion is not None else ():
            record = self.records[label, task.function]
            record.pending -= 1
            if not record.pending:
                freed.append(label)
                if not record.score:
                    del self.records[label, task.function]
        return freed

    def _suits(self, opinion: Opinion, label: str) -> bool:
        if label in opinion.places:
            return False
        memory = self._specs[label].mem_per_worker
        return opinion.need is None or (memory is not None and memory > opinion.need)

    def _fits(self, task: Task, label: str, at: float) -> bool:
        """Whether the endpoint may run the task, now or soon."""
        opinion = task.opinion
        if opinion is None or not self._suits(opinion, label) or not self._may_recover(label, at):
            return False
        return self._is_up(label) or at < opinion.wait_until

    # --- functions and endpoints ----------------------------------------------------------------------------------

    def avoids(self, task: Task, label: str, at: float) -> bool:
        """Whether the task prefers another endpoint, because its function fails at this one."""
        if not self._is_restricted(label, task.function, at) or self.first(task) is not None:
            return False
        return any(
            not self._is_restricted(other, task.function, at) and self._may_recover(other, at)
            for other in task.eligible
        )

    def function_succeeded(self, label: str, function: str) -> None:
        """Drop the evidence against an endpoint for a function that succeeded there."""
        record = self.records.get((label, function))
        if record is not None and record.score:
            record.score, record.until = 0.0, float("-inf")
            if not record.pending:
                del self.records[label, function]

    def refuted(self, task: Task, winner: str, at: float) -> list[tuple[str, float]]:
        """Record that a task succeeded at ``winner``, as evidence against the endpoints that failed it.

        Returns:
            Those endpoints, each with the time until which the function avoids it.
        """
        opinion = task.opinion
        found = []
        for label in opinion.places if opinion is not None else ():
            if label == winner:
                continue
            record = self._record(label, task.function)
            extra = _AFTER_SUCCESS if opinion is not None and label in opinion.worked else _SINGLE
            record.score = min(_MOST, self._faded(record, at) + extra)
            record.at = at
            if record.score > _BAD:
                record.until = math.ceil(at + self._settings.fade_time * math.log(record.score / _BAD))
            found.append((label, record.until))
        return found

    def expire(self, at: float) -> None:
        """Drop evidence that has faded."""
        for key, record in list(self.records.items()):
            if not record.pending and at >= record.until and self._faded(record, at) < _FAINT:
                del self.records[key]

    def _ban(self, opinion: Opinion, label: str, function: str, at: float) -> None:
        """Send the endpoint no more of the function while the opinion is pending, for a bounded time."""
        opinion.banned.append(label)
        record = self._record(label, function)
        if not record.pending:
            record.banned_until = math.ceil(at + self._settings.second_opinion_timeout)
        record.pending += 1

    def _is_restricted(self, label: str, function: str, at: float) -> bool:
        record = self.records.get((label, function))
        return record is not None and (at < record.until or (record.pending > 0 and at < record.banned_until))

    def _faded(self, record: _Record, at: float) -> float:
        return record.score * math.exp((record.at - at) / self._settings.fade_time)

    def _record(self, label: str, function: str) -> _Record:
        record = self.records.get((label, function))
        if record is None:
            record = self.records[label, function] = _Record()
        return record


def _own(failure: Failure) -> Kind:
    """Return the kind under which a confirmed error is published."""
    return Kind.USER if failure.raised else failure.kind
