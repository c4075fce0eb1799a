"""Draw docs/benchmarks.md and its plots from benchmarks/results/*.json.

python benchmarks/page.py           write them
python benchmarks/page.py --check   say what is stale, and write nothing
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[0] = str(ROOT)  # this folder is imported by its name

from benchmarks.kit.stale import stale_files, write_files


def main() -> int:
    """Write, or check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if something is stale")
    if parser.parse_args().check:
        stale = stale_files(ROOT)
        for path in stale:
            print(f"stale: {path.relative_to(ROOT)}; run benchmarks/page.py")
        return 1 if stale else 0
    for path in write_files(ROOT):
        print(f"written: {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
