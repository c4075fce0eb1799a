from __future__ import annotations

import gzip
import math
import pickle
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from rdkit import Chem

from diaspora_parsl.campaigns.screening.library.candidates import find_candidates
from diaspora_parsl.campaigns.screening.library.combinatorial import combinatorial_library
from diaspora_parsl.campaigns.screening.objectives import (
    DockingObjective,
    FileObjective,
    FunctionObjective,
    Limits,
    Objective,
    Scope,
    XtbObjective,
    parse_objective,
)
from diaspora_parsl.campaigns.screening.objectives.app import ObjectiveUnavailableError, ScoringProcess, score_molecule
from diaspora_parsl.campaigns.screening.objectives.docking import ELEMENTS
from diaspora_parsl.campaigns.screening.records import Entry
from diaspora_parsl.campaigns.screening.settings import Docking
from diaspora_parsl.campaigns.screening.target.receptor import shipped_target
from diaspora_parsl.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

LIMITS = Limits(timeout=2, memory=1000)
MINE = """
import os, time

def weight(smiles):
    if smiles == "S":
        return bytearray(10**11)[0]
    if smiles == "P":
        while True:
            pass
    if smiles == "N":
        os.abort()
    if smiles == "F":
        raise KeyError("fluorine")
    if smiles == "B":
        import surely_not_installed
    return {"O": None, "Cl": "many", "I": float("nan")}.get(smiles, len(smiles))
"""


@pytest.fixture
def process() -> Iterator[ScoringProcess]:
    scoring = ScoringProcess()
    yield scoring
    scoring.close()


@pytest.fixture
def mine(tmp_path: Path) -> FunctionObjective:
    (tmp_path / "mine.py").write_text(MINE)
    return FunctionObjective.of(f"{tmp_path / 'mine.py'}:weight", maximize=True, limits=LIMITS)


def test_a_function_travels_by_its_text_and_cannot_harm_the_worker(
    process: ScoringProcess, mine: FunctionObjective
) -> None:
    objective = pickle.loads(pickle.dumps(mine))  # noqa: S301 - our own
    found = {
        smiles: process.score(smiles, objective) for smiles in ("CC", "S", "CC", "N", "P", "F", "O", "Cl", "I", "CC")
    }
    assert {smiles: result.status for smiles, result in found.items()} == {
        "CC": "ok", "S": "memory", "N": "crash", "P": "timeout", "F": "dock", "O": "dock", "Cl": "dock", "I": "dock",
    }  # fmt: skip
    assert found["CC"].score == -2.0  # more is better, and lower scores are
    assert objective.sign * found["CC"].score == 2.0
    assert "1000 MB" in found["S"].detail
    assert "2 s" in found["P"].detail
    assert "KeyError: 'fluorine'" in found["F"].detail
    assert "no number" in found["Cl"].detail
    assert found["CC"].seed > 0


@pytest.mark.parametrize("function", ["surely_not_installed:f", "math:nothing", "math:pi"])
def test_a_function_that_is_not_there_is_the_place_s_fault(process: ScoringProcess, function: str) -> None:
    with pytest.raises(ObjectiveUnavailableError, match=function.split(":", maxsplit=1)[0]):
        process.score("C", FunctionObjective.of(function))
    assert process.score("4", FunctionObjective.of("builtins:int")).score == 4.0


def test_an_import_that_fails_later_is_the_place_s_fault_too(process: ScoringProcess, mine: FunctionObjective) -> None:
    with pytest.raises(ObjectiveUnavailableError, match="surely_not_installed"):
        process.score("B", mine)


def test_a_function_that_ends_its_process_when_it_is_loaded(process: ScoringProcess) -> None:
    objective = FunctionObjective(function="x.py:f", source="import os; os._exit(3)\ndef f(s): return 1")
    with pytest.raises(ObjectiveUnavailableError, match="exit code 3"):
        process.score("C", objective)


@pytest.mark.parametrize(
    ("function", "text", "says"),
    [
        ("weight", None, "names no function"),
        ("mine.py:", None, "cannot be read"),
        ("mine.py:f", "", "is empty"),
        ("mine.py:f", "def f(:", "no Python"),
        ("mine.py:two words", "x = 1", "names no function"),
    ],
)
def test_a_useless_function_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str, text: str | None, says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if text is not None:
        Path("mine.py").write_text(text)
    with pytest.raises(ConfigurationError, match=says):
        FunctionObjective.of(function)


def test_xtb(process: ScoringProcess) -> None:
    pytest.importorskip("tblite")
    benzene, hexane = (process.score(smiles, XtbObjective()) for smiles in ("c1ccccc1", "CCCCCC"))
    assert benzene.score is not None
    assert hexane.score is not None
    assert 3 < benzene.score < hexane.score < 20  # conjugation makes the gap small
    assert process.score("c1ccccc1", XtbObjective()) == benzene
    turned = process.score("c1ccccc1", XtbObjective(maximize=True))
    assert turned.score == -benzene.score
    homo, lumo = (process.score("c1ccccc1", XtbObjective(quantity=which)).score for which in ("homo", "lumo"))
    assert lumo - homo == pytest.approx(benzene.score, abs=1e-3)  # type: ignore[operator]
    assert process.score("C", XtbObjective(quantity="energy_per_atom")).score == pytest.approx(-22.7, abs=0.1)
    assert process.score("C.C", XtbObjective()).status == "prepare"
    assert process.score("C1#CC1", XtbObjective()).status == "embed"
    assert process.score("C" * 90, XtbObjective()).status == "prepare"
    assert process.score("[Na+]", XtbObjective()).status in ("ok", "dock")
    with pytest.raises(ConfigurationError, match="gap, homo"):
        XtbObjective(quantity="beauty")  # type: ignore[arg-type]


SCORES = "smiles,score\nOCC,-5.5\nCCO,-1\nc1ccccc1,\nnonsense,-9\nCCN,-4\nCCCl,inf\n[Na+].CC(=O)[O-],-3\n"


@pytest.mark.parametrize("packed", [False, True])
def test_scores_from_a_file(tmp_path: Path, *, packed: bool) -> None:
    path = tmp_path / f"scores.csv{'.gz' if packed else ''}"
    path.write_bytes(gzip.compress(SCORES.encode()) if packed else SCORES.encode())
    objective = FileObjective.of(path)
    assert len(objective) == 3
    found = find_candidates(
        [Entry(n, "", s) for n, s in enumerate(("CC(=O)[O-].[K+]", "NCC", "CCO", "CCCC", "c1ccccc1"))]
    )
    assert objective.scores_of(found.hashes).tolist() == pytest.approx([-3, -4, -5.5, math.nan, math.nan], nan_ok=True)
    for smiles, score in (("CCO", -5.5), ("CCN", -4), ("CC(=O)[O-]", -3)):
        part = objective.part_for(smiles)
        assert len(pickle.dumps(part)) < 500
        result = score_molecule(smiles, part)
        assert (result.status, result.score) == ("ok", score)
        assert result.where is not None
    for smiles in ("CCCC", "c1ccccc1"):
        result = score_molecule(smiles, objective.part_for(smiles))
        assert (result.status, result.score) == ("dock", None)
        assert "no score" in result.detail
    upside_down = FileObjective.of(path, maximize=True)
    assert upside_down.part_for("CCN").scorer()("CCN").score == 4.0
    assert upside_down.digest != objective.digest
    assert objective.part_for("CCN").digest == objective.digest


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "cannot be read"),
        ("", 'no column "smiles"'),
        ("smiles,value2\nC,1\n", "--score-column: smiles, value2"),
        ("smiles,score\nC,none\n", "no molecule with a score"),
    ],
)
def test_useless_scores_say_so(tmp_path: Path, text: str | None, says: str) -> None:
    if text is not None:
        (tmp_path / "s.csv").write_text(text)
    with pytest.raises(ConfigurationError, match=says):
        FileObjective.of(tmp_path / "s.csv")


def test_what_a_user_writes_becomes_an_objective(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text("smiles,affinity\nC,1\n")
    docking = Docking(timeout=7, memory=500, max_heavy_atoms=9)

    def parsed(text: str, **more: Any) -> Objective:
        return parse_objective(text, target=shipped_target(), docking=docking, **more)

    assert parsed("docking") == DockingObjective(target=shipped_target(), docking=docking)
    assert parsed("xtb") == XtbObjective(max_heavy_atoms=9, limits=Limits(timeout=7, memory=500))
    assert parsed("xtb:lumo", maximize=True).sign == -1
    assert parsed("math:sqrt").limits == Limits(timeout=7, memory=500)
    table = parsed(str(tmp_path / "s.csv"), score_column="affinity")
    assert (table.name, table.isolated) == ("score of s.csv", False)
    for text, says in (("xtb:beauty", "Write one of gap"), ("beauty", "is no objective")):
        with pytest.raises(ConfigurationError, match=says):
            parsed(text)
    with pytest.raises(ConfigurationError, match="--maximize"):
        parsed("docking", maximize=True)


def test_every_objective_says_what_it_is() -> None:
    table = FileObjective(file="f", keys=b"", scores=b"", table="t")
    all_of_them = [
        DockingObjective(target=shipped_target()), XtbObjective(), FunctionObjective(function="math:sqrt"), table
    ]  # fmt: skip
    assert len({one.digest for one in all_of_them}) == 4
    for objective in all_of_them:
        assert objective.name
        assert "objective" in objective.settings()
        assert objective.part_for("C").digest == objective.digest
        assert pickle.loads(pickle.dumps(objective)) == objective  # noqa: S301 - our own
    assert all_of_them[0].scope.elements is not None
    assert table.scope == Scope()
    assert np.isnan(table.scores_of(np.array([1], np.uint64))).all()


def test_limits_have_limits() -> None:
    with pytest.raises(ConfigurationError, match="too short"):
        Limits(timeout=0.1)
    with pytest.raises(ConfigurationError, match="too little"):
        Limits(memory=10)


def test_a_garbage_library_is_docked_without_a_crash(process: ScoringProcess) -> None:
    lines = [
        "O=C(NCc1ccccc1)c1ccccc1", "[Na+].OC(=O)c1ccccc1", "[Pt](Cl)Cl", "", "C1CC", "C1" + "CCO" * 40 + "C1",
        "Oc1ccc2ccccc2c1", "C1#CC1", "c1ccccc1C(=O)NCc1ccccc1", "[2H]C([2H])([2H])O", "[H][H]", "C[N+](C)(C)C", "[CH3]",
    ]  # fmt: skip
    objective = DockingObjective(target=shipped_target(), docking=Docking(max_evals=1_000, timeout=30))
    found = find_candidates([Entry(n, "", smiles) for n, smiles in enumerate(lines)], scope=objective.scope)
    results = {entry.molecule: process.score(entry.smiles, objective) for entry in found.entries}
    assert sorted([*results, *(row.molecule for row in found.refused)]) == list(range(len(lines)))
    assert {number: results[number].status for number in (0, 1, 6, 7, 9)} == {
        0: "ok", 1: "ok", 6: "ok", 7: "embed", 9: "ok"
    }  # fmt: skip
    assert all(result.status == "ok" or result.detail for result in results.values())
    assert all(Chem.MolFromSmiles(entry.smiles) is not None for entry in found.entries)


def test_four_hundred_lines_with_garbage_all_have_a_row(process: ScoringProcess) -> None:
    good = [entry.smiles for entry in combinatorial_library(376)]
    garbage = [
        "",
        "nonsense",
        "[Pt](Cl)Cl",
        "C" * 6000,
        *good[:4],
        "S",
        "P",
        "N",
        "F",
        "O",
        "I",
        "Cl",
        *["c1ccccc"] * 9,
    ]
    lines = list(good)
    for place, text in enumerate(garbage):
        lines.insert(place * 16, text)
    objective = FunctionObjective(function="mine.py:weight", source=MINE, limits=LIMITS)
    found = find_candidates([Entry(n, "", text) for n, text in enumerate(lines)], scope=Scope(elements=ELEMENTS))
    status = {row.molecule: row.status for row in found.refused}
    status |= {entry.molecule: process.score(entry.smiles, objective).status for entry in found.entries}
    assert sorted(status) == list(range(400))
    assert Counter(status.values()) == {
        "ok": 376, "parse": 11, "prepare": 2, "duplicate": 4, "memory": 1, "timeout": 1, "crash": 1, "dock": 4
    }  # fmt: skip


def test_importing_objectives_loads_no_chemistry() -> None:
    code = (
        "import sys, diaspora_parsl.campaigns.screening.objectives as o; "
        "print({'rdkit', 'vina', 'meeko'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "set()"
