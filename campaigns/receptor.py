"""Receptors: the one that is shipped, and the user's own from PDBQT or PDB."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

from diaspora_parsl.campaigns.settings import Box, Target
from diaspora_parsl.errors import ConfigurationError

#: NADPH as it stands in 1IA1 (residue NDP), phosphates ionised.
NADPH = (
    "NC(=O)C1=CN(C=CC1)[C@@H]1O[C@H](COP([O-])(=O)OP([O-])(=O)OC[C@H]2O[C@H]([C@H](OP([O-])([O-])=O)[C@@H]2O)"
    "n2cnc3c(N)ncnc23)[C@@H](O)[C@H]1O"
)
DHFR_BOX = Box(center=(10.259, 36.337, 18.564), size=(20.0, 20.0, 20.0))
_ATOM = ("ATOM", "HETATM")


def shipped_target() -> Target:
    """Dihydrofolate reductase of Candida albicans with NADPH (PDB 1IA1), and the box around its inhibitor."""
    text = (files("diaspora_parsl.campaigns") / "data" / "1ia1.pdbqt").read_text(encoding="ascii")
    return Target.of(text, DHFR_BOX, name="Candida albicans DHFR with NADPH (PDB 1IA1)")


def load_receptor(path: Path, cofactors: Mapping[str, str] | None = None) -> str:
    """The PDBQT text of a receptor file.

    Args:
        path: a ``.pdbqt``, taken as it is, or a ``.pdb``, prepared by meeko.
        cofactors: residue name to SMILES, for the HETATM residues of a PDB file that are to be kept.

    Raises:
        ConfigurationError: the file cannot be read as a receptor; the message says what to do.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise ConfigurationError(f"The receptor {path} cannot be read: {error.strerror}.") from error
    if not any(line.startswith(_ATOM) for line in text.splitlines()):
        raise ConfigurationError(f"{path} has no ATOM lines. Write a receptor as .pdb or .pdbqt.")
    if path.suffix.lower() == ".pdbqt":
        return text
    if path.suffix.lower() == ".pdb":
        return prepare_receptor(text, cofactors)
    raise ConfigurationError(f"{path.name} is neither .pdb nor .pdbqt. Convert it, or rename it to what it is.")


def prepare_receptor(pdb: str, cofactors: Mapping[str, str] | None = None) -> str:
    """Prepare a protein for docking: hydrogens, charges and atom types by meeko's residue templates.

    HETATM residues (water, ions, ligands) are left out unless they are named as cofactors.

    Raises:
        ConfigurationError: meeko knows no template for a residue, or a cofactor does not fit its SMILES.
    """
    from meeko import MoleculePreparation, PDBQTWriterLegacy, Polymer, ResidueChemTemplates  # noqa: PLC0415 - slow

    atoms = [line for line in pdb.splitlines() if line.startswith(_ATOM)]
    protein = "\n".join(line for line in atoms if line.startswith("ATOM"))
    try:
        polymer = Polymer.from_pdb_string(
            protein + "\nTER\nEND\n", ResidueChemTemplates.create_from_defaults(), MoleculePreparation()
        )
        rigid = PDBQTWriterLegacy.write_from_polymer(polymer)[0]
    except Exception as error:  # meeko raises many types; all of them mean that this file needs the user's attention
        raise ConfigurationError(
            f"meeko could not prepare the receptor: {error}. Repair the residues it names, or prepare it with "
            "mk_prepare_receptor.py and pass the .pdbqt."
        ) from error
    lines = [line for line in rigid.splitlines() if line.startswith(_ATOM)]
    for residue, smiles in (cofactors or {}).items():
        block = "\n".join(line for line in atoms if line.startswith("HETATM") and line[17:20].strip() == residue)
        if not block:
            raise ConfigurationError(f'The receptor has no residue "{residue}" to keep as a cofactor.')
        lines += _rigid_cofactor(block, smiles, residue)
    return "\n".join(lines) + "\n"


def _rigid_cofactor(block: str, smiles: str, residue: str) -> list[str]:
    """The atoms of a cofactor as rigid PDBQT lines, its bond orders taken from a SMILES."""
    from meeko import MoleculePreparation, PDBQTWriterLegacy  # noqa: PLC0415 - slow
    from rdkit import Chem  # noqa: PLC0415 - slow
    from rdkit.Chem import AllChem  # noqa: PLC0415 - slow

    template = Chem.MolFromSmiles(smiles)
    found = Chem.MolFromPDBBlock(block + "\nEND\n", removeHs=True)
    try:
        typed = Chem.AddHs(AllChem.AssignBondOrdersFromTemplate(template, found), addCoords=True)
    except Exception as error:  # RDKit and Boost raise their own types here
        raise ConfigurationError(f'The atoms of "{residue}" do not fit the SMILES {smiles}: {error}') from error
    text, good, problem = PDBQTWriterLegacy.write_string(MoleculePreparation().prepare(typed)[0])
    if not good:
        raise ConfigurationError(f'meeko could not prepare the cofactor "{residue}": {problem}')
    return [
        line[:17] + f"{residue:>3}" + line[20:] if line[17:20] == "UNL" else line
        for line in text.splitlines()
        if line.startswith(_ATOM)
    ]
