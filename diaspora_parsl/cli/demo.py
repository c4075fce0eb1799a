"""The demo: a docking campaign on three sites of this host, one of which is killed in the middle and comes back."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from parsl.config import Config
from rich.console import Console

import diaspora_parsl
from diaspora_parsl.campaigns.screening.budget import Budget
from diaspora_parsl.campaigns.screening.library.combinatorial import combinatorial_library
from diaspora_parsl.campaigns.screening.objectives import DockingObjective
from diaspora_parsl.campaigns.screening.objectives.app import SITE_VARIABLE, SLOWDOWN_VARIABLE
from diaspora_parsl.campaigns.screening.progress import Display, Progress
from diaspora_parsl.campaigns.screening.results.reroutes import Fault
from diaspora_parsl.campaigns.screening.session import Finished, Job, new_folder, run_campaign
from diaspora_parsl.campaigns.screening.settings import Docking, Plan
from diaspora_parsl.campaigns.screening.target.receptor import shipped_target
from diaspora_parsl.errors import ConfigurationError
from diaspora_parsl.testing.faults import Kill

if TYPE_CHECKING:
    from diaspora_parsl import Endpoint
    from diaspora_parsl.testing.faults.targets import Place

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


class Site(NamedTuple):
    """A site of this host: what the pool is given, and what can be killed."""

    endpoint: Endpoint
    place: Place


@dataclass
class Outage:
    """Kills a site at one point of progress and lets it come back a while later."""

    place: Place
    display: Display
    faults: list[Fault] = field(default_factory=list)
    _kill: Kill | None = None

    def __call__(self, progress: Progress) -> None:
        """Look whether it is time."""
        if not self.faults and progress.fraction >= KILL_AT:
            now = time.time()
            self.faults.append(Fault(at=now, site=VICTIM, what="killed"))
            self._kill = Kill(at=now, endpoint=VICTIM, until=now + OUTAGE)
            self.place.begin(self._kill)
            self.display.note(f"Site {VICTIM} was killed: SIGKILL to all its processes.")
        elif self._kill is not None and progress.now >= self.faults[0].at + OUTAGE:
            self.faults.append(Fault(at=time.time(), site=VICTIM, what="restored"))
            self.place.end(self._kill)
            self._kill = None
            self.display.note(f"Site {VICTIM} may come back.")


@contextlib.contextmanager
def local_sites() -> Iterator[dict[str, Site]]:
    """HTEX endpoints with two workers each, by name."""
    from diaspora_parsl.testing.local_sites import LocalSite  # noqa: PLC0415 - only the demo needs it

    with contextlib.ExitStack() as stack:
        places = {
            name: stack.enter_context(LocalSite(name, workers=WORKERS, environment=_environment(name)))
            for name in SPEEDS
        }
        yield {name: Site(place.endpoint, place) for name, place in places.items()}


@contextlib.contextmanager
def globus_sites() -> Iterator[dict[str, Site]]:
    """Endpoints of an emulated Globus Compute with two workers each, by name.

    Raises:
        ConfigurationError: what the emulator needs is not installed.
    """
    from diaspora_parsl.testing import globus  # noqa: PLC0415 - as above

    reason = globus.why_not()
    if reason is not None:
        raise ConfigurationError(f"`diaspora-parsl demo --globus` cannot run: {reason}")
    with globus.LocalGlobusCompute() as service:
        sites = {}
        for name in SPEEDS:
            place = service.endpoint(name, workers=WORKERS, environment=_environment(name))
            endpoint = diaspora_parsl.GlobusEndpoint(endpoint_id=place.id, label=name, client_factory=service.client)
            sites[name] = Site(endpoint, place)
        yield sites


def _environment(name: str) -> dict[str, str]:
    return {SITE_VARIABLE: name, SLOWDOWN_VARIABLE: str(SPEEDS[name])}


def run_demo(out: Path, *, budget: int, seed: int, console: Console, globus: bool = False) -> Finished:
    """Run the demo.

    Args:
        out: folder for everything it leaves; a number is added if a campaign is in there.
        budget: molecules to dock.
        seed: of the random first batch.
        console: shows the progress.
        globus: on endpoints of an emulated Globus Compute.
    """
    faults: list[Fault] = []
    with (globus_sites if globus else local_sites)() as sites:
        pool = diaspora_parsl.ResilientPoolExecutor(
            label="pool", endpoints=[site.endpoint for site in sites.values()], fabric="embedded"
        )
        job = Job(
            title="Screening {candidates} molecules against Candida albicans DHFR"
            + " on an emulated Globus Compute" * globus,
            library=combinatorial_library(),
            objective=DockingObjective(target=shipped_target(), docking=Docking(max_evals=MAX_EVALS, timeout=60)),
            plan=Plan(budget=budget, in_flight=(WORKERS + 1) * len(sites), seed=seed),
            budget=Budget(molecules=budget),
            command=f"diaspora-parsl demo{' --globus' * globus} --budget {budget} --seed {seed}",
        )
        where = ", ".join(sites) + ", endpoints of an emulated Globus Compute" * globus
        console.print(
            f"Docking {budget} molecules at {where}. Site {VICTIM} will be killed in the middle.", soft_wrap=True
        )

        def outage(display: Display) -> tuple[Outage]:
            return (Outage(sites[VICTIM].place, display, faults),)

        return run_campaign(job, new_folder(out), Config(executors=[pool]), console, observers=outage, faults=faults)
