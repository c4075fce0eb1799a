from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

import pytest
from rdkit import Chem
from rdkit.Chem import AllChem, rdMolAlign

from diaspora_parsl.campaigns.screening.objectives import DockingObjective
from diaspora_parsl.campaigns.screening.objectives.app import ScoringProcess
from diaspora_parsl.campaigns.screening.records import Row
from diaspora_parsl.campaigns.screening.results.exports import write_poses
from diaspora_parsl.campaigns.screening.settings import Docking
from diaspora_parsl.campaigns.screening.target.receptor import load_receptor, shipped_target
from diaspora_parsl.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path


def peptide(tmp_path: Path, *extra: str) -> Path:
    molecule = Chem.AddHs(Chem.MolFromSequence("GAS"))
    AllChem.EmbedMolecule(molecule, randomSeed=1)
    lines = Chem.MolToPDBBlock(Chem.RemoveHs(molecule)).replace("HETATM", "ATOM  ").splitlines()
    path = tmp_path / "peptide.pdb"
    path.write_text("\n".join([*(line for line in lines if line.startswith("ATOM")), *extra]))
    return path


WATER = "HETATM   90  O   HOH A  90      30.000  30.000  30.000  1.00  0.00           O"


def test_a_pdb_is_prepared_and_its_water_left_out(tmp_path: Path) -> None:
    text = load_receptor(peptide(tmp_path, WATER))
    types = {line.split()[-1] for line in text.splitlines()}
    assert {"HD", "OA", "N", "C"} <= types
    assert "HOH" not in text
    assert all(line.startswith("ATOM") for line in text.splitlines())


def test_a_cofactor_is_kept(tmp_path: Path) -> None:
    text = load_receptor(peptide(tmp_path, WATER), {"HOH": "O"})
    kept = [line for line in text.splitlines() if "HOH" in line]
    assert [line.split()[-1] for line in kept] == ["OA", "HD", "HD"]


def test_a_cofactor_that_is_not_there_or_does_not_fit_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match='no residue "HEM"'):
        load_receptor(peptide(tmp_path), {"HEM": "C"})
    with pytest.raises(ConfigurationError, match="do not fit the SMILES"):
        load_receptor(peptide(tmp_path, WATER), {"HOH": "CC"})
    with pytest.raises(ConfigurationError, match="do not fit the SMILES"):
        load_receptor(peptide(tmp_path, WATER), {"HOH": "garbage"})


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("nowhere.pdb", None, "cannot be read"),
        ("empty.pdb", "HEADER\n", "no ATOM lines"),
        ("protein.cif", "ATOM 1 N\n", "neither .pdb nor .pdbqt"),
        (
            "odd.pdb",
            "ATOM      1  N   XYZ A   1      34.647  15.096  17.623  1.00  0.00           N\n",
            "meeko could not",
        ),
    ],
)
def test_a_useless_receptor_says_why(tmp_path: Path, name: str, text: str | None, says: str) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(ConfigurationError, match=says):
        load_receptor(tmp_path / name)


def test_the_native_ligand_finds_its_place(tmp_path: Path) -> None:
    native = Chem.MolFromMolFile(str(files("diaspora_parsl.campaigns.screening") / "data" / "1ia1_ligand.sdf"))
    process = ScoringProcess()
    objective = DockingObjective(target=shipped_target(), docking=Docking(max_evals=200_000))
    try:
        result = process.score(Chem.MolToSmiles(native), objective)
    finally:
        process.close()
    assert result.score == pytest.approx(-8.6, abs=0.2)
    row = Row(molecule=0, name="TQ3", smiles="", status="ok", score=result.score, pose=result.pose)
    write_poses(tmp_path / "pose.sdf", [row], 1)
    with Chem.SDMolSupplier(str(tmp_path / "pose.sdf")) as supplier:
        docked = next(supplier)
    assert rdMolAlign.CalcRMS(Chem.RemoveHs(docked), native) < 1.0
