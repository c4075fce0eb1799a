"""Batch computations on molecules: canonical forms, fingerprints, properties, scaffolds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rdkit import Chem
from rdkit.Chem import QED, Crippen, Descriptors, rdMolDescriptors
from rdkit.Chem.Scaffolds import MurckoScaffold
from rdkit.rdBase import BlockLogs

from ..objective import Scope, hash_of
from ..records import Entry, Row, Status
from .fingerprints import FINGERPRINT_BITS, fingerprint
from .shape import out_of_scope

#: A longer text is no molecule that anybody docks, and reading it takes long.
_LONGEST_SMILES: Final = 5_000
#: What a row keeps of a text that is refused.
_LONGEST_KEPT: Final = 1_000

PROPERTIES: Final[dict[str, Callable[[Any], float]]] = {
    "qed": QED.qed,
    "mw": Descriptors.MolWt,
    "logp": Crippen.MolLogP,
    "tpsa": rdMolDescriptors.CalcTPSA,
    "hbd": rdMolDescriptors.CalcNumHBD,
    "hba": rdMolDescriptors.CalcNumHBA,
    "rotatable_bonds": rdMolDescriptors.CalcNumRotatableBonds,
    "heavy_atoms": Chem.Mol.GetNumHeavyAtoms,
}


class Chunk(NamedTuple):
    """Some lines of a library, looked at."""

    entries: list[Entry]
    """The readable ones, canonical, with doubles."""
    hashes: NDArray[np.uint64]
    fingerprints: NDArray[np.uint8]
    """Packed, of shape (entries, 256)."""
    refused: list[Row]


def look_at(lines: list[Entry], scope: Scope) -> Chunk:
    """Make SMILES canonical, strip salts to their largest part, refuse what is unreadable or out of scope."""
    entries: list[Entry] = []
    hashes: list[int] = []
    packed: list[NDArray[np.uint8]] = []
    refused: list[Row] = []
    with BlockLogs():
        for line in lines:
            molecule, status, why = _read(line.smiles, scope)
            if molecule is None:
                refused.append(refusal(line, status, why))
                continue
            canonical = Chem.MolToSmiles(molecule)
            entries.append(Entry(line.molecule, line.name, canonical))
            hashes.append(hash_of(canonical))
            packed.append(fingerprint(molecule))
    shape = (len(packed), FINGERPRINT_BITS // 8)
    fingerprints = np.stack(packed) if packed else np.empty(shape, np.uint8)
    return Chunk(entries, np.array(hashes, np.uint64), fingerprints, refused)


def refusal(line: Entry, status: Status, detail: str) -> Row:
    """The row of a line that is no candidate."""
    smiles = line.smiles if len(line.smiles) <= _LONGEST_KEPT else line.smiles[:_LONGEST_KEPT] + "…"
    return Row(molecule=line.molecule, name=line.name, smiles=smiles, status=status, detail=detail)


def canonical_hashes(smiles: list[str]) -> NDArray[np.uint64]:
    """Return the hashes that `look_at` gives these molecules; 0 for an unreadable one."""
    with BlockLogs():
        found = [_read(one, Scope())[0] for one in smiles]
    return np.array([0 if one is None else hash_of(Chem.MolToSmiles(one)) for one in found], np.uint64)


def describe(smiles: list[str], names: Sequence[str]) -> NDArray[np.float32]:
    """Properties of molecules, of shape (molecules, names)."""
    found = np.empty((len(smiles), len(names)), np.float32)
    with BlockLogs():
        for place, text in enumerate(smiles):
            molecule = Chem.MolFromSmiles(text)
            found[place] = [PROPERTIES[name](molecule) for name in names]
    return found


def scaffold_hashes(smiles: list[str]) -> NDArray[np.uint64]:
    """Hashes of the Bemis-Murcko scaffolds; molecules without a ring share one.

    Method: Bemis & Murcko 1996, J. Med. Chem. 39, 2887.
    """
    with BlockLogs():
        scaffolds = [MurckoScaffold.GetScaffoldForMol(Chem.MolFromSmiles(text)) for text in smiles]
        return np.array([hash_of(Chem.MolToSmiles(one)) for one in scaffolds], np.uint64)


def _read(smiles: str, scope: Scope) -> tuple[Any, Status, str]:
    """An RDKit molecule, or None with a status and a reason."""
    if not smiles:
        return None, "parse", "There is no SMILES in this line."
    if len(smiles) > _LONGEST_SMILES:
        return None, "prepare", f"A SMILES of {len(smiles):,} characters is longer than {_LONGEST_SMILES:,}."
    # RDKit skips over bytes that are no SMILES at all, and reads what stands behind them.
    molecule = Chem.MolFromSmiles(smiles) if smiles.isascii() and smiles.isprintable() else None
    if molecule is None or not molecule.GetNumAtoms():
        return None, "parse", "RDKit cannot read this SMILES."
    if "." in smiles:
        parts = Chem.GetMolFrags(molecule, asMols=True, sanitizeFrags=False)
        if len(parts) > 1:
            # Read again: stereochemistry that depended on the other parts is gone then.
            molecule = Chem.MolFromSmiles(Chem.MolToSmiles(max(parts, key=lambda part: part.GetNumHeavyAtoms())))
            if molecule is None:
                return None, "parse", "RDKit cannot read the largest part of this SMILES."
    if why := out_of_scope(molecule, scope, code="The objective"):
        return None, "prepare", why
    return molecule, "ok", ""
