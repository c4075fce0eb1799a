"""A target made ready: receptor, box, and the proof that docking finds the native ligand's place again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from diaspora_parsl.errors import ConfigurationError

from ..settings import Box, Docking, Target
from .receptor import other_residues, prepare_receptor, read_receptor, shipped_target

if TYPE_CHECKING:
    from .ligands import Ligand, Redocking

DESCRIPTION: Final = "target.json"
RECEPTOR: Final = "receptor.pdbqt"
NATIVE: Final = "ligand.sdf"
REDOCKED: Final = "redocked.sdf"
#: What to try when docking does not find the native place.
ADVICE: Final = (
    "Search more: --exhaustiveness 32. If that helps, screen with more than the default, too.",
    "See whether the box holds the whole pocket and no second one: --size, or --center.",
    "Keep what the ligand touches in the structure, such as a metal, a cofactor or a water: --cofactor RESIDUE=SMILES.",
    "Write the ligand's SMILES as it is at the pH of the assay: charges and tautomer decide which hydrogen bonds form.",
    "See that the receptor has one copy of the site, and no ligand left in it: --chain.",
    "Ligands with more than about ten rotatable bonds, and covalent ones, are beyond such docking.",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What shall be prepared."""

    receptor: str = ""
    """Path of a ``.pdb`` or ``.pdbqt``, or a PDB id; empty for the shipped target with its ligand."""
    ligand: str = ""
    """The native ligand: a file, or a residue of the structure."""
    ligand_smiles: str = ""
    """Its bond orders, if it comes from a PDB file."""
    center: tuple[float, float, float] | None = None
    """Of the box, in Å; by default the ligand's."""
    edge: float | None = None
    """Of the box, in Å; by default what the ligand needs, at least 20."""
    cofactors: Mapping[str, str] = field(default_factory=dict)
    """Residue name to SMILES, of what is kept of the HETATM residues."""
    chains: tuple[str, ...] = ()
    """Of the structure, that are kept; empty for all."""
    drop_unknown: bool = False
    """Leave residues out that meeko has no template for."""
    redock: bool = True
    docking: Docking = field(default_factory=lambda: Docking(exhaustiveness=8, timeout=900))
    """How the native ligand is docked."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """What came of it."""

    request: Request
    target: Target
    ligand: Ligand | None
    redocking: Redocking | None
    notes: tuple[str, ...]
    """What the user should know."""


def prepare(request: Request) -> Prepared:
    """Prepare a target and dock its native ligand.

    Raises:
        ConfigurationError: something that is needed is missing or cannot be read; the message says what to write.
    """
    from .ligands import read_ligand, shipped_ligand  # noqa: PLC0415 - loads chemistry

    notes: list[str] = []
    text, pdb, name = _receptor(request, notes)
    ligand = None
    if request.ligand:
        ligand = read_ligand(request.ligand, pdb, request.ligand_smiles, request.chains)
    elif not request.receptor:
        ligand = shipped_ligand()
    target = Target.of(text, _box(request, ligand, pdb), name=name)
    redocking = None if ligand is None else _look(request, target, ligand, pdb, notes)
    return Prepared(request=request, target=target, ligand=ligand, redocking=redocking, notes=tuple(notes))


def _receptor(request: Request, notes: list[str]) -> tuple[str, str, str]:
    """The receptor as PDBQT, the structure that it comes from (empty if it is none), and a name."""
    given, kind = read_receptor(request.receptor) if request.receptor else (shipped_target().pdbqt, "pdbqt")
    if kind == "pdb":
        text = prepare_receptor(
            given, request.cofactors, chains=request.chains, drop_unknown=request.drop_unknown, notes=notes
        )
        kept = " and ".join(request.cofactors)
        return text, given, Path(request.receptor).name + f" with {kept}" * bool(kept)
    if request.cofactors or request.chains:
        raise ConfigurationError("A .pdbqt is taken as it is. Leave --cofactor and --chain out, or give a .pdb.")
    return given, "", Path(request.receptor).name if request.receptor else shipped_target().name


def _box(request: Request, ligand: Ligand | None, pdb: str) -> Box:
    if request.center is not None:
        from .ligands import LEAST_EDGE  # noqa: PLC0415 - loads chemistry

        edge = request.edge or LEAST_EDGE
        return Box(center=request.center, size=(edge, edge, edge))
    if ligand is not None:
        return ligand.box(request.edge)
    there = ", ".join(f"{name} ({atoms} atoms)" for name, atoms in other_residues(pdb, request.chains).items())
    raise ConfigurationError(
        "Where shall poses be searched? Write --ligand with the file of a ligand in its place, or with a residue of "
        f"the structure{f', which holds {there}' * bool(there)}; or write --center X Y Z in Å."
    )


def _look(request: Request, target: Target, ligand: Ligand, pdb: str, notes: list[str]) -> Redocking | None:
    """Look at a ligand in its receptor, and dock it."""
    from .ligands import clashes, left_out, redock  # noqa: PLC0415 - loads chemistry

    if count := clashes(ligand, target.pdbqt):
        notes.append(
            f"{count} atoms of the ligand stand where the receptor has an atom: is the ligand still in it, or a copy "
            "of the site that belongs to another chain?"
        )
    notes += [
        f"{other} touches the ligand and was left out: keep it with --cofactor {other.split()[0]}=SMILES, unless it is "
        "of the crystal alone."
        for other in left_out(ligand, pdb, request.cofactors, request.chains)
    ]
    if not request.redock:
        return None
    if ligand.molecule is None:
        notes.append(f"A PDB file holds no bond orders: give --ligand-smiles, and {ligand.name} is docked back.")
        return None
    try:
        return redock(ligand, target, request.docking)
    except ConfigurationError as error:
        notes.append(str(error))
        return None


def write_target(prepared: Prepared, folder: Path) -> dict[str, Path]:
    """Write the folder that a campaign takes as its target; returns the files by name.

    Raises:
        ConfigurationError: there is another target in it.
    """
    from rdkit import Chem  # noqa: PLC0415 - slow

    if (folder / DESCRIPTION).exists():
        raise ConfigurationError(f"{folder} holds a target already. Write another --out.")
    folder.mkdir(parents=True, exist_ok=True)
    files = {"target": folder / DESCRIPTION, "receptor": folder / RECEPTOR}
    files["receptor"].write_text(prepared.target.pdbqt, encoding="utf-8")
    ligand, redocking = prepared.ligand, prepared.redocking
    for name, molecule in (
        (NATIVE, ligand.molecule if ligand is not None else None),
        (REDOCKED, redocking.molecule if redocking is not None else None),
    ):
        if molecule is not None:
            files[Path(name).stem] = folder / name
            with Chem.SDWriter(str(folder / name)) as writer:
                writer.write(molecule)
    new = folder / (DESCRIPTION + ".new")
    new.write_text(json.dumps(describe(prepared), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    new.replace(files["target"])  # last, and whole: a folder with it is complete
    return files


def describe(prepared: Prepared) -> dict[str, Any]:
    """All of a target but its receptor, as JSON."""
    request, ligand, redocking = prepared.request, prepared.ligand, prepared.redocking
    return {
        "name": prepared.target.name,
        "receptor": RECEPTOR,
        "box": {"center": prepared.target.box.center, "size": prepared.target.box.size},
        "source": request.receptor or "shipped",
        "cofactors": dict(request.cofactors),
        "chains": list(request.chains),
        "ligand": None if ligand is None else {"name": ligand.name, "smiles": ligand.smiles},
        "redocking": None
        if redocking is None
        else {
            "rmsd_angstrom": round(redocking.rmsd, 3),
            "score_kcal_per_mol": redocking.score,
            "exhaustiveness": request.docking.exhaustiveness,
            "max_evals": request.docking.max_evals,
            "seconds": round(redocking.seconds, 1),
        },
        "notes": list(prepared.notes),
        "versions": {name: version(name) for name in ("vina", "meeko", "rdkit")},
    }


def load_target(folder: Path) -> Target:
    """The target of a folder that `write_target` made.

    Raises:
        ConfigurationError: it holds none.
    """
    try:
        described = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        text = (folder / described["receptor"]).read_text(encoding="utf-8")
        x, y, z = (float(one) for one in described["box"]["center"])
        width, depth, height = (float(one) for one in described["box"]["size"])
        name = str(described["name"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(
            f"{folder} holds no target ({error}). Make one: diaspora-parsl screen prepare RECEPTOR --out {folder}"
        ) from error
    return Target.of(text, Box(center=(x, y, z), size=(width, depth, height)), name=name)
