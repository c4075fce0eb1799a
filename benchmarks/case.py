"""One case of one experiment at one peer, in a process of its own: ``case.py PEER EXPERIMENT SPEC OUT``.

Uses the standard library alone, so that a peer may live in an environment without this package.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).parents[1])  # this folder holds modules called like the peers


def main(peer: str, experiment: str, spec: str, out: str) -> None:
    """Measure; figures are kept as soon as they are told, whatever happens afterwards."""
    logging.disable(logging.CRITICAL if not os.environ.get("BENCH_LOG") else logging.NOTSET)

    def record(figures: dict[str, Any]) -> None:
        draft = Path(f"{out}.draft")
        draft.write_text(json.dumps({**figures, "_at": time.time()}), encoding="utf-8")
        draft.replace(out)

    wishes = {**json.loads(spec), "peer": peer}
    name = experiment.replace("-", "_")
    if peer in {"pool", "plain"}:
        import_module(f"benchmarks.experiments.{name}").measure(wishes, record)
    else:
        getattr(import_module(f"benchmarks.peers.{peer}_side"), name)(wishes, record)


if __name__ == "__main__":
    main(*sys.argv[1:])
