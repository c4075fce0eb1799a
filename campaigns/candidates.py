"""Candidates: the readable, distinct molecules of a library with their fingerprints, as few bytes each as possible."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from rdkit import Chem
from rdkit.Chem import rdFingerprintGenerator
from rdkit.rdBase import BlockLogs

from diaspora_parsl.campaigns.library import Entry
from diaspora_parsl.campaigns.records import Row
from diaspora_parsl.errors import ConfigurationError

FINGERPRINT_BITS: Final = 2048


class Candidates:
    """What can be chosen from.

    Attributes:
        entries: place in the library, name and canonical SMILES of each candidate.
        fingerprints: atom-pair fingerprints, packed: ``uint8`` of shape (candidates, 256).
        refused: rows for what is no candidate, with the reason.
    """

    def __init__(self, entries: list[Entry], fingerprints: NDArray[np.uint8], refused: list[Row]) -> None:
        self.entries = entries
        self.fingerprints = fingerprints
        self.refused = refused

    def __len__(self) -> int:
        return len(self.entries)


def find_candidates(library: Iterable[Entry]) -> Candidates:
    """Read a library once: make SMILES canonical, strip salts to their largest part, refuse doubles and garbage.

    Raises:
        ConfigurationError: there is not one readable molecule.
    """
    # Atom pairs up to three bonds: the fingerprint that chose best on a published docking oracle.
    generator = rdFingerprintGenerator.GetAtomPairGenerator(fpSize=FINGERPRINT_BITS, minDistance=1, maxDistance=3)
    entries: list[Entry] = []
    packed: list[NDArray[np.uint8]] = []
    refused: list[Row] = []
    seen: dict[str, int] = {}
    for molecule, name, smiles in library:
        with BlockLogs():
            # RDKit skips over bytes that are no SMILES at all, and reads what stands behind them.
            readable = smiles.isascii() and smiles.isprintable() and bool(smiles)
            parsed = _largest_part(Chem.MolFromSmiles(smiles)) if readable else None
        if parsed is None:
            refused.append(_refused(molecule, name, smiles, "parse", "RDKit cannot read this SMILES."))
            continue
        canonical = Chem.MolToSmiles(parsed)
        if canonical in seen:
            detail = f"The same as number {seen[canonical]} of the library."
            refused.append(_refused(molecule, name, canonical, "duplicate", detail))
            continue
        seen[canonical] = molecule
        entries.append(Entry(molecule, name, canonical))
        packed.append(np.packbits(generator.GetFingerprintAsNumPy(parsed)))
    if not entries:
        raise ConfigurationError(f"The library has no readable molecule ({len(refused)} unreadable lines).")
    return Candidates(entries, np.stack(packed), refused)


def _largest_part(molecule: Any) -> Any:
    """A molecule without its counter-ions and solvents; None if there is none."""
    if molecule is None or not molecule.GetNumAtoms():
        return None
    parts = Chem.GetMolFrags(molecule, asMols=True, sanitizeFrags=False)
    if len(parts) == 1:
        return molecule
    return Chem.MolFromSmiles(Chem.MolToSmiles(max(parts, key=lambda part: part.GetNumHeavyAtoms())))


def _refused(molecule: int, name: str, smiles: str, status: Any, detail: str) -> Row:
    return Row(molecule=molecule, name=name, smiles=smiles, status=status, detail=detail)
