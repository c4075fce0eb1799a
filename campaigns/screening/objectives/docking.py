"""Docking with Vina: shape by RDKit, ligand by meeko, maps once per process."""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final

from ..chemistry.shape import embed, parse
from ..objective import Limits, Objective, Refused, Scope, Scorer, digest_of
from ..records import Result
from ..settings import Docking, Target

if TYPE_CHECKING:
    from vina import Vina

#: Elements that both meeko and Vina have parameters for; boron is one that Vina lacks.
ELEMENTS: Final = frozenset({"H", "C", "N", "O", "F", "Si", "P", "S", "Cl", "Br", "I"})
#: Vina's own seed. The same for every molecule, because a Vina object with its maps has one; what differs by molecule
#: is the seed of the embedding, and with it the pose that the search starts from.
VINA_SEED: Final = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class DockingObjective(Objective):
    """The best Vina score of a molecule in a box of a receptor."""

    target: Target
    docking: Docking = field(default_factory=Docking)

    unit: ClassVar[str] = "kcal/mol"

    @property
    def name(self) -> str:
        """For readers."""
        return "Vina score"

    @property
    def limits(self) -> Limits:
        """Those of the docking."""
        return Limits(timeout=self.docking.timeout, memory=self.docking.memory)

    @property
    def scope(self) -> Scope:
        """What Vina has parameters for."""
        return Scope(elements=ELEMENTS, max_heavy_atoms=self.docking.max_heavy_atoms)

    @property
    def digest(self) -> str:
        """Of target and settings."""
        return digest_of(asdict(self.docking), self.target.digest)

    def settings(self) -> dict[str, object]:
        """All that decides the score."""
        return {
            "objective": "docking with Vina",
            "receptor": self.target.name,
            "receptor and box": self.target.digest,
            "box centre (Å)": self.target.box.center,
            "box size (Å)": self.target.box.size,
            **asdict(self.docking),
        }

    def scorer(self) -> Scorer:
        """Vina with the affinity maps of the target: about 1.2 s of CPU and 100 MB.

        Raises:
            Refused: Vina cannot use the receptor.
            ImportError: a code is not installed here.
        """
        import meeko  # noqa: F401, PLC0415 - a place that lacks it shall say so before the first molecule
        from vina import Vina  # noqa: PLC0415 - slow

        engine = Vina(sf_name="vina", cpu=1, seed=VINA_SEED, verbosity=0)
        try:
            with tempfile.TemporaryDirectory(prefix="receptor-") as folder:
                path = Path(folder) / "receptor.pdbqt"
                path.write_text(self.target.pdbqt, encoding="utf-8")
                engine.set_receptor(str(path))
            engine.compute_vina_maps(list(self.target.box.center), list(self.target.box.size))
        except (RuntimeError, TypeError) as error:  # what Vina raises, and no more of its own
            raise Refused("dock", f"Vina cannot use the receptor: {error}".strip()) from error
        return lambda smiles: dock(engine, smiles, self.docking)


def dock(engine: Vina, smiles: str, docking: Docking) -> Result:
    """Prepare and dock one molecule.

    Raises:
        Refused: it cannot be docked.
    """
    ligand, seed = prepare_ligand(smiles, docking.max_heavy_atoms)
    try:
        engine.set_ligand_from_string(ligand)
        engine.dock(exhaustiveness=docking.exhaustiveness, n_poses=1, max_evals=docking.max_evals)
        score = float(engine.energies(n_poses=1)[0][0])
        pose = str(engine.poses(n_poses=1))
    except MemoryError:
        raise
    except Exception as error:  # Vina raises bare RuntimeError and TypeError for what it cannot dock
        refused = Refused("dock", " ".join(f"Vina: {error}".split()))
        refused.result = replace(refused.result, seed=seed)
        raise refused from error
    if score > 0:
        # Up to millions: no energy but a clash. As it is, one such score would be all that a surrogate learns.
        detail = f"Its best pose clashes with the receptor ({score:.0f} kcal/mol): it does not fit. Counted as 0."
        return Result(status="ok", score=0.0, pose=pose, seed=seed, detail=detail)
    return Result(status="ok", score=score, pose=pose, seed=seed)


def prepare_ligand(smiles: str, max_heavy_atoms: int) -> tuple[str, int]:
    """A SMILES as PDBQT: one conformer, protonated as written, typed for Vina; and the seed of the conformer.

    Raises:
        Refused: with the status ``parse``, ``embed`` or ``prepare``.
    """
    from meeko import MoleculePreparation, PDBQTWriterLegacy  # noqa: PLC0415 - slow

    molecule = parse(smiles, Scope(elements=ELEMENTS, max_heavy_atoms=max_heavy_atoms), code="Vina")
    solid, seed = embed(molecule)
    try:
        text, good, problem = PDBQTWriterLegacy.write_string(MoleculePreparation().prepare(solid)[0])
    except MemoryError:
        raise
    except Exception as error:  # meeko raises many types; all of them mean that it does not know this chemistry
        raise Refused("prepare", " ".join(f"meeko: {type(error).__name__}: {error}".split())[:500]) from error
    if not good:
        raise Refused("prepare", f"meeko: {problem}")
    return str(text), seed
