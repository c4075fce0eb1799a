"""The benchmark of choice: a library whose scores are all known, and how many of the best a campaign would find."""

from __future__ import annotations

import heapq
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from diaspora_parsl.errors import ConfigurationError

from .library.candidates import find_candidates
from .library.reader import read_library
from .objectives.file import FileObjective
from .selection.batches import Rounds
from .selection.selector import BatchSelector, Ranking, study
from .settings import Plan

#: Spread of the logarithm of virtual seconds per molecule: the slowest of a hundred takes three times the median.
_TAIL: Final = 0.5
#: Virtual seconds until a ranking is there, as a part of those for the median molecule.
_FIT: Final = 0.25
#: Places along the curve.
_POINTS: Final = 25
#: Of the budget that is chosen at random, and rounds, in MolPAL's protocol of 1 % and five times 1 %.
_MOLPAL_ROUNDS: Final = 6

TIE_RULE: Final = (
    "Where several molecules have the score of the last of the best, those first in the library are among the best. "
    "For the share of scores, any of them counts, up to as many as have a place."
)


class Truth(NamedTuple):
    """A library with all its scores."""

    fingerprints: NDArray[np.uint8]
    scores: NDArray[np.float64]
    """Lower is better; NaN for a failure."""


class Found(NamedTuple):
    """How many of the best a campaign found."""

    scores: int
    """Whose score is among the best."""
    exact: int
    """That are the very molecules."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One strategy over all seeds, in percent of the best."""

    scores_percent: list[float]
    exact_percent: list[float]
    curve: list[dict[str, object]]
    """Per number of molecules screened: both shares, one per seed."""


class Best:
    """The best molecules of a library.

    Args:
        scores: of all molecules, NaN for failures.
        top: how many are the best.

    Raises:
        ConfigurationError: Fewer molecules have a score.
    """

    def __init__(self, scores: NDArray[np.float64], top: int) -> None:
        scored = int(np.isfinite(scores).sum())
        if not 0 < top <= scored:
            raise ConfigurationError(
                f"The best {top} of {scored} scored molecules cannot be found. Write a smaller --top."
            )
        order = np.argsort(scores, kind="stable")[:top]  # NaN comes last
        self.top = top
        self.cutoff = float(scores[order[-1]])
        self.tied = int((scores == self.cutoff).sum())
        self._scores = scores
        self._places = int((scores[order] == self.cutoff).sum())
        self._is_best = np.zeros(len(scores), bool)
        self._is_best[order] = True

    def found(self, screened: NDArray[np.int64]) -> Found:
        """How many of the best are among what was screened."""
        scores = self._scores[screened]
        better, at_cutoff = int((scores < self.cutoff).sum()), int((scores == self.cutoff).sum())
        return Found(better + min(at_cutoff, self._places), int(self._is_best[screened].sum()))


def load_truth(
    library: Path,
    scores: Path,
    *,
    smiles_column: str | None = None,
    score_column: str | None = None,
    maximize: bool = False,
) -> Truth:
    """Read a library and its scores, which are joined by canonical SMILES.

    Args:
        library: molecules.
        scores: ``.csv`` or ``.csv.gz`` with SMILES and scores.
        smiles_column: of both files; by default the one headed ``smiles``.
        score_column: by default the one headed ``score``.
        maximize: whether more is better.

    Raises:
        ConfigurationError: a file cannot be read, or no molecule of the library has a score.
    """
    known = FileObjective.of(scores, score_column=score_column, smiles_column=smiles_column, maximize=maximize)
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        candidates = find_candidates(read_library(library, smiles_column), Path(folder))
        values = known.scores_of(np.asarray(candidates.hashes))
        fingerprints = np.array(candidates.fingerprints)
    if not np.isfinite(values).any():
        raise ConfigurationError(f"No molecule of {library.name} has a score in {scores.name}.")
    return Truth(fingerprints, values)


def simulate(truth: Truth, plan: Plan, tick: Callable[[], None] | None = None) -> NDArray[np.int64]:
    """A campaign on virtual workers, with the chooser that any campaign has; only time and scores are made up.

    As many workers as the plan has tasks in flight take a different time for each molecule; a fit takes a while, during
    which the choice goes on with the ranking before.

    Args:
        truth: the library.
        plan: budget and choice.
        tick: called for each result.

    Returns:
        Candidates in the order of their results.
    """
    chooser = BatchSelector(truth.fingerprints, plan)
    director = Rounds(chooser, plan) if plan.rounds else chooser
    chance = np.random.default_rng([plan.seed, 1])
    #: Time, running number, and the candidate whose result comes then, or the ranking.
    events: list[tuple[float, int, int | Ranking]] = []
    settled: list[int] = []
    now, number, busy, is_fitting = 0.0, 0, 0, False
    while True:
        if not is_fitting and (lesson := director.lesson()) is not None:
            is_fitting, number = True, number + 1
            heapq.heappush(events, (now + _FIT, number, study(truth.fingerprints, plan, lesson)))
        while busy < plan.in_flight and (choice := director.next()) is not None:
            busy, number = busy + 1, number + 1
            heapq.heappush(events, (now + float(chance.lognormal(0, _TAIL)), number, choice.candidate))
        if not events:
            return np.array(settled, np.int64)
        now, _, event = heapq.heappop(events)
        if isinstance(event, Ranking):
            is_fitting = False
            director.adopt(event)
            continue
        busy -= 1
        settled.append(event)
        score = float(truth.scores[event])
        director.observe(event, None if np.isnan(score) else score)
        if tick is not None:
            tick()


def run(
    truth: Truth, best: Best, plan: Plan, seeds: int, *, jobs: int = 1, tick: Callable[[int], None] = lambda _: None
) -> Run:
    """One strategy with the seeds 0, 1, 2 ...

    Args:
        truth: the library.
        best: molecules of it.
        plan: budget and choice.
        seeds: how many.
        jobs: seeds at a time, each in a process of its own; 1 for none but this one.
        tick: Receives the number of new results.
    """
    plans = [replace(plan, seed=seed) for seed in range(seeds)]
    if jobs == 1:
        orders = [simulate(truth, one, partial(tick, 1)) for one in plans]
    else:
        with ProcessPoolExecutor(min(jobs, seeds), get_context("spawn")) as pool:
            futures = [pool.submit(simulate, truth, one) for one in plans]
            for future in as_completed(futures):
                tick(len(future.result()))
            orders = [future.result() for future in futures]
    shortest = min(len(order) for order in orders)
    curve: list[dict[str, object]] = []
    for count in np.unique(np.linspace(0, shortest, _POINTS + 1).round().astype(int)):
        shares = [_percent(best, order[:count]) for order in orders]
        curve.append(
            {
                "molecules": int(count),
                "scores_percent": [scores for scores, _ in shares],
                "exact_percent": [exact for _, exact in shares],
            }
        )
    ends = [_percent(best, order) for order in orders]
    return Run(scores_percent=[scores for scores, _ in ends], exact_percent=[exact for _, exact in ends], curve=curve)


def strategies(plan: Plan) -> dict[str, Plan]:
    """What is compared, each with the same budget.

    The random forest has MolPAL's settings and protocol: a sixth of the budget at random, then five synchronous rounds,
    greedily.
    """
    forest = replace(
        plan,
        surrogate="forest",
        acquisition="greedy",
        initial=max(1, round(plan.budget / _MOLPAL_ROUNDS)),
        rounds=_MOLPAL_ROUNDS,
    )
    return {"product": plan, "random": replace(plan, acquisition="random"), "random_forest": forest}


def settings_of(truth: Truth, best: Best, plan: Plan, seeds: int) -> dict[str, object]:
    """What was asked, and the rules of counting."""
    chosen = asdict(plan)
    chosen.pop("seed")
    return {
        "molecules": len(truth.scores),
        "without_score": int(np.isnan(truth.scores).sum()),
        "top": best.top,
        "cutoff": best.cutoff,
        "tied_at_cutoff": best.tied,
        "tie_rule": TIE_RULE,
        "seeds": list(range(seeds)),
        "plan": {**chosen, "initial": plan.first_batch, "refit_every": plan.refit_after},
        "random_forest": f"100 trees of depth 8, greedy, {_MOLPAL_ROUNDS} synchronous rounds, the first one random",
    }


def _percent(best: Best, screened: NDArray[np.int64]) -> tuple[float, float]:
    found = best.found(screened)
    return 100 * found.scores / best.top, 100 * found.exact / best.top
