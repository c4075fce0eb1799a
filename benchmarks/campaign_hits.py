"""What sites that die cost an asynchronous campaign: the best molecules found with and without, in virtual time."""

from __future__ import annotations

import argparse
import heapq
import json
import platform
import tempfile
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diaspora_parsl.campaigns.screening.library.candidates import Candidates, find_candidates
from diaspora_parsl.campaigns.screening.library.reader import read_library
from diaspora_parsl.campaigns.screening.objectives import FileObjective
from diaspora_parsl.campaigns.screening.selection.selector import BatchSelector, Choice, Ranking, study
from diaspora_parsl.campaigns.screening.settings import Plan

SITES = ("alpha", "beta", "gamma")
WORKERS = 4
#: Mean and spread of the logarithm of the seconds that a molecule takes: tails are heavy.
SECONDS = (3.0, 0.8)
#: When so much of the budget is settled, a site is gone for some time; its tasks start elsewhere a little later.
SCRIPT = ((0.3, "beta"), (0.5, "gamma"), (0.7, "alpha"))
OUTAGE = 300.0
NOTICED = 5.0
#: Seconds that a fit takes; the old ranking serves meanwhile.
FIT = 3.0


class Simulation:
    """A campaign in virtual time.

    Args:
        candidates: Candidates of the library.
        scores: Score per candidate; NaN: none.
        plan: Plan of the selection.
        disturbed: Whether sites die by the script.
    """

    def __init__(self, candidates: Candidates, scores: NDArray[np.float64], plan: Plan, *, disturbed: bool) -> None:
        self.plan = plan
        self.scores = scores
        self.fingerprints = candidates.fingerprints
        self.chooser = BatchSelector(candidates.fingerprints, plan)
        self.durations = np.random.default_rng(plan.seed + 1000).lognormal(*SECONDS, len(candidates))
        self.script = list(SCRIPT) if disturbed else []
        self.free = dict.fromkeys(SITES, WORKERS)
        self.waiting: deque[Choice] = deque()
        self.running: dict[int, tuple[str, Choice]] = {}
        self.docked: list[int] = []
        self.pending = 0
        self.ranking: Ranking | None = None
        #: When, number of the event, and what happens then.
        self.events: list[tuple[float, int, Callable[[int], None]]] = []
        self.now = 0.0
        self.number = 0

    def run(self) -> list[int]:
        """Candidates that were docked, in order."""
        while True:
            self.learn()
            self.fill()
            if not self.pending:
                return self.docked
            self.now, number, happens = heapq.heappop(self.events)
            happens(number)
            self.disturb()

    def after(self, seconds: float, happens: Callable[[int], None]) -> int:
        """Let something happen later; returns its number."""
        self.number += 1
        heapq.heappush(self.events, (self.now + seconds, self.number, happens))
        return self.number

    def learn(self) -> None:
        """Begin a fit, if none goes on and enough is new."""
        if self.ranking is None and (lesson := self.chooser.lesson()) is not None:
            self.ranking = study(self.fingerprints, self.plan, lesson)
            self.after(FIT, self.adopt)

    def adopt(self, _number: int) -> None:
        """A fit is done."""
        if self.ranking is not None:
            self.chooser.adopt(self.ranking)
        self.ranking = None

    def fill(self) -> None:
        """Choose, and start what workers can take."""
        while self.pending < self.plan.in_flight and (choice := self.chooser.next()) is not None:
            self.waiting.append(choice)
            self.pending += 1
        for site in SITES:
            while self.free[site] > 0 and self.waiting:
                choice = self.waiting.popleft()
                self.free[site] -= 1
                self.running[self.after(float(self.durations[choice.candidate]), self.settle)] = (site, choice)

    def settle(self, number: int) -> None:
        """An attempt ends, if its site has not died meanwhile."""
        if number not in self.running:
            return
        site, choice = self.running.pop(number)
        self.free[site] += 1
        self.pending -= 1
        self.docked.append(choice.candidate)
        score = float(self.scores[choice.candidate])
        self.chooser.observe(choice.candidate, None if np.isnan(score) else score)

    def disturb(self) -> None:
        """Kill the site whose time has come."""
        if not self.script or len(self.docked) < self.script[0][0] * self.plan.budget:
            return
        _, site = self.script.pop(0)
        lost = [number for number, (place, _) in self.running.items() if place == site]
        choices = [self.running.pop(number)[1] for number in lost]
        self.free[site] = 0
        self.after(NOTICED, lambda _: self.waiting.extendleft(choices))
        self.after(OUTAGE, lambda _: self.free.update({site: WORKERS}))


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Shares of the best molecules that are found, per seed."""
    objective = FileObjective.of(options.scores)
    with tempfile.TemporaryDirectory(prefix="candidates-") as folder:
        candidates = find_candidates(read_library(options.library), Path(folder), scope=objective.scope)
        scores = objective.scores_of(candidates.hashes)
        cutoff = np.sort(scores)[options.top - 1]
        wanted = min(options.top, int((scores <= cutoff).sum()))
        budget = round(options.fraction * len(candidates))
        shares: dict[str, list[float]] = {"undisturbed": [], "three sites killed": []}
        for seed in range(options.seeds):
            plan = Plan(budget=budget, initial=len(candidates) // 100, in_flight=len(SITES) * WORKERS + 3, seed=seed)
            for name, values in shares.items():
                docked = Simulation(candidates, scores, plan, disturbed=name != "undisturbed").run()
                hits = int((scores[docked] <= cutoff).sum())
                values.append(round(100 * min(hits, wanted) / wanted, 1))
    return {
        "library": options.library.name,
        "molecules": budget,
        "top": options.top,
        "ties": "any molecule with a score as good as that of the last of the top counts, up to their number",
        "scores_percent": shares,
        "mean": {name: round(float(np.mean(values)), 1) for name, values in shares.items()},
        "spread": {
            name: round(float(np.std(values, ddof=min(1, len(values) - 1))), 1) for name, values in shares.items()
        },
        "machine": {"python": platform.python_version()},
    }


def main() -> None:
    """Measure and say what was seen."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--library", type=Path, required=True)
    parser.add_argument("--scores", type=Path, required=True)
    parser.add_argument("--top", type=int, default=100)
    parser.add_argument("--fraction", type=float, default=0.06)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    text = json.dumps(measure(options), indent=1)
    print(text)
    if options.json:
        options.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
