"""From a SMILES to a molecule in space, in the same way at every site; RDKit is loaded where this is called."""

from __future__ import annotations

from typing import Any

from ..objective import Refused, Scope, seed_of


def parse(smiles: str, scope: Scope, *, code: str) -> Any:
    """A SMILES as an RDKit molecule that an objective can be asked about.

    Args:
        smiles: of one molecule.
        scope: what the code can be asked about.
        code: its name, for the reason.

    Raises:
        Refused: with the status ``parse`` or ``prepare``.
    """
    from rdkit import Chem, RDLogger  # noqa: PLC0415 - slow

    RDLogger.DisableLog("rdApp.*")
    molecule = Chem.MolFromSmiles(smiles)
    if molecule is None or not molecule.GetNumAtoms():
        raise Refused("parse", "RDKit cannot read this SMILES.")
    if reason := out_of_scope(molecule, scope, code=code):
        raise Refused("prepare", reason)
    if (parts := len(Chem.GetMolFrags(molecule))) > 1:
        raise Refused("prepare", f"{parts} separate molecules cannot be scored as one.")
    return molecule


def out_of_scope(molecule: Any, scope: Scope, *, code: str) -> str:
    """Why a code cannot be asked about a molecule; empty if it can."""
    if scope.elements is not None:
        symbols = {atom.GetSymbol() for atom in molecule.GetAtoms()}
        if unknown := sorted(symbols - scope.elements):
            return f"{code} has no parameters for {', '.join(unknown)}."
    size = molecule.GetNumHeavyAtoms()
    if scope.max_heavy_atoms and size > scope.max_heavy_atoms:
        return f"{size} heavy atoms are more than the limit of {scope.max_heavy_atoms}."
    return ""


def embed(molecule: Any) -> tuple[Any, int]:
    """One conformer with hydrogens, relaxed by MMFF94 where that has parameters; and its seed.

    Raises:
        Refused: with the status ``embed``.
    """
    from rdkit import Chem  # noqa: PLC0415 - slow
    from rdkit.Chem import AllChem  # noqa: PLC0415 - slow

    seed = seed_of(Chem.MolToSmiles(molecule))
    solid = Chem.AddHs(molecule)
    for random_start in (False, True):  # the second way is slower and succeeds on strained rings
        if AllChem.EmbedMolecule(solid, randomSeed=seed, useRandomCoords=random_start, maxAttempts=50) == 0:
            break
    else:
        raise Refused("embed", "RDKit found no three-dimensional shape.")
    if AllChem.MMFFHasAllMoleculeParams(solid):
        AllChem.MMFFOptimizeMolecule(solid, maxIters=200)
    return solid, seed
