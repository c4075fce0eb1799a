"""Every fault of Globus Compute, Parsl's own executor beside the pool; writes the table of docs/globus.md.

python benchmarks/globus_faults.py                      about half an hour
python benchmarks/globus_faults.py --quick              some of them, and the page stays as it is
python benchmarks/globus_faults.py --case frozen        the cases with this word, and the page stays as it is
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def main() -> int:
    """Measure, and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="some of the faults")
    parser.add_argument("--case", metavar="WORDS", action="append", default=[], help="only cases with these words")
    chosen = parser.parse_args()
    words = [argument for case in chosen.case for argument in ("--case", case)]
    is_whole = not (chosen.quick or words)
    quick = ["--quick"] if chosen.quick else []
    keep = ["--json", str(HERE / "results")] if is_whole else []
    command = [sys.executable, str(HERE / "run.py"), "globus-faults", *quick, *words, *keep]
    status = subprocess.run(command, check=False).returncode
    if status == 0 and is_whole:
        status = subprocess.run([sys.executable, str(HERE / "page.py")], check=False).returncode
    return status


if __name__ == "__main__":
    sys.exit(main())
