from __future__ import annotations

import numpy as np
from rdkit import Chem

from diaspora_parsl.campaigns.screening.chemistry.fingerprints import fingerprint


def similarity(one: str, other: str) -> float:
    first, second = (np.unpackbits(fingerprint(Chem.MolFromSmiles(smiles))) for smiles in (one, other))
    return float((first & second).sum() / (first | second).sum())


def test_it_is_256_bytes_and_the_same_however_a_molecule_is_written() -> None:
    bits = fingerprint(Chem.MolFromSmiles("OCC"))
    assert bits.dtype == np.uint8
    assert bits.shape == (256,)
    assert similarity("OCC", "C(O)C") == 1.0


def test_it_stays_what_it_is() -> None:
    # Fingerprints in a store and those of a worker must agree, whatever the machine.
    assert np.flatnonzero(np.unpackbits(fingerprint(Chem.MolFromSmiles("CO")))).tolist() == [340, 1445, 1513, 1565]


def test_it_counts() -> None:
    assert similarity("c1ccccc1", "c1ccc(-c2ccccc2)cc1") < 0.75
    assert similarity("CCCCCC", "CCCCCCCCCCCC") < 0.7


def test_like_is_more_alike_than_unlike() -> None:
    assert similarity("CCOc1ccccc1", "CCCOc1ccccc1") > 0.5 > similarity("CCOc1ccccc1", "O=S(=O)(N)CC1CC1")


def test_an_atom_alone_has_bits() -> None:
    assert fingerprint(Chem.MolFromSmiles("C")).any()
