"""A library made from scratch: every shipped acid coupled with every shipped amine, what is not drug-like left out."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from importlib.resources import files
from typing import Any, Final

from rdkit import Chem
from rdkit.Chem import AllChem, Descriptors, rdMolDescriptors

from ..records import Entry

#: Amide coupling: a carboxylic acid and a primary or secondary amine that is no amide, sulfonamide or aromatic N.
_COUPLING: Final = (
    "[CX3:1](=[O:2])[OX2H1].[NX3;H1,H2;!$(N[C,S]=[O,N]);!$(N-c:[n]);!$([nH]):3]>>[C:1](=[O:2])[N:3]",
    "[CX3:1](=[O:2])[OX2H1].[NX3;H1,H2;!$(N[C,S]=[O,N]);!$([nH]):3]>>[C:1](=[O:2])[N:3]",
)


def building_blocks(kind: str) -> list[tuple[str, str]]:
    """Name and SMILES of the shipped ``acid`` or ``amine`` building blocks."""
    text = (files("diaspora_parsl.campaigns.screening") / "data" / "building_blocks.csv").read_text(encoding="utf-8")
    return [(row["name"], row["smiles"]) for row in csv.DictReader(text.splitlines()) if row["kind"] == kind]


def is_drug_like(molecule: Any) -> bool:
    """Lipinski's and Veber's limits, a little tightened so that one docking stays cheap."""
    return bool(
        200 <= Descriptors.MolWt(molecule) <= 460  # noqa: PLR2004 - the limits are the point
        and Descriptors.MolLogP(molecule) <= 5  # noqa: PLR2004
        and rdMolDescriptors.CalcNumHBD(molecule) <= 5  # noqa: PLR2004
        and rdMolDescriptors.CalcTPSA(molecule) <= 140  # noqa: PLR2004
        and rdMolDescriptors.CalcNumRotatableBonds(molecule) <= 7  # noqa: PLR2004
    )


def combinatorial_library(limit: int | None = None) -> Iterator[Entry]:
    """Every drug-like amide of the building blocks, in a fixed order: about 3,000 in a few seconds.

    Args:
        limit: stop after this many.
    """
    reactions = [AllChem.ReactionFromSmarts(smarts) for smarts in _COUPLING]
    acids = [(name, Chem.MolFromSmiles(smiles)) for name, smiles in building_blocks("acid")]
    amines = [(name, Chem.MolFromSmiles(smiles)) for name, smiles in building_blocks("amine")]
    seen: set[str] = set()
    for acid_name, acid in acids:
        for amine_name, amine in amines:
            smiles = _couple(reactions, acid, amine)
            if smiles is None or smiles in seen or not is_drug_like(Chem.MolFromSmiles(smiles)):
                continue
            seen.add(smiles)
            yield Entry(len(seen) - 1, f"{acid_name} + {amine_name}", smiles)
            if limit is not None and len(seen) >= limit:
                return


def _couple(reactions: list[Any], acid: Any, amine: Any) -> str | None:
    """The amide of two building blocks; an amine beside a ring nitrogen reacts only if there is no better one."""
    for reaction in reactions:
        products = reaction.RunReactants((acid, amine), 1)
        if products:
            Chem.SanitizeMol(products[0][0])
            return str(Chem.MolToSmiles(products[0][0]))
    return None
