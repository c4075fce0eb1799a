"""A campaign through two kills, a freeze and kill -9 of its controller: nothing lost, and nothing twice for nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from parsl.config import Config
from parsl.executors import ThreadPoolExecutor

from diaspora_parsl import ResilientPoolExecutor
from diaspora_parsl.campaigns.screening import FunctionObjective, Plan
from diaspora_parsl.campaigns.screening.campaign import Campaign
from diaspora_parsl.campaigns.screening.library.candidates import find_candidates
from diaspora_parsl.campaigns.screening.library.combinatorial import combinatorial_library
from diaspora_parsl.campaigns.screening.records import Session
from diaspora_parsl.campaigns.screening.results.exports import ranked
from diaspora_parsl.campaigns.screening.results.ledger import Ledger
from diaspora_parsl.testing.local_sites import LocalSite

if TYPE_CHECKING:
    from collections.abc import Callable

    from diaspora_parsl.campaigns.screening.progress import Progress

ROOT = Path(__file__).parents[2]
FUNCTION = "import time\ndef size(smiles):\n    time.sleep(0.1)\n    return -4 - len(smiles) / 20\n"


@pytest.mark.timeout(600)
def test_every_molecule_has_one_row_and_only_what_was_in_flight_is_done_again(tmp_path: Path) -> None:
    options = ["--molecules", "100", "--library", "300", "--workers", "1", "--outage", "4", "--function"]
    words = [sys.executable, str(ROOT / "benchmarks/campaign.py"), *options, "--limit", "250", "--keep", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=550, check=False)
    # The program itself looks at ledger, executions and report, and says what does not hold.
    assert ended.returncode == 0, ended.stdout + ended.stderr


def ranking(folder: Path, config: Config, observe: Callable[[Progress], None]) -> list[tuple[str, float | None, int]]:
    """What a campaign in three synchronous rounds finds."""
    folder.mkdir()
    config.run_dir = str(folder / "parsl")
    with Ledger(folder / "ledger.sqlite") as ledger:
        ledger.begin_session(Session(number=1, started=0.0))
        Campaign(
            candidates=find_candidates(combinatorial_library(150)),
            objective=FunctionObjective(function="size.py:size", source=FUNCTION),
            plan=Plan(budget=40, initial=16, in_flight=5, rounds=3, seed=4),
            ledger=ledger,
            observers=(observe,),
        ).run(config)
        return [(row.smiles, row.score, row.model) for row in ranked(ledger.rows())]


def test_in_synchronous_rounds_the_ranked_list_is_the_same_with_and_without_a_site_killed(tmp_path: Path) -> None:
    killed: list[int] = []
    with LocalSite("alpha") as alpha, LocalSite("beta") as beta:

        def kill(progress: Progress) -> None:
            if not killed and progress.by_site.get("beta", 0) > 2:
                killed.append(beta.kill())

        pool = ResilientPoolExecutor(label="pool", endpoints=[alpha.endpoint, beta.endpoint], fabric="memory://rounds")
        disturbed = ranking(tmp_path / "disturbed", Config(executors=[pool], initialize_logging=False), kill)
    assert killed
    threads = ThreadPoolExecutor(label="threads", max_threads=4)
    calm = Config(executors=[threads], strategy="none", initialize_logging=False)
    assert ranking(tmp_path / "calm", calm, lambda _progress: None) == disturbed
    assert {model for _, _, model in disturbed} == {0, 1, 2}
