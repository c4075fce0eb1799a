"""The fingerprint of a molecule: how often each atom pair and each atom environment occurs, in 256 bytes."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import rdkit
from numpy.typing import NDArray
from rdkit.Chem import rdFingerprintGenerator

FINGERPRINT_BITS: Final = 2048
#: Names what is stored: another kind, or another RDKit, makes another store.
FINGERPRINT: Final = (
    f"counts of atom pairs of 1 to 3 bonds and Morgan environments of radius 0 to 2, one bit each time, "
    f"{FINGERPRINT_BITS} bits, RDKit {rdkit.__version__}"
)

# What reaches how far in a molecule decides little about a score; what is near what, and how often, decides much.
_GENERATORS: Final = (
    rdFingerprintGenerator.GetAtomPairGenerator(minDistance=1, maxDistance=3),
    rdFingerprintGenerator.GetMorganGenerator(radius=2),
)


def fingerprint(molecule: Any) -> NDArray[np.uint8]:
    """Packed bits: a feature that occurs three times sets three bits, each hashed on its own.

    So the Tanimoto similarity of two such fingerprints is, but for collisions, the MinMax similarity of the counts
    (Ralaivola et al. 2005, Neural Networks 18, eq. 16), which knows a phenyl ring from two of them.

    Returns:
        ``uint8`` of shape (256,).
    """
    bits = np.zeros(FINGERPRINT_BITS, np.uint8)
    for kind, generator in enumerate(_GENERATORS):
        counted = generator.GetSparseCountFingerprint(molecule).GetNonzeroElements()
        features = np.fromiter(counted.keys(), np.uint64, len(counted))
        counts = np.fromiter(counted.values(), np.int64, len(counted))
        times = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        bits[_hashed(np.repeat(features, counts), times.astype(np.uint64), kind) % FINGERPRINT_BITS] = 1
    return np.packbits(bits)


def _hashed(features: NDArray[np.uint64], times: NDArray[np.uint64], kind: int) -> NDArray[np.uint64]:
    """Mix well, the same on every machine; multipliers of SplitMix64 (Steele et al. 2014, OOPSLA, fig. 17)."""
    salt = np.uint64(kind * 0x94D049BB133111EB % 2**64)
    mixed = features * np.uint64(0x9E3779B97F4A7C15) + times * np.uint64(0xBF58476D1CE4E5B9) + salt
    mixed ^= mixed >> np.uint64(30)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(27)
    mixed *= np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
