"""Receptors: the one that is shipped, and the user's own from PDBQT or PDB."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import redirect_stderr, redirect_stdout
from importlib.resources import files
from io import StringIO
from pathlib import Path
from typing import Any, Final
from urllib.error import URLError
from urllib.request import urlopen

from diaspora_parsl.errors import ConfigurationError

from ..settings import Box, Target

#: NADPH as it stands in 1IA1 (residue NDP), phosphates ionised.
NADPH = (
    "NC(=O)C1=CN(C=CC1)[C@@H]1O[C@H](COP([O-])(=O)OP([O-])(=O)OC[C@H]2O[C@H]([C@H](OP([O-])([O-])=O)[C@@H]2O)"
    "n2cnc3c(N)ncnc23)[C@@H](O)[C@H]1O"
)
DHFR_BOX = Box(center=(10.259, 36.337, 18.564), size=(20.0, 20.0, 20.0))
_ATOM = ("ATOM", "HETATM")
#: Where the Protein Data Bank answers; its data are in the public domain (CC0 1.0).
RCSB: Final = "https://files.rcsb.org/download/{}.pdb"
_PDB_ID: Final = re.compile(r"[0-9][A-Za-z0-9]{3}")
_FETCH_LIMIT: Final = 30.0
#: Residues of crystallography that are a usual one with another atom, and what that atom becomes (nothing: left out).
_USUAL: Final[dict[str, tuple[str, dict[str, str]]]] = {
    "MSE": ("MET", {"SE": "SD"}),
    "CSO": ("CYS", {"OD": ""}),
}


def shipped_target() -> Target:
    """Dihydrofolate reductase of Candida albicans with NADPH (PDB 1IA1), and the box around its inhibitor."""
    text = (files("diaspora_parsl.campaigns.screening") / "data" / "1ia1.pdbqt").read_text(encoding="ascii")
    return Target.of(text, DHFR_BOX, name="Candida albicans DHFR with NADPH (PDB 1IA1)")


def read_receptor(given: str) -> tuple[str, str]:
    """The text of a receptor and what it is: ``pdb`` or ``pdbqt``.

    Args:
        given: path of a ``.pdbqt`` or ``.pdb`` file; or an id of the Protein Data Bank, which is fetched from RCSB.

    Raises:
        ConfigurationError: it cannot be had, or is no receptor; the message says what to do.
    """
    path = Path(given)
    if _PDB_ID.fullmatch(given) and not path.exists():
        return fetch_pdb(given), "pdb"
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise ConfigurationError(f"The receptor {path} cannot be read: {error.strerror}.") from error
    if not any(line.startswith(_ATOM) for line in text.splitlines()):
        raise ConfigurationError(f"{path} has no ATOM lines. Write a receptor as .pdb or .pdbqt.")
    kind = path.suffix.lower().removeprefix(".")
    if kind not in ("pdb", "pdbqt"):
        raise ConfigurationError(f"{path.name} is neither .pdb nor .pdbqt. Convert it, or rename it to what it is.")
    return text, kind


def fetch_pdb(name: str) -> str:
    """An entry of the Protein Data Bank, if this host has a way to it.

    Raises:
        ConfigurationError: it has none, or there is no such entry.
    """
    url = RCSB.format(name.upper())
    try:
        with urlopen(url, timeout=_FETCH_LIMIT) as answer:  # noqa: S310 - a fixed address by https
            return str(answer.read().decode("utf-8", "replace"))
    except (URLError, OSError) as error:
        raise ConfigurationError(
            f"{name.upper()} could not be fetched from the Protein Data Bank ({error}). Download {url} where there is "
            f"a network, and give the file."
        ) from error


def load_receptor(path: Path, cofactors: Mapping[str, str] | None = None) -> str:
    """The PDBQT text of a receptor file.

    Args:
        path: a ``.pdbqt``, taken as it is, or a ``.pdb``, prepared by meeko.
        cofactors: residue name to SMILES, for the HETATM residues of a PDB file that are to be kept.

    Raises:
        ConfigurationError: the file cannot be read as a receptor; the message says what to do.
    """
    text, kind = read_receptor(str(path))
    return text if kind == "pdbqt" else prepare_receptor(text, cofactors)


def prepare_receptor(
    pdb: str,
    cofactors: Mapping[str, str] | None = None,
    *,
    chains: Collection[str] = (),
    drop_unknown: bool = False,
    notes: list[str] | None = None,
) -> str:
    """Prepare a protein for docking: hydrogens, charges and atom types by meeko's residue templates.

    HETATM residues (water, ions, ligands) are left out unless they are named as cofactors. Of several models the first
    is taken, of alternate places of an atom the first as well.

    Args:
        pdb: text of the file.
        cofactors: residue name to SMILES.
        chains: Chains to keep; empty for all.
        drop_unknown: leave residues out that meeko has no template for, instead of giving up.
        notes: what the user should know of the result is appended.

    Raises:
        ConfigurationError: meeko knows no template for a residue, or a cofactor does not fit its SMILES.
    """
    atoms = list(pdb_atoms(pdb, chains))
    protein = [line for line in atoms if line.startswith("ATOM")]
    if not protein:
        raise ConfigurationError(f"The receptor has no ATOM lines in the chains {', '.join(chains) or '(all)'}.")
    rigid = _rigid_protein(protein, drop_unknown=drop_unknown, notes=[] if notes is None else notes)
    lines = [line for line in rigid.splitlines() if line.startswith(_ATOM)]
    for residue, smiles in (cofactors or {}).items():
        blocks = residue_blocks(atoms, residue)
        if not blocks:
            raise ConfigurationError(f'The receptor has no residue "{residue}" to keep as a cofactor.')
        for block in blocks.values():
            lines += _rigid_cofactor(block, smiles, residue)
    return "\n".join(lines) + "\n"


def _rigid_protein(atoms: list[str], *, drop_unknown: bool, notes: list[str]) -> str:
    """A protein by meeko, from ATOM lines."""
    from meeko import MoleculePreparation, PDBQTWriterLegacy, Polymer, ResidueChemTemplates  # noqa: PLC0415 - slow

    templates = ResidueChemTemplates.create_from_defaults()
    # Or meeko would ask the network for them, again and again.
    names = {f"{line[21:22].strip()}:{line[22:27].strip()}": line[17:20].strip() for line in atoms}
    known = {*templates.residue_templates, *templates.ambiguous}
    unknown = [place for place, name in names.items() if name not in known]

    def prepared(left_out: Collection[str], **options: bool) -> str:
        lines = [line for line in atoms if f"{line[21:22].strip()}:{line[22:27].strip()}" not in left_out]
        # It fills pages with the templates that did not fit.
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            text = "\n".join([*lines, "TER", "END", ""])
            polymer = Polymer.from_pdb_string(text, templates, MoleculePreparation(), **options)
            return str(PDBQTWriterLegacy.write_from_polymer(polymer)[0])

    if unknown and not drop_unknown:
        raise _unfit(unknown, names)
    try:
        try:
            text = prepared(unknown)
        except Exception as error:
            unknown += _residues(error)
            if not (drop_unknown and unknown):
                raise
            text = prepared(unknown, allow_bad_res=True)
    except Exception as error:  # meeko raises many types; all of them mean that this file needs the user's attention
        raise _unfit(_residues(error), names, " ".join(str(error).split())[:500]) from error
    if unknown:
        residues = ", ".join(f"{names.get(place, '?')} {place}" for place in unknown)
        notes.append(f"meeko's templates do not fit {residues}; left out. See that none of them is near the box.")
    return text


def _unfit(places: list[str], names: Mapping[str, str], other: str = "") -> ConfigurationError:
    residues = ", ".join(f"{names.get(place, '?')} {place}" for place in places)
    return ConfigurationError(
        f"meeko could not prepare the receptor: {f'its templates do not fit {residues}' if residues else other}. Atoms "
        "are missing there, too many, too close, or of a residue that it does not know: repair the file, leave these "
        "residues out with --drop-unknown, or prepare it with mk_prepare_receptor.py and give the .pdbqt."
    )


def _residues(error: Exception) -> list[str]:
    return re.findall(r"'(\w*:-?\w+)'", str(error))


def pdb_atoms(pdb: str, chains: Collection[str] = ()) -> Iterator[str]:
    """The atom lines of a PDB file that count: first model, first place, wanted chains, usual residues."""
    places: dict[str, str] = {}
    for line in pdb.splitlines():
        if line.startswith("ENDMDL"):
            return
        if not line.startswith(_ATOM) or (chains and line[21:22] not in chains):
            continue
        if places.setdefault(line[21:27], line[16:17]) != line[16:17] and line[16:17].strip():
            if not places[line[21:27]].strip():
                places[line[21:27]] = line[16:17]  # the first lettered place of a residue that has common atoms, too
            else:
                continue
        atom = line[:16] + " " + line[17:]
        usual = _USUAL.get(line[17:20].strip())
        if usual is not None:
            name = usual[1].get(line[12:16].strip(), line[12:16].strip())
            if not name:
                continue
            element = f"{name[0]:>2}"
            atom = f"ATOM  {line[6:12]} {name:<3} {usual[0]}{line[20:76]:<56}{element}"
        yield atom


def residue_blocks(atoms: Collection[str], residue: str) -> dict[str, str]:
    """The HETATM lines of each residue of a name, by chain and number such as ``A:301``."""
    found: dict[str, list[str]] = {}
    for line in atoms:
        if line.startswith("HETATM") and line[17:20].strip() == residue:
            found.setdefault(f"{line[21:22].strip()}:{line[22:27].strip()}", []).append(line)
    return {place: "\n".join(lines) for place, lines in found.items()}


def other_residues(pdb: str, chains: Collection[str] = ()) -> dict[str, int]:
    """Names of HETATM residues with their numbers of atoms, those of one that is large enough to be a ligand."""
    counts = Counter(
        (line[17:20].strip(), line[21:27])
        for line in pdb_atoms(pdb, chains)
        if line.startswith("HETATM") and line[76:78].strip() != "H"
    )
    fewest = 6
    return {name: count for (name, _), count in sorted(counts.items()) if count >= fewest}


def with_bond_orders(block: str, smiles: str, residue: str) -> Any:
    """The heavy atoms of a residue as an RDKit molecule in its place, its bond orders taken from a SMILES.

    Raises:
        ConfigurationError: the atoms do not fit the SMILES.
    """
    from rdkit import Chem  # noqa: PLC0415 - slow
    from rdkit.Chem import AllChem  # noqa: PLC0415 - slow
    from rdkit.rdBase import BlockLogs  # noqa: PLC0415 - slow

    with BlockLogs():
        template = Chem.MolFromSmiles(smiles)
        found = Chem.MolFromPDBBlock(block + "\nEND\n", removeHs=True)
    counts = [0 if one is None else one.GetNumHeavyAtoms() for one in (template, found)]
    if counts[0] != counts[1] or not counts[0]:  # RDKit would take the SMILES of a part
        raise ConfigurationError(
            f'The atoms of "{residue}" do not fit the SMILES {smiles}: {counts[1]} heavy atoms, not {counts[0]}.'
        )
    try:
        with BlockLogs():
            return AllChem.AssignBondOrdersFromTemplate(template, found)
    except Exception as error:  # RDKit and Boost raise their own types here
        raise ConfigurationError(f'The atoms of "{residue}" do not fit the SMILES {smiles}: {error}') from error


def _rigid_cofactor(block: str, smiles: str, residue: str) -> list[str]:
    """The atoms of a cofactor as rigid PDBQT lines, its bond orders taken from a SMILES."""
    from meeko import MoleculePreparation, PDBQTWriterLegacy  # noqa: PLC0415 - slow
    from rdkit import Chem  # noqa: PLC0415 - slow

    typed = Chem.AddHs(with_bond_orders(block, smiles, residue), addCoords=True)
    text, good, problem = PDBQTWriterLegacy.write_string(MoleculePreparation().prepare(typed)[0])
    if not good:
        raise ConfigurationError(f'meeko could not prepare the cofactor "{residue}": {problem}')
    return [
        line[:17] + f"{residue:>3}" + line[20:] if line[17:20] == "UNL" else line
        for line in text.splitlines()
        if line.startswith(_ATOM)
    ]
