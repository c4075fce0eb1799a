"""Side by side: the pool, plain Parsl, Dask and Ray in one go on this machine.

    python benchmarks/run.py all --quick --json out/
    python benchmarks/run.py black-hole doomed
    python benchmarks/run.py globus-faults --only pool --case frozen

A peer that is not installed is listed as such. ``--ray-python`` names an interpreter that has Ray, if it is not this
one. The page of the documentation is drawn from what is kept in benchmarks/results: see benchmarks/page.py.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])  # this folder is imported by its name

from rich.console import Console

from benchmarks.experiments.every import EXPERIMENTS
from benchmarks.kit import schema
from benchmarks.kit.runner import run


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiments", nargs="+", choices=[*EXPERIMENTS, "all"], help="which to run")
    parser.add_argument("--json", type=Path, metavar="FOLDER", help="write FOLDER/EXPERIMENT.json")
    parser.add_argument("--quick", action="store_true", help="a short form of each, good for trying")
    parser.add_argument("--note", default="", help="what a reader should know about the circumstances")
    parser.add_argument("--ray-python", default=sys.executable, metavar="PATH", help="an interpreter that has Ray")
    parser.add_argument("--strict", action="store_true", help="exit code 1 if the pool misses a goal")
    parser.add_argument("--only", metavar="PEER", action="append", help="measure this peer only; may be repeated")
    parser.add_argument("--case", metavar="WORDS", action="append", help="only cases with these words; may be repeated")
    chosen = parser.parse_args(arguments)
    names = list(EXPERIMENTS) if "all" in chosen.experiments else chosen.experiments
    console = Console(width=None if sys.stdout.isatty() else 160)
    all_hold = True
    for name in names:
        experiment = EXPERIMENTS[name]
        report = run(
            experiment, quick=chosen.quick, note=chosen.note, ray_python=chosen.ray_python, console=console,
            peers=chosen.only, words=chosen.case,
        )  # fmt: skip
        for target in experiment.targets:
            verdict = target.holds(report)
            all_hold = all_hold and verdict is not False
            console.print(f"{name}: {target.says}: {VERDICTS[verdict]}")
        if chosen.json:
            console.print(f"{name}: written to {schema.write(report, chosen.json)}")
    return 1 if chosen.strict and not all_hold else 0


#: How a verdict reads.
VERDICTS = {True: "yes", False: "NO", None: "not measured"}

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a case in hand is ended, as Ctrl-C does
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(main())
