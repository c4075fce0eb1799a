"""The campaign: keeps Parsl busy with the molecules that look best at that moment, until the budget is spent."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, Final

import parsl
from parsl.config import Config

from diaspora_parsl.campaigns.candidates import Candidates
from diaspora_parsl.campaigns.chooser import Choice, Chooser, Ranking
from diaspora_parsl.campaigns.ledger import Ledger
from diaspora_parsl.campaigns.objectives import Objective
from diaspora_parsl.campaigns.progress import Progress, Tally
from diaspora_parsl.campaigns.records import Result, Row
from diaspora_parsl.campaigns.scoring import score_molecule
from diaspora_parsl.campaigns.settings import Plan
from diaspora_parsl.errors import ConfigurationError

#: Results that say that docking itself does not work, rather than one molecule.
_HOPELESS: Final = frozenset({"lost", "crash", "dock"})
#: So many of them, and nothing else, end the campaign early.
_PATIENCE: Final = 10
_TICK: Final = 0.5

Observer = Callable[[Progress], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """How a campaign ended."""

    submitted: int
    settled: int
    lost: int
    """Tasks for which Parsl returned an error instead of a result."""
    interrupted: bool
    """Ended by Ctrl-C or SIGTERM; what was in flight has no row."""
    started: float
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
    """One campaign over a set of candidates.

    Args:
        candidates: what can be chosen from.
        objective: what is asked about each.
        plan: budget and choice.
        ledger: where each result is written as it arrives.
        observers: called with a `Progress` from the campaign's thread after every result, and twice a second.
    """

    def __init__(
        self,
        *,
        candidates: Candidates,
        objective: Objective,
        plan: Plan,
        ledger: Ledger,
        observers: tuple[Observer, ...] = (),
    ) -> None:
        self._candidates = candidates
        self._objective = objective
        self._plan = plan
        self._ledger = ledger
        self._observers = observers
        self._chooser = Chooser(candidates.fingerprints, plan)
        self._tally = Tally(self._chooser.budget)
        #: Settled Parsl futures; None wakes the loop up for an interruption.
        self._arrivals: SimpleQueue[Future[Result] | None] = SimpleQueue()
        self._in_flight: dict[Future[Result], tuple[Choice, float]] = {}
        self._fit: Future[Ranking] | None = None
        self._interrupted = False

    def run(self, config: Config) -> Outcome:
        """Run to the end of the budget, or to Ctrl-C.

        Raises:
            ConfigurationError: docking works nowhere; the message says what was seen.
        """
        started = time.time()
        self._ledger.append(*self._candidates.refused)
        with running_parsl(config) as kernel, ThreadPoolExecutor(1, "surrogate") as fitter, self._interruptible():
            dock = parsl.python_app(score_molecule, data_flow_kernel=kernel)
            self._fill(dock)
            while self._in_flight and not self._interrupted:
                self._take(_TICK)
                self._learn(fitter)
                self._fill(dock)
                self._tell()
        return Outcome(
            submitted=self._chooser.chosen,
            settled=self._tally.done,
            lost=self._tally.by_status["lost"],
            interrupted=self._interrupted,
            started=started,
            ended=time.time(),
            run_dir=str(kernel.run_dir),
        )

    def _fill(self, dock: Callable[..., Future[Result]]) -> None:
        while len(self._in_flight) < self._plan.in_flight and not self._interrupted:
            choice = self._chooser.next()
            if choice is None:
                return
            smiles = self._candidates.entries[choice.candidate].smiles
            future = dock(smiles, self._objective.part_for(smiles))
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
        if self._tally.done >= _PATIENCE and self._tally.only(_HOPELESS):
            raise ConfigurationError(
                f"The first {self._tally.done} molecules could not be docked anywhere. The last one: "
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
        self._chooser.observe(choice.candidate, result.score)
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

    def _learn(self, fitter: ThreadPoolExecutor) -> None:
        """Adopt a finished fit and begin the next, off this thread: no worker waits for the surrogate."""
        if self._fit is not None and self._fit.done():
            self._chooser.adopt(self._fit.result())
            self._fit = None
        if self._fit is None and (lesson := self._chooser.lesson()) is not None:
            self._fit = fitter.submit(self._chooser.study, lesson)

    def _tell(self) -> None:
        progress = self._tally.progress(in_flight=len(self._in_flight), now=time.time())
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
    """The number under which the executor knows a task, if it tells: the pool's events use it."""
    inner = getattr(future, "task_record", {}).get("exec_fu")
    number = getattr(inner, "parsl_executor_task_id", None)
    return number if isinstance(number, int) else None
