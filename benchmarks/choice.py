"""Choosing among a million molecules: seconds per refresh on one core, memory, and what the sieve lets pass.

python benchmarks/choice.py                 writes benchmarks/results/choice.json
python benchmarks/choice.py --molecules 200000
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from rdkit import Chem, RDConfig, rdBase
from rdkit.Chem import BRICS

from diaspora_parsl.campaigns.screening.chemistry.fingerprints import fingerprint
from diaspora_parsl.campaigns.screening.selection import shortlist
from diaspora_parsl.campaigns.screening.selection.selector import BatchSelector, Lesson, study
from diaspora_parsl.campaigns.screening.settings import Plan

RESULT = Path(__file__).resolve().parent / "results" / "choice.json"
#: Surrogate, acquisition and number of scores.
CASES = (
    ("gp", "greedy", 600),
    ("gp", "greedy", 2000),
    ("gp", "greedy", 4000),
    ("gp", "ei", 600),
    ("lightgbm", "greedy", 6000),
    ("forest", "greedy", 600),
)
#: The best of all by the model; how many of them pass the sieve is the recall.
TOP = 1000
#: Where every molecule is asked about, to tell the recall: minutes.
EXACT_CASE = ("gp", "greedy", 600)
ONE_CORE = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def make_fingerprints(path: Path, molecules: int) -> None:
    """Two fragments of real molecules (NCI, shipped with RDKit) each, with the bits of both."""
    fragments: set[str] = set()
    with rdBase.BlockLogs():
        for line in (Path(RDConfig.RDDataDir) / "NCI" / "first_5K.smi").read_text().splitlines():
            molecule = Chem.MolFromSmiles(line.split()[0])
            for (one, other), _ in [] if molecule is None else list(BRICS.FindBRICSBonds(molecule))[:3]:
                bond = molecule.GetBondBetweenAtoms(one, other).GetIdx()
                halves = Chem.FragmentOnBonds(molecule, [bond], addDummies=False)
                fragments.update(Chem.MolToSmiles(halves).split("."))
        read = [Chem.MolFromSmiles(smiles) for smiles in sorted(fragments)]
        bits = np.stack([fingerprint(one) for one in read if one is not None and 5 <= one.GetNumAtoms() <= 20])
    chance = np.random.default_rng(0)
    np.save(path, bits[chance.integers(len(bits), size=molecules)] | bits[chance.integers(len(bits), size=molecules)])
    print(f"{len(bits)} fragments, {molecules:,} molecules")


def measure(path: Path, surrogate: Any, acquisition: Any, known: int, *, is_exact: bool) -> dict[str, Any]:
    """One refresh, in this process."""
    bits = np.load(path, mmap_mode="r")
    chance = np.random.default_rng(1)
    # Molecules score well if they are like one of some actives: that a linear sieve knows this is not a given.
    actives = np.unpackbits(bits[chance.integers(len(bits), size=20)], axis=1).astype(np.float32)
    candidates = np.sort(chance.choice(len(bits), known, replace=False))
    features = np.unpackbits(bits[candidates], axis=1).astype(np.float32)
    shared = features @ actives.T
    alike = shared / (features.sum(axis=1)[:, None] + actives.sum(axis=1)[None] - shared)
    scores = -6 - 8 * alike.max(axis=1).astype(np.float64) + chance.normal(0, 0.3, known)
    plan = Plan(budget=max(5000, known + 1000), surrogate=surrogate, acquisition=acquisition)
    lesson = Lesson(candidates, scores, 1)
    cpu, began = time.process_time(), time.perf_counter()
    found = study(path, plan, lesson)
    figures: dict[str, Any] = {
        "seconds": time.perf_counter() - began,
        "cpu_seconds": time.process_time() - cpu,
        "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    chooser = BatchSelector(bits, plan)
    waits = []
    while True:
        began = time.perf_counter()
        choice = chooser.next()
        waits.append(time.perf_counter() - began)
        if choice is None:
            break
        if chooser.chosen == plan.first_batch:
            chooser.adopt(found)
    figures["longest_wait_ms"] = 1000 * max(waits)
    if is_exact:
        shortlist.EXACT = len(bits)  # type: ignore[misc]
        began = time.perf_counter()
        whole = study(path, plan, lesson)
        figures["exact_seconds"] = time.perf_counter() - began
        figures["sieve_recall_percent"] = 100 * float(np.isin(whole.order[:TOP], found.order).mean())
    return figures


def main() -> None:
    """Measure each case in a process of its own, on one core."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--molecules", type=int, default=1_000_000)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    parser.add_argument("--fingerprints", type=Path, help="keep them there, or take them from there")
    given = parser.parse_args()
    if given.case:
        surrogate, acquisition, known = json.loads(given.case)
        is_exact = (surrogate, acquisition, known) == EXACT_CASE
        print(json.dumps(measure(given.fingerprints, surrogate, acquisition, known, is_exact=is_exact)))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = given.fingerprints or Path(folder) / "fingerprints.npy"
        if not path.exists():
            make_fingerprints(path, given.molecules)
        cases = []
        for case in CASES:
            command = [sys.executable, __file__, "--case", json.dumps(case), "--fingerprints", str(path)]
            ran = subprocess.run(command, env={**os.environ, **ONE_CORE}, capture_output=True, text=True, check=False)
            if ran.returncode:
                raise SystemExit(ran.stderr)
            figures = json.loads(ran.stdout)
            cases.append({"surrogate": case[0], "acquisition": case[1], "known": case[2], **figures})
            print(*case, {name: round(value, 2) for name, value in figures.items()}, flush=True)
    report = {
        "experiment": "choice",
        "molecules": given.molecules,
        "load_average": os.getloadavg()[0],
        "machine": {
            "system": platform.platform(),
            "cores": os.cpu_count(),
            **{name: version(name) for name in ("diaspora-parsl", "numpy", "scipy", "lightgbm", "scikit-learn")},
        },
        "cases": cases,
    }
    if given.molecules == parser.get_default("molecules"):
        RESULT.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
