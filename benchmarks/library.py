"""How long a million molecules take to become candidates, and how much memory."""

from __future__ import annotations

import argparse
import gzip
import json
import os
import platform
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice, product
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import rdkit

from diaspora_parsl.campaigns.screening.library.candidates import FINGERPRINT, Candidates, find_candidates
from diaspora_parsl.campaigns.screening.library.reader import read_library
from diaspora_parsl.campaigns.screening.objectives import Scope
from diaspora_parsl.campaigns.screening.objectives.docking import ELEMENTS

GROUPS = ("", "C", "CC", "F", "Cl", "OC", "C#N", "C(F)(F)F", "N(C)C", "S(C)(=O)=O")
RINGS = ("c1ccc({})cc1", "c1cc({})ccc1", "c1ncc({})cc1", "c1cnc({})nc1", "c1sc({})cc1",
         "c1oc({})cc1", "C1CCC({})CC1", "C1CCN({})C1", "c1cc2ccc({})cc2cc1", "c1ccc(O{})cc1")  # fmt: skip
LINKERS = tuple(f"N{r}C({s})C(=O)" for r, s in product(
    ("", "(C)", "(CC)", "(C1CC1)", "CC", "C(C)C", "CCC", "Cc1ccc(cc1)", "C1CC(C1)", "OC"),
    ("C", "CC", "CO", "C(C)C", "CC(C)C", "Cc1ccccc1", "CCSC", "CC(N)=O", "Cc1cnc[nH]1", "c1ccccc1"),
))  # fmt: skip
EVERY = 20
GARBAGE = ("not a molecule", "", "[Na+].CC(=O)[O-]", "[Pt](Cl)(Cl)(N)N", "C1" + "CCO" * 60 + "C1", "c1ccccc1", "C(C")


def fragments(pattern: str) -> list[str]:
    """A hundred rings with substituents, of which a few are the same."""
    return [pattern.format(ring.format(group).replace("()", "")) for ring, group in product(RINGS, GROUPS)]


def lines(count: int) -> Iterator[str]:
    """SMILES and name: diamides, up to a million; every twentieth is garbage."""
    whole = product(fragments("{}"), LINKERS, fragments("{}"))
    for number, (left, linker, right) in enumerate(islice(whole, count)):
        text = GARBAGE[number // EVERY % len(GARBAGE)] if number % EVERY == 0 else f"O=C({left}){linker}N{right}"
        yield f"{text}\tm{number}\n"


class Peak(threading.Thread):
    """Largest resident memory of this process, and of it with its children, in MB."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.own = self.all = 0.0
        self.ended = threading.Event()

    def run(self) -> None:
        """Look five times a second."""
        me = psutil.Process()
        last = False
        while not last:
            last = self.ended.wait(0.2)
            sizes = [me.memory_info().rss / 1e6]
            for child in me.children(recursive=True):
                try:
                    sizes.append(child.memory_info().rss / 1e6)
                except psutil.Error:
                    continue  # it ended meanwhile
            self.own, self.all = max(self.own, sizes[0]), max(self.all, sum(sizes))


@contextmanager
def measured(into: dict[str, Any], name: str) -> Iterator[None]:
    """Seconds and peak memory of a block."""
    peak = Peak()
    peak.start()
    began, cpu = time.monotonic(), time.process_time()
    yield
    seconds = time.monotonic() - began
    peak.ended.set()
    peak.join()
    into[name] = {
        "seconds": round(seconds, 1),
        "own_cpu_seconds": round(time.process_time() - cpu, 1),
        "peak_rss_mb": round(peak.own),
        "peak_rss_with_children_mb": round(peak.all),
    }
    print(f"{name}: {into[name]}", flush=True)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--molecules", type=int, default=1_000_000)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--sample", type=int, default=20_000, help="molecules of which properties are computed")
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/library.json"))
    options = parser.parse_args()
    found: dict[str, Any] = {
        "settings": {
            "molecules": options.molecules,
            "processes": options.processes,
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "rdkit": rdkit.__version__,
            "fingerprint": FINGERPRINT,
            "load_average_before": [round(load, 1) for load in os.getloadavg()],
        }
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "library.smi.gz"
        with gzip.open(path, "wt", compresslevel=1) as file:
            file.writelines(lines(options.molecules))
        library = read_library(path)
        with measured(found, "read_only"):
            assert sum(1 for _ in library) == options.molecules
        scope = Scope(elements=ELEMENTS, max_heavy_atoms=80)
        with measured(found, "build"):
            candidates = find_candidates(library, folder / "store", scope=scope, processes=options.processes)
        assert len(candidates) + len(candidates.refused) == options.molecules
        with measured(found, "open_again"):
            candidates = find_candidates(library, folder / "store", scope=scope)
        with measured(found, "random_access_10000"):
            for place in np.random.default_rng(0).integers(0, len(candidates), 10_000):
                assert candidates.entries[int(place)].smiles
        found["candidates"] = len(candidates)
        by_status: dict[str, int] = {}
        for row in candidates.refused:
            by_status[row.status] = by_status.get(row.status, 0) + 1
        found["refused"] = by_status
        found["store_mb"] = round(sum(one.stat().st_size for one in candidates.folder.iterdir()) / 1e6)
        sample = folder / "sample.smi"
        sample.write_text("".join(f"{entry.smiles}\n" for entry in candidates.entries[: options.sample]))
        small: Candidates = find_candidates(read_library(sample), folder / "small", processes=options.processes)
        for names in (["qed", "mw"], ["mw", "logp", "tpsa"]):
            with measured(found, f"properties_{'_'.join(names)}_of_{len(small)}"):
                small.properties(names)
            for one in small.folder.glob("property-*"):
                one.unlink()
        with measured(found, f"scaffolds_of_{len(small)}"):
            small.scaffolds()
    options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
