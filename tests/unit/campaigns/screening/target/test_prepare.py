from __future__ import annotations

import io
import json
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import URLError

import pytest
import typer
from rdkit import Chem
from rdkit.Chem import AllChem
from rich.console import Console

from diaspora_parsl.campaigns.screening.settings import Box, Docking, Target
from diaspora_parsl.campaigns.screening.target import receptor
from diaspora_parsl.campaigns.screening.target.ligands import Redocking, read_ligand, redock, shipped_ligand
from diaspora_parsl.campaigns.screening.target.prepare import Prepared, Request, load_target, prepare, write_target
from diaspora_parsl.campaigns.screening.target.receptor import pdb_atoms, prepare_receptor, shipped_target
from diaspora_parsl.cli import screen_prepare
from diaspora_parsl.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

FAST = Docking(max_evals=30_000, timeout=60)
DATA = Path(str(files("diaspora_parsl.campaigns.screening") / "data"))
PHENOL = "Oc1ccccc1"


def structure() -> str:
    """A peptide, a phenol 8 Å away, and something that touches it."""

    def lines(molecule: Any, residue: str, number: int, shift: float) -> list[str]:
        bare = Chem.RemoveHs(molecule)
        positions = bare.GetConformer().GetPositions()
        positions += [shift, 0, 0] - positions.mean(axis=0)
        return [
            f"HETATM{place + 100 * number:5d}  {atom.GetSymbol()}{place:<2d} {residue} A{number:4d}    "
            f"{x:8.3f}{y:8.3f}{z:8.3f}  1.00  0.00           {atom.GetSymbol()}"
            for place, (atom, (x, y, z)) in enumerate(zip(bare.GetAtoms(), positions, strict=True))
        ]

    def embedded(molecule: Any) -> Any:
        molecule = Chem.AddHs(molecule)
        AllChem.EmbedMolecule(molecule, randomSeed=1)
        return molecule

    peptide = embedded(Chem.MolFromSequence("GASG"))
    text = Chem.MolToPDBBlock(Chem.RemoveHs(peptide)).replace("HETATM", "ATOM  ")
    protein = [line for line in text.splitlines() if line.startswith("ATOM")]
    center = [sum(float(line[30 + 8 * axis : 38 + 8 * axis]) for line in protein) / len(protein) for axis in range(3)]
    assert max(map(abs, center)) < 3
    phenol = lines(embedded(Chem.MolFromSmiles(PHENOL)), "LIG", 301, 12.0)
    ethanol = lines(embedded(Chem.MolFromSmiles("CCO")), "EOH", 302, 18.0)
    return "\n".join([*protein, *phenol, *ethanol, "END"])


@pytest.fixture
def pdb(tmp_path: Path) -> Path:
    path = tmp_path / "peptide.pdb"
    path.write_text(structure())
    return path


def test_the_native_ligand_of_the_shipped_target_is_found_again(tmp_path: Path) -> None:
    prepared = prepare(Request(docking=FAST))
    assert prepared.redocking is not None
    assert prepared.redocking.rmsd < 1.0
    assert prepared.redocking.score == pytest.approx(-8.7, abs=0.5)
    assert prepared.notes == ()
    written = write_target(prepared, tmp_path / "target")
    assert sorted(written) == ["ligand", "receptor", "redocked", "target"]
    assert load_target(tmp_path / "target") == prepared.target
    with Chem.SDMolSupplier(str(written["redocked"])) as supplier:
        assert next(supplier).GetNumHeavyAtoms() == 19
    described = json.loads(written["target"].read_text())
    assert described["redocking"]["rmsd_angstrom"] == pytest.approx(prepared.redocking.rmsd, abs=1e-3)
    with pytest.raises(ConfigurationError, match="holds a target already"):
        write_target(prepared, tmp_path / "target")


def test_a_ligand_in_the_structure_gives_the_box(pdb: Path) -> None:
    without = prepare(Request(receptor=str(pdb), ligand="LIG"))
    assert without.target.box.center[0] == pytest.approx(12, abs=1.5)
    assert without.target.box.size == (20.0, 20.0, 20.0)
    assert without.redocking is None
    assert ["EOH A:302 touches" in without.notes[0], "--ligand-smiles" in without.notes[1]] == [True, True]
    kept = prepare(
        Request(
            receptor=str(pdb), ligand="A:301", ligand_smiles=PHENOL, cofactors={"EOH": "CCO"}, edge=15, docking=FAST
        )
    )
    assert kept.ligand is not None
    assert (kept.ligand.smiles, kept.ligand.name) == (PHENOL, "LIG A:301")
    assert kept.target.box.size == (15.0, 15.0, 15.0)
    assert kept.target.name == "peptide.pdb with EOH"
    assert "EOH" in kept.target.pdbqt
    assert kept.redocking is not None
    assert kept.notes == ()


def test_a_ligand_that_is_still_in_the_receptor_is_told(pdb: Path) -> None:
    prepared = prepare(Request(receptor=str(pdb), ligand="LIG", cofactors={"LIG": PHENOL}, redock=False))
    assert prepared.notes[0].startswith("7 atoms of the ligand stand where the receptor has an atom")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({}, r"Write --ligand .* which holds LIG \(7 atoms\)"),
        ({"ligand": "XYZ"}, 'no ligand "XYZ". Its other residues: EOH, LIG'),
        ({"ligand": "B:7"}, 'no ligand "B:7"'),
        ({"ligand": "nowhere.sdf"}, "No ligand can be read"),
        ({"ligand": "LIG", "ligand_smiles": "CCO"}, "do not fit the SMILES"),
        ({"ligand": "LIG", "chains": ("Z",)}, "no ATOM lines in the chains Z"),
        ({"receptor": "", "cofactors": {"HEM": "C"}}, "taken as it is"),
    ],
)
def test_what_is_missing_is_said(pdb: Path, change: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        prepare(replace(Request(receptor=str(pdb), redock=False), **change))


def test_a_box_by_numbers_needs_no_ligand() -> None:
    prepared = prepare(Request(receptor=str(DATA / "1ia1.pdbqt"), center=(10.0, 36.0, 18.0), edge=18))
    assert prepared.target.box == Box(center=(10.0, 36.0, 18.0), size=(18.0, 18.0, 18.0))
    assert (prepared.ligand, prepared.redocking) == (None, None)


def _as_mol2(molecule: Any) -> str:
    atoms = [
        f"{atom.GetIdx() + 1} {atom.GetSymbol()}{atom.GetIdx()} {x:.3f} {y:.3f} {z:.3f} {atom.GetSymbol()} 1 LIG 0"
        for atom, (x, y, z) in zip(molecule.GetAtoms(), molecule.GetConformer().GetPositions(), strict=True)
    ]
    bonds = [
        f"{bond.GetIdx() + 1} {bond.GetBeginAtomIdx() + 1} {bond.GetEndAtomIdx() + 1} {bond.GetBondTypeAsDouble():.0f}"
        for bond in molecule.GetBonds()
    ]
    head = f"@<TRIPOS>MOLECULE\nLIG\n{len(atoms)} {len(bonds)} 1\nSMALL\nNO_CHARGES\n"
    return head + "\n".join(["@<TRIPOS>ATOM", *atoms, "@<TRIPOS>BOND", *bonds, ""])


def test_ligands_are_read_from_files(tmp_path: Path) -> None:
    native = shipped_ligand().molecule
    kekulized = Chem.AddHs(native, addCoords=True)
    Chem.Kekulize(kekulized, clearAromaticFlags=True)
    (tmp_path / "l.mol2").write_text(_as_mol2(kekulized))
    (tmp_path / "l.pdb").write_text(Chem.MolToPDBBlock(native))
    smiles = shipped_ligand().smiles
    for path in (DATA / "1ia1_ligand.sdf", tmp_path / "l.mol2", tmp_path / "l.pdb"):
        found = read_ligand(str(path), "", smiles if path.suffix == ".pdb" else "")
        assert found.smiles == smiles
        assert found.box() == shipped_ligand().box()
    (tmp_path / "bare.mol2").write_text(_as_mol2(Chem.RemoveHs(kekulized)))
    with pytest.raises(ConfigurationError, match="cannot be read by RDKit"):
        read_ligand(str(tmp_path / "bare.mol2"), "")
    (tmp_path / "flat.mol").write_text(Chem.MolToMolBlock(Chem.MolFromSmiles("CCO")))
    with pytest.raises(ConfigurationError, match="is a drawing"):
        read_ligand(str(tmp_path / "flat.mol"), "")
    (tmp_path / "empty.sdf").write_text("")
    with pytest.raises(ConfigurationError, match="cannot be read by RDKit"):
        read_ligand(str(tmp_path / "empty.sdf"), "")


def test_a_ligand_that_cannot_be_docked_says_why() -> None:
    target = Target.of(shipped_target().pdbqt, Box(center=(0, 0, 0), size=(20, 20, 20)), name="x")
    with pytest.raises(ConfigurationError, match="TQ3 could not be docked"):
        redock(shipped_ligand(), target, Docking(max_heavy_atoms=5))


def atom(serial: int, name: str, residue: str, chain: str = "A", alt: str = " ", kind: str = "ATOM") -> str:
    return (
        f"{kind:<6}{serial:5d} {name:^4}{alt}{residue:>3} {chain}{serial // 10:4d}       1.000   1.000   1.000  1.00"
        f"  0.00          {name[:2] if name == 'SE' else name[0]:>2}"
    )


def test_of_a_structure_the_first_model_and_place_count() -> None:
    lines = [
        "MODEL        1",
        atom(10, "N", "ALA"), atom(11, "CA", "ALA", alt="A"), atom(12, "CA", "ALA", alt="B"),
        atom(21, "CA", "GLY", alt="B"), atom(31, "CA", "GLY", chain="B"),
        atom(41, "SE", "MSE", kind="HETATM"), atom(51, "SG", "CSO", kind="HETATM"),
        atom(52, "OD", "CSO", kind="HETATM"),
        "ENDMDL", atom(61, "CA", "VAL"),
    ]  # fmt: skip
    kept = [(line[:6].strip(), line[12:16].strip(), line[16], line[17:20]) for line in pdb_atoms("\n".join(lines), "A")]
    assert kept == [
        ("ATOM", "N", " ", "ALA"), ("ATOM", "CA", " ", "ALA"), ("ATOM", "CA", " ", "GLY"),
        ("ATOM", "SD", " ", "MET"), ("ATOM", "SG", " ", "CYS"),
    ]  # fmt: skip
    methionine = next(line for line in pdb_atoms("\n".join(lines)) if line[17:20] == "MET")
    assert (methionine[30:38].strip(), methionine[76:78].strip()) == ("1.000", "S")


def test_residues_without_a_template_are_left_out_if_wanted(pdb: Path) -> None:
    text = pdb.read_text().replace("SER", "XYZ")
    with pytest.raises(ConfigurationError, match=r"do not fit XYZ A:3\..*--drop-unknown"):
        prepare_receptor(text)
    notes: list[str] = []
    kept = prepare_receptor(text, drop_unknown=True, notes=notes)
    assert "ALA" in kept
    assert "do not fit XYZ A:3" in notes[0]


def test_an_entry_of_the_protein_data_bank_is_fetched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    asked: list[str] = []

    def answer(url: str, timeout: float) -> io.BytesIO:
        asked.append(url)
        assert timeout <= 60
        return io.BytesIO(structure().encode())

    monkeypatch.setattr(receptor, "urlopen", answer)
    assert prepare(Request(receptor="1abc", ligand="LIG")).target.name == "1abc"
    assert asked == ["https://files.rcsb.org/download/1ABC.pdb"]

    def refuse(url: str, timeout: float) -> None:
        raise URLError(f"no way to {url} in {timeout} s")

    monkeypatch.setattr(receptor, "urlopen", refuse)
    with pytest.raises(ConfigurationError, match=r"1ABC could not be fetched.*give the file"):
        prepare(Request(receptor="1abc"))


def test_no_target_in_a_folder_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="screen prepare RECEPTOR"):
        load_target(tmp_path)
    (tmp_path / "target.json").write_text('{"receptor": "x"}')
    with pytest.raises(ConfigurationError, match="holds no target"):
        load_target(tmp_path)


@pytest.fixture
def command() -> Callable[..., None]:
    app = typer.Typer()
    app.callback()(lambda: None)
    screen_prepare.register(app)
    return lambda *options: app(["prepare", *map(str, options)], standalone_mode=False)


def test_the_command(
    pdb: Path, tmp_path: Path, command: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    command(pdb, "--ligand", "LIG", "--cofactor", "EOH=CCO", "--chain", "A", "--no-redock", "--out", tmp_path / "t")
    said = capsys.readouterr().out
    assert "peptide.pdb with EOH" in said
    assert "LIG A:301" in said
    assert f"screen run --target {tmp_path / 't'}" in said
    assert load_target(tmp_path / "t").box.size == (20.0, 20.0, 20.0)
    with pytest.raises(ConfigurationError, match="holds a target already"):
        command(pdb, "--ligand", "LIG", "--out", tmp_path / "t")
    with pytest.raises(ConfigurationError, match="is not RESIDUE=SMILES"):
        command(pdb, "--ligand", "LIG", "--cofactor", "EOH", "--out", tmp_path / "u")


@pytest.mark.parametrize(("rmsd", "warned"), [(0.5, False), (2.5, True)])
def test_a_place_that_is_not_found_is_a_warning(rmsd: float, *, warned: bool) -> None:
    redocking = Redocking(rmsd=rmsd, score=-7.0, seconds=3.0, molecule=None)
    prepared = Prepared(
        request=Request(), target=shipped_target(), ligand=shipped_ligand(), redocking=redocking, notes=("look",)
    )
    console = Console(file=io.StringIO(), width=200)
    screen_prepare.show(prepared, console)
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert f"{rmsd:.2f} Å from its place" in said
    assert "Note: look" in said
    assert ("Warning: more than 2 Å" in said, "--exhaustiveness 32" in said) == (warned, warned)
