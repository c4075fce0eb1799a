"""The process that docks: one per worker, killed by the kernel when a molecule takes too long.

RDKit, meeko and Vina run here and nowhere else: they are C++ that ignores Python's signals and exceptions, and a
molecule that hangs or crashes them takes this process with it, not the worker.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
from hashlib import sha256
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Final

from meeko import MoleculePreparation, PDBQTWriterLegacy
from rdkit import Chem, RDLogger
from rdkit.Chem import AllChem

from diaspora_parsl.campaigns.records import DockResult, Status

if TYPE_CHECKING:
    from vina import Vina

    from diaspora_parsl.campaigns.settings import Docking, Target

#: Elements that both meeko and Vina have parameters for.
ELEMENTS: Final = frozenset({"H", "B", "C", "N", "O", "F", "Si", "P", "S", "Cl", "Br", "I"})
#: Vina's own seed. The same for every molecule, because a Vina object with its maps has one; what differs by molecule
#: is the seed of the embedding, and with it the pose that the search starts from.
VINA_SEED: Final = 1


class Refused(Exception):  # noqa: N818 - not an error: a result with a reason
    """A molecule that cannot be docked, and why."""

    def __init__(self, status: Status, detail: str) -> None:
        super().__init__(status, detail)
        self.result = DockResult(status=status, detail=detail)


def seed_of(canonical: str) -> int:
    """A seed for a molecule, the same at every site and in every run."""
    return int.from_bytes(sha256(canonical.encode()).digest()[:4], "big") & 0x7FFFFFFF or 1


def prepare_ligand(smiles: str, max_heavy_atoms: int) -> str:
    """A SMILES as PDBQT: one conformer, protonated as written, typed for Vina.

    Raises:
        Refused: with the status ``parse``, ``embed`` or ``prepare``.
    """
    molecule = Chem.MolFromSmiles(smiles)
    if molecule is None or not molecule.GetNumAtoms():
        raise Refused("parse", "RDKit cannot read this SMILES.")
    if unknown := sorted({atom.GetSymbol() for atom in molecule.GetAtoms()} - ELEMENTS):
        raise Refused("prepare", f"Vina has no parameters for {', '.join(unknown)}.")
    if (size := molecule.GetNumHeavyAtoms()) > max_heavy_atoms:
        raise Refused("prepare", f"{size} heavy atoms are more than the limit of {max_heavy_atoms}.")
    if (parts := len(Chem.GetMolFrags(molecule))) > 1:
        raise Refused("prepare", f"{parts} separate molecules cannot be docked as one.")
    seed = seed_of(Chem.MolToSmiles(molecule))
    solid = Chem.AddHs(molecule)
    for random_start in (False, True):  # the second way is slower and succeeds on strained rings
        if AllChem.EmbedMolecule(solid, randomSeed=seed, useRandomCoords=random_start, maxAttempts=50) == 0:
            break
    else:
        raise Refused("embed", "RDKit found no three-dimensional shape.")
    if AllChem.MMFFHasAllMoleculeParams(solid):
        AllChem.MMFFOptimizeMolecule(solid, maxIters=200)
    try:
        text, good, problem = PDBQTWriterLegacy.write_string(MoleculePreparation().prepare(solid)[0])
    except Exception as error:  # meeko raises many types; all of them mean that it does not know this chemistry
        raise Refused("prepare", f"meeko: {type(error).__name__}: {error}") from error
    if not good:
        raise Refused("prepare", f"meeko: {problem}")
    return str(text)


def load_maps(target: Target) -> Vina:
    """Vina with the affinity maps of a target: about 1.2 s of CPU, once per process and target."""
    from vina import Vina  # noqa: PLC0415 - slow

    engine = Vina(sf_name="vina", cpu=1, seed=VINA_SEED, verbosity=0)
    with tempfile.TemporaryDirectory(prefix="receptor-") as folder:
        path = Path(folder) / "receptor.pdbqt"
        path.write_text(target.pdbqt, encoding="utf-8")
        engine.set_receptor(str(path))
    engine.compute_vina_maps(list(target.box.center), list(target.box.size))
    return engine


def dock(engine: Vina, smiles: str, docking: Docking) -> DockResult:
    """Prepare and dock one molecule; failures come back as results."""
    try:
        ligand = prepare_ligand(smiles, docking.max_heavy_atoms)
    except Refused as refusal:
        return refusal.result
    try:
        engine.set_ligand_from_string(ligand)
        engine.dock(exhaustiveness=docking.exhaustiveness, n_poses=1, max_evals=docking.max_evals)
        score = float(engine.energies(n_poses=1)[0][0])
        return DockResult(status="ok", score=score, pose=str(engine.poses(n_poses=1)))
    except Exception as error:  # noqa: BLE001 - Vina raises bare RuntimeError and TypeError for what it cannot dock
        return DockResult(status="dock", detail=f"Vina: {error}".strip())


def serve(connection: Connection) -> None:
    """Dock what the worker sends until it goes away."""
    engines: dict[str, Vina] = {}
    while True:
        try:
            smiles, target, docking = connection.recv()
        except (EOFError, OSError):
            return
        if target.digest not in engines:
            try:
                engines = {target.digest: load_maps(target)}  # one at a time: maps take some 100 MB
            except Exception as error:  # noqa: BLE001 - Vina raises bare RuntimeError and TypeError
                connection.send(DockResult(status="dock", detail=f"Vina cannot use the receptor: {error}".strip()))
                continue
        # The default action of SIGALRM ends the process from outside, whatever the C++ code is doing.
        signal.setitimer(signal.ITIMER_REAL, docking.timeout)
        answer = dock(engines[target.digest], smiles, docking)
        signal.setitimer(signal.ITIMER_REAL, 0)
        try:
            connection.send(answer)
        except OSError:
            return


def main() -> None:
    """Entry point; the argument is the number of an inherited pipe."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the campaign; this process ends with its worker
    os.dup2(2, 1)  # what the C++ codes print must not mix with a worker's own output
    RDLogger.DisableLog("rdApp.*")
    logging.getLogger("rdkit").setLevel(logging.CRITICAL)  # where meeko sends RDKit's log
    with Connection(int(sys.argv[1])) as connection:
        connection.send("ready")
        serve(connection)


if __name__ == "__main__":
    main()
