"""The demo: a docking campaign on three local sites, one of which is killed in the middle and comes back."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from parsl.config import Config
from rich.console import Console

import diaspora_parsl
from diaspora_parsl.campaigns.combinatorial import combinatorial_library
from diaspora_parsl.campaigns.docking import SITE_VARIABLE, SLOWDOWN_VARIABLE
from diaspora_parsl.campaigns.incident import Fault
from diaspora_parsl.campaigns.progress import Display, Progress
from diaspora_parsl.campaigns.receptor import shipped_target
from diaspora_parsl.campaigns.session import Finished, Job, conduct, new_folder
from diaspora_parsl.campaigns.settings import Docking, Plan

if TYPE_CHECKING:
    from diaspora_parsl import Endpoint

#: Sites and how much slower than this machine they are; the docking is the same everywhere, so scores are too.
SPEEDS: Final[Mapping[str, float]] = {"alpha": 1.0, "beta": 1.25, "gamma": 2.0}
WORKERS: Final = 2
VICTIM: Final = "beta"
#: Share of the budget that is settled when the site is killed.
KILL_AT: Final = 0.35
#: Seconds until it may come back. Longer, and the pool, which waits twice as long after each vain attempt to revive it,
#: might not have it back before the end.
OUTAGE: Final = 25.0
#: Limit of Vina's evaluations: about a second per molecule, and the native ligand is still found at 0.4 Å.
MAX_EVALS: Final = 200_000


class Site(Protocol):
    """A local site that can be killed and allowed back."""

    endpoint: Endpoint
    """What the pool is given."""

    def kill(self) -> int:
        """SIGKILL every process of the site, and keep it closed; returns how many there were."""
        ...

    def restore(self) -> None:
        """Let the site come back."""
        ...

    def remove(self) -> None:
        """End what is left of the site."""
        ...


@dataclass
class Outage:
    """Kills a site at one point of progress and lets it come back a while later."""

    site: Site
    display: Display
    faults: list[Fault] = field(default_factory=list)

    def __call__(self, progress: Progress) -> None:
        """Look whether it is time."""
        if not self.faults and progress.fraction >= KILL_AT:
            self.faults.append(Fault(at=time.time(), site=VICTIM, what="killed"))
            count = self.site.kill()
            self.display.note(f"Site {VICTIM} was killed: SIGKILL to all its {count} processes.")
        elif len(self.faults) == 1 and progress.now >= self.faults[0].at + OUTAGE:
            self.faults.append(Fault(at=time.time(), site=VICTIM, what="restored"))
            self.site.restore()
            self.display.note(f"Site {VICTIM} may come back.")


def make_sites(speeds: Mapping[str, float]) -> dict[str, Site]:
    """Local sites with two workers each, by name."""
    from diaspora_parsl.testing.sites import LocalSite  # noqa: PLC0415 - only the demo needs it

    return {
        name: LocalSite(name, workers=WORKERS, environment={SITE_VARIABLE: name, SLOWDOWN_VARIABLE: str(slowdown)})
        for name, slowdown in speeds.items()
    }


def run_demo(
    out: Path, *, budget: int, seed: int, console: Console, sites: Mapping[str, Site] | None = None
) -> Finished:
    """Run the demo.

    Args:
        out: folder for everything it leaves; a number is added if a campaign is in there.
        budget: molecules to dock.
        seed: of the random first batch.
        console: shows the progress.
        sites: instead of the local ones, by name; one must be called ``beta``.
    """
    chosen = sites or make_sites(SPEEDS)
    pool = diaspora_parsl.ResilientPoolExecutor(
        label="pool", endpoints=[site.endpoint for site in chosen.values()], fabric="embedded"
    )
    job = Job(
        title="Screening {candidates} molecules against Candida albicans DHFR",
        library=combinatorial_library(),
        target=shipped_target(),
        docking=Docking(max_evals=MAX_EVALS, timeout=60),
        plan=Plan(budget=budget, in_flight=(WORKERS + 1) * len(chosen), seed=seed),
        out=new_folder(out),
        command=f"diaspora-parsl demo --budget {budget} --seed {seed}",
    )
    console.print(
        f"Docking {budget} molecules at {', '.join(chosen)}. Site {VICTIM} will be killed in the middle.",
        soft_wrap=True,
    )
    faults: list[Fault] = []

    def outage(display: Display) -> tuple[Outage]:
        return (Outage(chosen[VICTIM], display, faults),)

    try:
        return conduct(job, Config(executors=[pool]), console, observers=outage, faults=faults)
    finally:
        for site in chosen.values():
            site.remove()
