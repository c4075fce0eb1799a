"""A campaign through two kills, a freeze and kill -9 of its controller: what is docked, and what twice."""

from __future__ import annotations

import argparse
import collections
import json
import os
import platform
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from parsl.config import Config

from diaspora_parsl import ResilientPoolExecutor
from diaspora_parsl.campaigns.screening import (
    Budget,
    Docking,
    DockingObjective,
    FunctionObjective,
    Job,
    Library,
    Plan,
    read_folder,
    resume_campaign,
    run_campaign,
)
from diaspora_parsl.campaigns.screening.library.combinatorial import combinatorial_library
from diaspora_parsl.campaigns.screening.progress import Display, Progress
from diaspora_parsl.campaigns.screening.results.ledger import Ledger
from diaspora_parsl.campaigns.screening.results.reroutes import Fault
from diaspora_parsl.campaigns.screening.target.receptor import shipped_target
from diaspora_parsl.campaigns.screening.workspace import LEDGER, Record
from diaspora_parsl.events import TaskHedged
from diaspora_parsl.testing import faults as f
from diaspora_parsl.testing.local_sites import LocalSite

SITES = ("alpha", "beta", "gamma")
#: When the share of the molecules is settled, what is done to a site.
SCRIPT = ((0.15, "kill", "beta"), (0.3, "freeze", "gamma"), (0.7, "kill", "alpha"))
#: Share at which the controller is killed.
CONTROLLER_KILLED = 0.5
#: An objective that costs nothing, and writes down that it was asked.
FUNCTION = """
import os, time

def size(smiles):
    with open(os.environ["CAMPAIGN_BOOK"], "a") as book:
        book.write(smiles + "\\n")
    time.sleep(0.02)
    return -4 - len(smiles) / 20
"""


@dataclass
class Trouble:
    """Does to the sites what the script says, as the campaign proceeds."""

    places: dict[str, LocalSite]
    outage: float
    """Seconds that a site stays away."""
    faults: list[Fault] = field(default_factory=list)
    open: list[tuple[float, f.Kill | f.Freeze]] = field(default_factory=list)
    begun: int = 0

    def __call__(self, progress: Progress) -> None:
        """Look whether it is time."""
        now = time.time()
        while self.begun < len(SCRIPT) and progress.fraction >= SCRIPT[self.begun][0]:
            _, what, site = SCRIPT[self.begun]
            self.begun += 1
            kind = f.Kill if what == "kill" else f.Freeze
            fault = kind(at=now, endpoint=site, until=now + self.outage)
            self.places[site].begin(fault)
            self.open.append((now + self.outage, fault))
            self.faults.append(Fault(at=now, site=site, what="killed" if what == "kill" else "frozen"))
        for end, fault in [one for one in self.open if one[0] <= now]:
            self.open.remove((end, fault))
            self.places[fault.endpoint].end(fault)
            self.faults.append(
                Fault(at=now, site=fault.endpoint, what="restored" if isinstance(fault, f.Kill) else "thawed")
            )


def control(folder: Path, options: argparse.Namespace) -> None:
    """The controller of one session, to its end or its death."""
    out = folder / "run"
    with ExitStack() as stack:
        environment = {"CAMPAIGN_BOOK": str(folder / "book")}
        places = {
            name: stack.enter_context(LocalSite(name, workers=options.workers, environment=environment))
            for name in SITES
        }
        pool = ResilientPoolExecutor(
            label="pool", endpoints=[place.endpoint for place in places.values()], fabric="embedded"
        )
        trouble = Trouble(places, options.outage)
        config = Config(executors=[pool], initialize_logging=False)
        if (out / LEDGER).exists():
            trouble.begun = sum(share < CONTROLLER_KILLED for share, _, _ in SCRIPT)
            resume_campaign(out, config=config, observers=lambda _display: (trouble,), faults=trouble.faults)
            return
        objective = (
            FunctionObjective(function="size.py:size", source=FUNCTION)
            if options.function
            else DockingObjective(target=shipped_target(), docking=Docking(max_evals=options.max_evals, timeout=60))
        )
        job = Job(
            title="{candidates} molecules through two kills, a freeze and kill -9 of the controller",
            library=Library(folder / "library.smi"),
            objective=objective,
            plan=Plan(budget=options.molecules, in_flight=len(SITES) * (options.workers + 1), seed=1),
            budget=Budget(molecules=options.molecules),
            poses=20,
            command="python benchmarks/campaign.py",
        )

        def observers(_display: Display) -> tuple[Trouble]:
            return (trouble,)

        run_campaign(job, out, config, observers=observers, faults=trouble.faults)


def session(folder: Path, arguments: list[str], *, kill_at: int | None, limit: float) -> int:
    """Run a controller, and kill it without warning once so many molecules are settled; returns its exit code."""
    words = [sys.executable, __file__, "--control", str(folder), *arguments]
    end = time.monotonic() + limit
    with (
        (folder / "controller.log").open("ab") as log,
        subprocess.Popen(words, stdout=log, stderr=log, start_new_session=True) as process,
    ):
        try:
            while process.poll() is None and time.monotonic() < end:
                time.sleep(0.2)
                if kill_at is not None and settled(folder / "run" / LEDGER) >= kill_at:
                    break
            else:
                if process.poll() is None:
                    raise TimeoutError(f"the controller is not done after {limit:g} s: {folder / 'controller.log'}")
        finally:
            process.kill()
    return process.returncode


def settled(ledger: Path) -> int:
    """Molecules that were given to Parsl and have a row."""
    if not ledger.exists():
        return 0
    try:
        with closing(sqlite3.connect(f"{ledger.as_uri()}?mode=ro", uri=True, timeout=10)) as db:
            return int(db.execute("SELECT count(*) FROM molecules WHERE submitted > 0").fetchone()[0])
    except sqlite3.OperationalError:  # its tables are just being made
        return 0


def in_flight(ledger: Path) -> set[int]:
    """Molecules that were given to Parsl and have no row."""
    with Ledger(ledger, read_only=True) as kept:
        return {pick.molecule for pick in kept.in_flight()}


def hedged(record: Record) -> set[int]:
    """Return the molecules that the pool sent to a second site while the first still held them.

    The other site may be frozen or slow, and may have begun: such a molecule is executed twice without a reroute.
    """
    molecule_of = {(row.session, row.pool_task): row.molecule for row in record.rows}
    found = set()
    for event in record.events:
        payload = event.payload()
        if isinstance(payload, TaskHedged):
            # The pool of each session numbers its tasks from 1; the time says which session it was.
            at = datetime.fromisoformat(event.time).timestamp()
            session = max(session.number for session in record.sessions if session.started <= at)
            if (session, payload.task) in molecule_of:
                found.add(molecule_of[session, payload.task])
    return found


def measure(folder: Path, options: argparse.Namespace, arguments: list[str]) -> dict[str, Any]:
    """Run both sessions and look at what they left.

    Raises:
        AssertionError: the ledger does not hold what it must.
    """
    ledger = folder / "run" / LEDGER
    with (folder / "library.smi").open("w", encoding="utf-8") as file:
        file.writelines(f"{e.smiles}\t{e.name}\n" for e in combinatorial_library(options.library))
    began = time.monotonic()
    killed = session(folder, arguments, kill_at=round(CONTROLLER_KILLED * options.molecules), limit=options.limit)
    held = in_flight(ledger)
    before = settled(ledger)
    resumed = session(folder, arguments, kill_at=None, limit=options.limit)
    seconds = time.monotonic() - began
    record = read_folder(folder / "run")
    tried = [row for row in record.rows if row.submitted]
    again = {n for n, count in collections.Counter(p.molecule for p in record.picks).items() if count > 1}
    rerouted = {reroute.molecule for reroute in record.reroutes}
    page = (folder / "run" / "report.html").read_text(encoding="utf-8")
    figures: dict[str, Any] = {
        "molecules": options.molecules,
        "library": options.library,
        "objective": "function" if options.function else f"docking, max_evals {options.max_evals}",
        "sites": dict.fromkeys(SITES, options.workers),
        "exit code of the killed controller": killed,
        "exit code of the resumed controller": resumed,
        "settled when the controller was killed": before,
        "in flight when the controller was killed": len(held),
        "rows": len(tried),
        "molecules with a row": len({row.molecule for row in tried}),
        "status": dict(collections.Counter(row.status for row in tried)),
        "chosen again": len(again),
        "chosen again and not in flight at the kill": len(again - held),
        "reroutes": len(record.reroutes),
        "faults": [(fault.site, fault.what) for fault in record.faults],
        "sessions": [
            {"ending": s.ending, "workers": s.workers, "longest wait (s)": s.longest_wait, "over 1 s": s.waits_over_1s}
            for s in record.sessions
        ],
        "fits": len(record.fits),
        "by site": dict(collections.Counter(row.site for row in tried)),
        "report complete": all(f"<td>{site}</td>" in page for site in SITES),
        "seconds": round(seconds, 1),
    }
    book = folder / "book"
    if book.exists():
        name = {row.smiles: row.molecule for row in tried}
        asked = collections.Counter(book.read_text(encoding="utf-8").split())
        twice = {name[smiles] for smiles, count in asked.items() if count > 1}
        figures["executed twice"] = len(twice)
        known = held | rerouted | hedged(record)
        figures["executed twice and neither in flight at the kill, rerouted nor hedged"] = len(twice - known)
        figures["executed and without a row"] = len(set(asked) - set(name))
    return figures


def problems(figures: dict[str, Any]) -> list[str]:
    """What does not hold."""
    wanted = figures["molecules"]
    checks = {
        "every molecule has exactly one row": figures["rows"] == figures["molecules with a row"] == wanted,
        "the controller was killed and resumed": figures["exit code of the killed controller"] == -signal.SIGKILL
        and figures["exit code of the resumed controller"] == 0,
        "nothing is chosen twice but what was in flight": not figures["chosen again and not in flight at the kill"],
        "nothing is executed twice but what was in flight, rerouted or hedged": not figures.get(
            "executed twice and neither in flight at the kill, rerouted nor hedged"
        ),
        "no task is lost": "lost" not in figures["status"],
        "the report is complete": figures["report complete"],
    }
    return [name for name, holds in checks.items() if not holds]


def main() -> None:
    """Measure, say what was seen, and fail if something does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--molecules", type=int, default=2000)
    parser.add_argument("--library", type=int, default=6000)
    parser.add_argument("--workers", type=int, default=2, help="of each of the three sites")
    parser.add_argument("--max-evals", type=int, default=2000)
    parser.add_argument("--function", action="store_true", help="a function that costs nothing instead of docking")
    parser.add_argument("--outage", type=float, default=10.0, help="seconds that a site stays away")
    parser.add_argument("--limit", type=float, default=3600.0, help="seconds for each of the two controllers")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--keep", type=Path, help="folder for the campaign, instead of a temporary one")
    parser.add_argument("--control", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.control is not None:
        control(options.control, options)
        return
    arguments = [
        "--molecules",
        str(options.molecules),
        "--workers",
        str(options.workers),
        "--outage",
        str(options.outage),
    ]
    arguments += ["--max-evals", str(options.max_evals), *["--function"] * options.function]
    with tempfile.TemporaryDirectory(prefix="campaign-") as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        figures = measure(folder.resolve(), options, arguments)
    figures["machine"] = {
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[2], 1),
        "python": platform.python_version(),
    }
    text = json.dumps(figures, indent=1)
    print(text)
    if options.json:
        options.json.write_text(text + "\n", encoding="utf-8")
    if wrong := problems(figures):
        sys.exit(f"does not hold: {'; '.join(wrong)}")


if __name__ == "__main__":
    main()
