"""Novelty: how unlike a molecule is to what was known when the campaign began."""

from __future__ import annotations

from collections.abc import Sequence

from rdkit import Chem
from rdkit.Chem import rdFingerprintGenerator
from rdkit.DataStructs import BulkTanimotoSimilarity


def novelty(smiles: Sequence[str], known: Sequence[str]) -> list[float | None]:
    """One minus the Tanimoto similarity to the nearest known molecule, per molecule: 0 is known, 1 shares nothing.

    Similarity is that of Morgan fingerprints of radius 2, 2,048 bits (Rogers & Hahn 2010, J. Chem. Inf. Model. 50,
    742), at which chemists call two molecules similar from about 0.4 on.

    Args:
        smiles: the molecules, readable.
        known: what to compare with; a molecule among them is compared with the others.

    Returns:
        A number from 0 to 1 for each; None if there is nothing to compare with.
    """
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=2048)

    def fingerprint(one: str) -> object:
        return generator.GetFingerprint(Chem.MolFromSmiles(one))

    references = {one: fingerprint(one) for one in known}
    found = []
    for one in smiles:
        others = [reference for name, reference in references.items() if name != one]
        found.append(1 - max(BulkTanimotoSimilarity(fingerprint(one), others)) if others else None)
    return found
