"""The campaign: keeps Parsl busy with the molecules that look best at that moment, until the budget is spent."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Final

import parsl
from parsl.config import Config

from diaspora_parsl.errors import ConfigurationError

from .budget import Budget, Spending
from .library.candidates import Candidates
from .objectives import Objective
from .objectives.app import score_molecule
from .progress import Progress, Tally
from .records import Fit, Pick, Result, Row
from .results.ledger import Ledger
from .selection.batches import Rounds
from .selection.selector import BatchSelector, Choice
from .selection.trainer import Fitter
from .settings import Plan

#: Results that say that docking itself does not work, rather than one molecule.
_HOPELESS: Final = frozenset({"lost", "crash", "dock"})
#: Number of failures without any success that ends the campaign early.
_PATIENCE: Final = 10
_TICK: Final = 0.5
#: While workers wait for a model, at the end of a synchronous round.
_SHORT_TICK: Final = 0.05
#: Tasks per worker that has been seen, if their number may adapt.
_SPARE: Final = 1.25

Observer = Callable[[Progress], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """How a session of a campaign ended; numbers are of the whole campaign."""

    submitted: int
    settled: int
    lost: int
    """Tasks for which Parsl returned an error instead of a result."""
    interrupted: bool
    """Ended by Ctrl-C or SIGTERM; what was in flight has no row."""
    started: float
    """Unix time at which this session began."""
    ended: float
    run_dir: str
    """Parsl's own directory of this run."""


@contextmanager
def running_parsl(config: Config) -> Iterator[Any]:
    """A loaded Parsl that is cleaned up, whatever happens."""
    kernel = parsl.load(config)
    try:
        yield kernel
    finally:
        try:
            kernel.cleanup()
        finally:
            parsl.clear()


class Campaign:
    """One campaign over a set of candidates, from its beginning or from where its ledger ends.

    Args:
        candidates: what can be chosen from.
        objective: what is asked about each.
        plan: how to choose.
        budget: when to end; molecules are counted by the plan.
        ledger: where each result is written as it arrives.
        session: number under which this session stands in the ledger.
        adaptive: give Parsl more than ``plan.in_flight`` tasks when more workers are seen than that keeps busy.
        observers: called with a `Progress` from the campaign's thread after every result, and twice a second.
    """

    def __init__(
        self,
        *,
        candidates: Candidates,
        objective: Objective,
        plan: Plan,
        ledger: Ledger,
        budget: Budget | None = None,
        session: int = 1,
        adaptive: bool = False,
        observers: tuple[Observer, ...] = (),
    ) -> None:
        self._candidates = candidates
        self._objective = objective
        self._plan = plan
        self._ledger = ledger
        self._session = session
        self._adaptive = adaptive
        self._observers = observers
        scaffolds = candidates.scaffolds() if plan.scaffold_cap else None
        self._chooser = BatchSelector(candidates.fingerprints, plan, scaffolds)
        self._rounds = Rounds(self._chooser, plan) if plan.rounds else None
        self._started = time.time()
        earlier = sum((s.ended or s.started) - s.started for s in ledger.sessions() if s.number != session)
        self._spending = Spending(budget or Budget(molecules=plan.budget), began=self._started, earlier=earlier)
        self._tally = Tally(self._chooser.budget)
        self._picked: Counter[int] = Counter()
        self._numbers = 0
        #: Chosen by an earlier session that did not see the result.
        self._again: deque[Choice] = deque()
        #: Results of an earlier session that a replay of its rounds comes across.
        self._known: dict[int, float | None] = {}
        #: Settled Parsl futures; None wakes the loop up for an interruption.
        self._arrivals: SimpleQueue[Future[Result] | None] = SimpleQueue()
        self._in_flight: dict[Future[Result], tuple[Choice, float]] = {}
        self._workers: deque[tuple[str, int]] = deque(maxlen=4 * plan.in_flight)
        self._statuses: set[str] = set()
        self._here = 0
        self._interrupted = False
        self._recover()

    @property
    def has_work(self) -> bool:
        """Whether anything is left to dock."""
        left = bool(self._again) or self._tally.done < self._chooser.budget
        return left and self._spending.affords_more(0, time.time())

    def run(self, config: Config) -> Outcome:
        """Run to the end of the budget, or to Ctrl-C.

        Raises:
            ConfigurationError: docking works nowhere, or no surrogate can be fitted; the message says what was seen.
        """
        with (
            running_parsl(config) as kernel,
            Fitter(self._candidates.folder, self._plan) as fitter,
            self._interruptible(),
        ):
            run_dir = str(kernel.run_dir)
            self._ledger.settle_session(self._session, run_dir=self._relative(run_dir))
            score = parsl.python_app(score_molecule, data_flow_kernel=kernel)
            self._learn(fitter)
            self._fill(score)
            while (self._in_flight or self._between_rounds()) and not self._interrupted:
                self._take(_SHORT_TICK if self._between_rounds() else _TICK)
                self._learn(fitter)
                self._fill(score)
                self._emit()
        return Outcome(
            submitted=len(self._picked),
            settled=self._tally.done,
            lost=self._tally.by_status["lost"],
            interrupted=self._interrupted,
            started=self._started,
            ended=time.time(),
            run_dir=run_dir,
        )

    def _recover(self) -> None:
        """Go on where the ledger ends: what has a row is done, what was in flight is chosen again first."""
        picks = self._ledger.picks()
        self._picked.update(pick.molecule for pick in picks)
        self._numbers = len(picks)
        candidate_of = {pick.molecule: pick.candidate for pick in picks}
        known: dict[int, float | None] = {}
        for row in self._ledger.rows():
            if row.molecule in candidate_of:
                known[candidate_of[row.molecule]] = row.score
                self._tally.count(row, earlier=True)
                self._spending.count(row.seconds)
        if self._rounds is not None:
            self._known = known  # the choice depends on the scores alone: it is made again, without docking again
            return
        order = dict.fromkeys(candidate_of.values())
        scores = {candidate: score for candidate in order if (score := known.get(candidate)) is not None}
        fits = self._ledger.fits()
        self._chooser.restore(list(order), scores, fits[-1].number if fits else 0)
        self._again.extend(Choice(p.candidate, p.predicted, p.model) for p in self._ledger.in_flight())

    def _relative(self, run_dir: str) -> str:
        """Parsl's directory, relative to the campaign's folder if it is in there: a folder may be moved."""
        path, folder = Path(run_dir).resolve(), self._ledger.path.parent.resolve()
        return str(path.relative_to(folder) if path.is_relative_to(folder) else path)

    def _between_rounds(self) -> bool:
        """Whether the next model is waited for, with nothing in flight."""
        waiting = self._rounds is not None and self._rounds.waiting and not self._in_flight
        return waiting and self._spending.affords_more(0, time.time())

    def _slots(self) -> int:
        if not self._adaptive:
            return self._plan.in_flight
        return max(self._plan.in_flight, math.ceil(_SPARE * len(set(self._workers))) + 2)

    def _fill(self, score: Callable[..., Future[Result]]) -> None:
        """Give Parsl as many molecules as it shall have; the ledger knows of them before it does."""
        now = time.time()
        free = self._slots() - len(self._in_flight)
        choices: list[Choice] = []
        while len(choices) < free and not self._interrupted:
            if not self._spending.affords_more(len(self._in_flight) + len(choices), now):
                break
            choice = self._again.popleft() if self._again else (self._rounds or self._chooser).next()
            if choice is None:
                break
            if self._rounds is not None and choice.candidate in self._known:
                self._rounds.observe(choice.candidate, self._known[choice.candidate])
            else:
                choices.append(choice)
        picks = []
        for number, choice in enumerate(choices, start=self._numbers + 1):
            molecule = self._candidates.entries[choice.candidate].molecule
            picks.append(
                Pick(
                    number=number,
                    molecule=molecule,
                    candidate=choice.candidate,
                    predicted=choice.predicted,
                    model=choice.model,
                    session=self._session,
                    at=now,
                )
            )
        self._ledger.pick(*picks)
        self._numbers += len(picks)
        self._picked.update(pick.molecule for pick in picks)
        for choice in choices:
            smiles = self._candidates.entries[choice.candidate].smiles
            future = score(smiles, self._objective.part_for(smiles))
            self._in_flight[future] = (choice, time.time())
            future.add_done_callback(self._arrivals.put)

    def _take(self, timeout: float) -> None:
        """Settle everything that has arrived, waiting a little for the first."""
        rows = []
        try:
            future = self._arrivals.get(timeout=timeout)
            while True:
                if future is not None:
                    rows.append(self._settle(future))
                future = self._arrivals.get_nowait()
        except Empty:
            pass
        self._ledger.append(*rows)
        for row in rows:
            self._tally.count(row)
            self._spending.count(row.seconds)
            self._statuses.add(row.status)
            if row.pid:
                self._workers.append((row.host, row.pid))
        self._here += len(rows)
        if self._here >= _PATIENCE and self._statuses <= _HOPELESS:
            raise ConfigurationError(
                f"The first {self._here} molecules could not be docked anywhere. The last one: "
                f"{rows[-1].detail if rows else ''} Check the receptor, and that every site has "
                "diaspora-parsl[campaigns]."
            )

    def _settle(self, future: Future[Result]) -> Row:
        choice, submitted = self._in_flight.pop(future)
        error = future.exception()
        if error is None:
            result = future.result()
        else:
            result = Result(status="lost", detail=f"{type(error).__name__}: {error}", ended=time.time())
        (self._rounds or self._chooser).observe(choice.candidate, result.score)
        entry, where = self._candidates.entries[choice.candidate], result.where
        return Row(
            molecule=entry.molecule,
            name=entry.name,
            smiles=entry.smiles,
            status=result.status,
            detail=result.detail,
            score=result.score,
            predicted=choice.predicted,
            model=choice.model,
            attempts=self._picked[entry.molecule] + _parsl_retries(future),
            seed=result.seed or None,
            session=self._session,
            pool_task=_executor_task(future),
            submitted=submitted,
            started=result.started,
            ended=result.ended,
            seconds=result.seconds,
            site=where.site if where else "",
            host=where.host if where else "",
            pid=where.pid if where else 0,
            manager=where.manager if where else "",
            block=where.block if where else "",
            pose=result.pose,
        )

    def _learn(self, fitter: Fitter) -> None:
        """Adopt a finished fit and begin the next, in the fitter's process: no worker waits for the surrogate."""
        director = self._rounds or self._chooser
        ranking = fitter.fetch()
        if ranking is not None:
            director.adopt(ranking)
            self._remember(ranking.number, ranking.trained_on, fitter.began)
        if not fitter.busy and (lesson := director.lesson()) is not None:
            fitter.begin(lesson)

    def _remember(self, number: int, trained_on: int, began: float) -> None:
        quality = self._tally.quality()
        self._tally.models = number
        if number in {fit.number for fit in self._ledger.fits()}:  # a replay of rounds comes across it again
            return
        self._ledger.fit(
            Fit(
                number=number,
                session=self._session,
                trained_on=trained_on,
                began=began,
                ended=time.time(),
                checked=quality.checked,
                spearman=quality.spearman,
                error=quality.error,
            )
        )

    def _emit(self) -> None:
        now = time.time()
        progress = self._tally.progress(
            in_flight=len(self._in_flight), now=now, left=self._spending.left(len(self._in_flight), now)
        )
        for observer in self._observers:
            observer(progress)

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """Turn the first Ctrl-C or SIGTERM into a clean end; a second Ctrl-C means now."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def stop(_number: int, _frame: object) -> None:
            self._interrupted = True
            self._arrivals.put(None)
            signal.signal(signal.SIGINT, signal.default_int_handler)

        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _executor_task(future: Any) -> int | None:
    """Return the number of a task in the pool's events, if the executor has one."""
    inner = getattr(future, "task_record", {}).get("exec_fu")
    number = getattr(inner, "parsl_executor_task_id", None)
    return number if isinstance(number, int) else None


def _parsl_retries(future: Any) -> int:
    return int(getattr(future, "task_record", {}).get("fail_count", 0))
