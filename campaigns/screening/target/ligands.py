"""The ligand that a crystal structure was solved with: where the box belongs, and what docking must find again."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import numpy as np
from meeko import PDBQTMolecule, RDKitMolCreate
from numpy.typing import NDArray
from rdkit import Chem
from rdkit.Chem import rdMolAlign
from rdkit.rdBase import BlockLogs

from diaspora_parsl.errors import ConfigurationError

from ..objectives import DockingObjective
from ..objectives.app import ScoringProcess
from ..settings import Box, Docking, Target
from .receptor import pdb_atoms, residue_blocks, with_bond_orders

#: Å around the ligand on each side, and the least edge: room for ligands that are larger than the native one.
PADDING: Final = 5.0
LEAST_EDGE: Final = 20.0
#: Å from the native place within which a pose counts as the same: the usual measure of redocking.
GOOD_RMSD: Final = 2.0
#: Å between atoms of different molecules that do not happen.
_CLASH: Final = 1.0
#: Å between atoms that touch.
_CONTACT: Final = 4.5


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Ligand:
    """A ligand in its place."""

    name: str
    positions: NDArray[np.float64]
    """Of the heavy atoms, of shape (atoms, 3), in Å."""
    molecule: Any = None
    """RDKit molecule without hydrogens; None if its bond orders are unknown."""

    @property
    def smiles(self) -> str:
        """Canonical, stereochemistry as in the structure; empty if the bond orders are unknown."""
        return "" if self.molecule is None else str(Chem.MolToSmiles(self.molecule))

    def box(self, edge: float | None = None) -> Box:
        """A box around it.

        Args:
            edge: in Å; by default as large as the ligand needs.

        Raises:
            ConfigurationError: the ligand is too large to be docked.
        """
        low, high = self.positions.min(axis=0), self.positions.max(axis=0)
        x, y, z = (round(float(one), 3) for one in (low + high) / 2)
        edges = [edge or max(LEAST_EDGE, round(float(one) + 2 * PADDING, 1)) for one in high - low]
        return Box(center=(x, y, z), size=(edges[0], edges[1], edges[2]))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Redocking:
    """The native ligand, docked from its SMILES."""

    rmsd: float
    """Å between docked and native heavy atoms, symmetry considered, nothing aligned."""
    score: float
    """kcal/mol."""
    seconds: float
    molecule: Any
    """RDKit molecule in the docked pose."""

    @property
    def good(self) -> bool:
        """Whether docking finds the native place."""
        return self.rmsd <= GOOD_RMSD


def shipped_ligand() -> Ligand:
    """The inhibitor of the shipped target."""
    return _of_molecule(
        Chem.MolFromMolFile(str(files("diaspora_parsl.campaigns.screening") / "data" / "1ia1_ligand.sdf")), "TQ3"
    )


def read_ligand(given: str, pdb: str, smiles: str = "", chains: Collection[str] = ()) -> Ligand:
    """A ligand from a file, or from the structure itself.

    Args:
        given: path of an ``.sdf``, ``.mol``, ``.mol2`` or ``.pdb`` file; or a residue of the structure, such as
            ``TQ3`` (the first of that name) or ``A:301``.
        pdb: text of the structure; empty if it is none.
        smiles: bond orders for a residue, or for a ``.pdb`` file, which hold none; without it there is only a place.
        chains: of the structure, that are looked at; empty for all.

    Raises:
        ConfigurationError: there is no such ligand; the message says what there is.
    """
    path = Path(given)
    kind = path.suffix.lower()
    with BlockLogs():
        if path.is_file():
            if kind in (".sdf", ".mol"):
                try:
                    with Chem.SDMolSupplier(str(path)) as supplier:
                        return _of_molecule(next(iter(supplier), None), path.stem)
                except OSError:  # RDKit's word for an empty file
                    return _of_molecule(None, path.stem)
            if kind == ".mol2":
                return _of_molecule(Chem.MolFromMol2File(str(path)), path.stem)
            if kind == ".pdb":
                block = path.read_text(encoding="utf-8", errors="replace")
                return _of_block("\n".join(pdb_atoms(block)), path.stem, smiles)
        elif not kind:
            return _of_residue(given, pdb, smiles, chains)
    raise ConfigurationError(f"No ligand can be read from {given}. Write a .sdf, .mol, .mol2 or .pdb file, a residue.")


def _of_residue(given: str, pdb: str, smiles: str, chains: Collection[str]) -> Ligand:
    atoms = list(pdb_atoms(pdb, chains))
    names = sorted({line[17:20].strip() for line in atoms if line.startswith("HETATM")})
    for name in [given] if ":" not in given else names:
        blocks = residue_blocks(atoms, name)
        place = next(iter(blocks), "") if ":" not in given else given
        if place in blocks:
            return _of_block(blocks[place], f"{name} {place}", smiles)
    there = ", ".join(names) or "none: a .pdbqt, or a protein alone"
    raise ConfigurationError(f'The structure has no ligand "{given}". Its other residues: {there}.')


def _of_block(block: str, name: str, smiles: str) -> Ligand:
    if smiles:
        return _of_molecule(with_bond_orders(block, smiles, name), name)
    heavy = [line for line in block.splitlines() if line[76:78].strip() not in ("H", "D")]
    try:
        positions = np.array([[line[30:38], line[38:46], line[46:54]] for line in heavy], dtype=np.float64)
    except ValueError as error:
        raise ConfigurationError(f"The atoms of {name} have no coordinates: {error}.") from error
    if not len(positions):
        raise ConfigurationError(f"The ligand {name} has no atoms.")
    return Ligand(name=name, positions=positions)


def _of_molecule(molecule: Any, name: str) -> Ligand:
    if molecule is None or not molecule.GetNumHeavyAtoms() or not molecule.GetNumConformers():
        raise ConfigurationError(f"The ligand {name} cannot be read by RDKit, or has no coordinates.")
    if not molecule.GetConformer().Is3D():
        raise ConfigurationError(f"The ligand {name} is a drawing. Write it with its coordinates in the structure.")
    bare = Chem.RemoveHs(molecule)
    Chem.AssignStereochemistryFrom3D(bare)
    if any(atom.GetNumRadicalElectrons() for atom in bare.GetAtoms()):
        raise ConfigurationError(f"The ligand {name} has atoms without their hydrogens. Write it as .sdf, or with all.")
    return Ligand(name=name, positions=np.array(bare.GetConformer().GetPositions()), molecule=bare)


def clashes(ligand: Ligand, pdbqt: str) -> int:
    """How many atoms of the ligand stand where the receptor has one: more than a few, and it is still in there."""
    lines = [line for line in pdbqt.splitlines() if line.startswith(("ATOM", "HETATM"))]
    atoms = np.array([[float(line[30:38]), float(line[38:46]), float(line[46:54])] for line in lines])
    near = np.linalg.norm(ligand.positions[:, None] - atoms[None], axis=2).min(axis=1) < _CLASH
    return int(near.sum())


def left_out(ligand: Ligand, pdb: str, kept: Collection[str], chains: Collection[str]) -> list[str]:
    """What touches the ligand in the structure, water aside, but is no part of the receptor."""
    found = []
    atoms = [line for line in pdb_atoms(pdb, chains) if line.startswith("HETATM")]
    for name in sorted({line[17:20].strip() for line in atoms} - set(kept) - {"HOH", "WAT", "DOD"}):
        for place, block in residue_blocks(atoms, name).items():
            positions = _of_block(block, name, "").positions
            near = float(np.linalg.norm(positions[:, None] - ligand.positions[None], axis=2).min())
            if _CLASH < near < _CONTACT:  # nearer, and it is the ligand itself
                found.append(f"{name} {place}")
    return found


def redock(ligand: Ligand, target: Target, docking: Docking) -> Redocking:
    """Dock a native ligand from its SMILES, as any molecule of a campaign, and compare with its place.

    Raises:
        ConfigurationError: it cannot be docked; the message says why.
    """
    process = ScoringProcess()
    try:
        began = time.monotonic()
        result = process.score(ligand.smiles, DockingObjective(target=target, docking=docking))
        seconds = time.monotonic() - began
    finally:
        process.close()
    if result.score is None:
        raise ConfigurationError(
            f"The native ligand {ligand.name} could not be docked ({result.status}): {result.detail}"
        )
    with BlockLogs():
        docked = RDKitMolCreate.from_pdbqt_mol(PDBQTMolecule(result.pose, skip_typing=True))[0]
        rmsd = float(rdMolAlign.CalcRMS(Chem.RemoveHs(docked), Chem.Mol(ligand.molecule)))
    return Redocking(rmsd=rmsd, score=result.score, seconds=seconds, molecule=docked)
