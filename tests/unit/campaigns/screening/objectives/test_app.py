from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import psutil
import pytest

from diaspora_parsl.campaigns.screening.objectives import DockingObjective, Refused, seed_of
from diaspora_parsl.campaigns.screening.objectives.app import (
    SITE_VARIABLE,
    SLOWDOWN_VARIABLE,
    ObjectiveUnavailableError,
    ScoringProcess,
    score_molecule,
)
from diaspora_parsl.campaigns.screening.objectives.docking import prepare_ligand
from diaspora_parsl.campaigns.screening.settings import Box, Docking, Target
from diaspora_parsl.campaigns.screening.target.receptor import DHFR_BOX, shipped_target

if TYPE_CHECKING:
    from collections.abc import Iterator

TARGET = shipped_target()
FAST = DockingObjective(target=TARGET, docking=Docking(max_evals=2_000, timeout=30))
BENZAMIDE = "O=C(NCc1ccccc1)c1ccccc1"


@pytest.fixture
def process() -> Iterator[ScoringProcess]:
    scoring = ScoringProcess()
    yield scoring
    scoring.close()


@pytest.mark.parametrize(
    ("smiles", "status", "says"),
    [
        ("garbage", "parse", "cannot read"),
        ("", "parse", "cannot read"),
        ("[Pt](Cl)(Cl)(N)N", "prepare", "no parameters for Pt"),
        ("CB(O)O", "prepare", "no parameters for B"),
        ("CC(=O)[O-].CCN", "prepare", "2 separate"),
        ("C" * 200, "prepare", "200 heavy atoms"),
        ("C1#CC1", "embed", "no three-dimensional shape"),
    ],
)
def test_what_cannot_be_prepared_has_a_reason(smiles: str, status: str, says: str) -> None:
    with pytest.raises(Refused) as refused:
        prepare_ligand(smiles, 80)
    assert refused.value.result.status == status
    assert says in refused.value.result.detail


def test_a_ligand_is_the_same_every_time() -> None:
    assert prepare_ligand(BENZAMIDE, 80) == prepare_ligand(BENZAMIDE, 80)
    assert seed_of("CCO") != seed_of("CCN")


def test_the_order_does_not_change_a_score_and_a_bad_molecule_no_other(process: ScoringProcess) -> None:
    other = "Oc1ccc2ccccc2c1"
    first = [process.score(smiles, FAST) for smiles in (BENZAMIDE, "garbage", other)]
    again = [process.score(smiles, FAST) for smiles in (other, "[Pt]", BENZAMIDE)]
    assert [result.status for result in first + again] == ["ok", "parse", "ok", "ok", "prepare", "ok"]
    assert first[0].score == again[2].score
    assert first[2].score == again[0].score
    assert "REMARK SMILES" in first[0].pose


def test_time_is_limited_although_the_code_is_deaf_and_the_next_molecule_is_docked(process: ScoringProcess) -> None:
    slow = DockingObjective(target=TARGET, docking=Docking(exhaustiveness=500, timeout=1))
    assert process.score("garbage", slow).status == "parse"  # the maps of an objective are not the molecule's time
    began = time.monotonic()
    late = process.score(BENZAMIDE, slow)
    assert time.monotonic() - began < 10
    assert (late.status, late.score) == ("timeout", None)
    assert process.score("CCO", FAST).status == "ok"


def test_a_death_is_a_row_and_the_process_is_replaced(process: ScoringProcess) -> None:
    process.score("garbage", FAST)
    (child,) = [c for c in psutil.Process().children() if "campaigns.sandbox.child" in " ".join(c.cmdline())]
    child.kill()
    child.wait(10)
    assert process.score("garbage", FAST).status == "parse"
    process.close()
    assert not [c for c in psutil.Process().children() if "campaigns.sandbox.child" in " ".join(c.cmdline())]


def test_what_does_not_fit_scores_nothing(process: ScoringProcess) -> None:
    small = Box(center=DHFR_BOX.center, size=(6.0, 6.0, 6.0))
    tight = replace(FAST, target=Target.of(TARGET.pdbqt, small, name="x"))
    result = process.score("C1" + "C" * 40 + "C1", tight)
    assert (result.status, result.score) == ("ok", 0.0)
    assert "does not fit" in result.detail


def test_a_useless_receptor_is_a_result(process: ScoringProcess) -> None:
    result = process.score("CCO", DockingObjective(target=Target.of("nonsense", DHFR_BOX, name="x")))
    assert result.status == "dock"
    assert "receptor" in result.detail


def test_a_place_without_chemistry_raises(process: ScoringProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(ObjectiveUnavailableError, match="exit code 1"):
        process.score("CCO", FAST)


def test_a_result_says_where_and_when(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SITE_VARIABLE, "alpha")
    monkeypatch.setenv(SLOWDOWN_VARIABLE, "3")
    monkeypatch.setenv("PARSL_WORKER_BLOCK_ID", "7")
    began = time.time()
    # In a thread that ends, as a worker does: its docking process ends with it.
    with ThreadPoolExecutor(1) as worker:
        result = worker.submit(score_molecule, "garbage", FAST).result()
    assert result.where is not None
    assert (result.where.site, result.where.block) == ("alpha", "7")
    assert began <= result.started <= result.ended <= time.time()
    assert result.ended - result.started > 2.5 * result.seconds
