"""A session: one run of a controller on a campaign's folder, from the library or the ledger to the report."""

from __future__ import annotations

import base64
import json
import os
import pickle
import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from parsl.config import Config
from rich.console import Console

from diaspora_parsl.errors import ConfigurationError

from ..orphans import end_orphans
from ..parsl_configs import find_parsl_programs, settle_in
from .budget import Budget
from .campaign import Campaign, Observer, Outcome
from .library.candidates import Candidates, find_candidates
from .library.reader import Library
from .objectives import Objective
from .progress import Display, Progress
from .records import Entry, Session
from .report.report import versions
from .results.ledger import Ledger
from .results.reroutes import Fault
from .settings import Plan
from .workspace import CANDIDATES, LEDGER, archive, locked, read_folder, write_files

#: For the plan of a campaign that counts no molecules.
ANY_NUMBER: Final = 2**31
#: Random molecules, and results between two fits, where no number of molecules to dock is given.
_INITIAL: Final = (10, 500)
_REFIT: Final = (4, 100)


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """What a campaign does. It is kept in the ledger, so that a later session can go on with it: all picklable."""

    title: str
    """Heading of the report; ``{candidates}`` becomes their number."""
    library: Iterable[Entry]
    """Read once, into the folder; only a `Library` can be gone on with if a session is killed while it reads."""
    objective: Objective
    plan: Plan
    budget: Budget
    sites: Callable[[], Config] | None = None
    """Makes the configuration of Parsl for a later session; None if it must be given again."""
    adaptive: bool = False
    """More tasks in flight than the plan says if there are more workers."""
    poses: int = 100
    """Best molecules whose poses are written as SDF."""
    command: str = ""
    """What the report says about doing it again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finished:
    """What a session leaves."""

    outcome: Outcome | None
    """None if there was nothing left to do."""
    said: Sequence[str]
    """What happened, in sentences."""
    files: Mapping[str, Path]


def new_folder(path: Path) -> Path:
    """The folder, or the same with a number behind it if a campaign is in there already."""
    candidate, number = path, 1
    while (candidate / LEDGER).exists():
        number += 1
        candidate = path.with_name(f"{path.name}-{number}")
    return candidate


def run_campaign(
    job: Job,
    out: Path,
    config: Config,
    console: Console | None = None,
    *,
    observers: Callable[[Display], tuple[Observer, ...]] = lambda _display: (),
    faults: Sequence[Fault] = (),
) -> Finished:
    """Run a campaign and write everything it leaves behind, also when it is interrupted.

    Args:
        job: what to do.
        out: folder for everything.
        config: where to do it.
        console: shows the progress; None for standard output.
        observers: given the display, more observers of the progress.
        faults: what the observers do to the sites: read whenever they have been called.

    Raises:
        ConfigurationError: the input cannot be used; the message says what to write instead.
    """
    out.mkdir(parents=True, exist_ok=True)
    with locked(out):
        if (out / LEDGER).exists():
            raise ConfigurationError(
                f"{out} holds a campaign already. Write another --out, or `diaspora-parsl screen resume {out}`."
            )
        with Ledger(out / LEDGER) as ledger:
            _note(job, ledger)
            return _control(job, out, config, console, ledger, observers=observers, faults=faults)


def resume_campaign(
    out: Path,
    console: Console | None = None,
    *,
    config: Config | None = None,
    sites: Callable[[], Config] | None = None,
    budget: Budget | None = None,
    command: str = "",
    observers: Callable[[Display], tuple[Observer, ...]] = lambda _display: (),
    faults: Sequence[Fault] = (),
) -> Finished:
    """Go on with a campaign that was interrupted, killed, or has a larger budget now.

    Settled molecules are not docked again. Molecules that were in flight come first.

    Args:
        out: its folder.
        console: shows the progress; None for standard output.
        config: where to go on, this time; None for its sites.
        sites: makes the configuration of Parsl to go on with, from now on; None for the sites that it began with.
        budget: limits that replace those it had; those not given stay.
        command: for the list of sessions.
        observers: as of `run_campaign`.
        faults: as of `run_campaign`.

    Raises:
        ConfigurationError: there is no campaign, another controller is at it, or its sites are not known.
    """
    if not (out / LEDGER).is_file():
        raise ConfigurationError(f"There is no campaign in {out}. Write the folder that `screen run` wrote to.")
    with locked(out), Ledger(out / LEDGER) as ledger:
        kept = ledger.recall("job")
        if kept is None:
            raise ConfigurationError(f"{out} holds no campaign that can be resumed. Begin again with another --out.")
        job: Job = pickle.loads(base64.b64decode(kept))  # noqa: S301 - written by ourselves, and as good as its sites
        if budget is not None:
            job = _extended(job, budget)
        if sites is not None:
            job = replace(job, sites=sites)
        if config is None:
            if job.sites is None:
                raise ConfigurationError("The sites of this campaign were made in Python. Give its `config` again.")
            config = job.sites()
        _note(job, ledger)
        return _control(job, out, config, console, ledger, command=command, observers=observers, faults=faults)


def _control(
    job: Job,
    out: Path,
    config: Config,
    console: Console | None,
    ledger: Ledger,
    *,
    command: str = "",
    observers: Callable[[Display], tuple[Observer, ...]] = lambda _display: (),
    faults: Sequence[Fault] = (),
) -> Finished:
    """Be the controller for one session, which is written down whatever happens."""
    find_parsl_programs()
    job, candidates = _with_candidates(job, out, ledger)
    number = len(ledger.sessions()) + 1
    ledger.begin_session(
        Session(
            number=number,
            started=time.time(),
            host=socket.gethostname(),
            pid=os.getpid(),
            command=command or job.command,
            versions=json.dumps(dict(versions())),
        )
    )
    display = Display(console or Console())
    kept = 0

    def keep_faults(_progress: Progress) -> None:
        nonlocal kept
        ledger.fault(*faults[kept:])
        kept = len(faults)

    outcome = None
    ending = "failed"
    try:
        for session in ledger.sessions():
            if session.ending == "killed" and session.host == socket.gethostname() and session.run_dir:
                end_orphans(out / session.run_dir)
        archive(out, ledger)
        campaign = Campaign(
            candidates=candidates,
            objective=job.objective,
            plan=job.plan,
            budget=job.budget,
            ledger=ledger,
            session=number,
            adaptive=job.adaptive,
            observers=(display, *observers(display), keep_faults),
        )
        if campaign.has_work:
            with display.shown():
                outcome = campaign.run(settle_in(config, out))
        ending = "interrupted" if outcome is not None and outcome.interrupted else "finished"
    except BaseException as error:
        ending = f"failed: {type(error).__name__}: {error}"
        raise
    finally:
        ledger.settle_session(number, ended=time.time(), ending=ending)
        archive(out, ledger)
    record = read_folder(out)
    return Finished(outcome=outcome, said=record.said, files=write_files(out, record))


def _with_candidates(job: Job, out: Path, ledger: Ledger) -> tuple[Job, Candidates]:
    """Read the library into the folder, or open what an earlier session has read."""
    if ledger.recall("candidates") is not None:
        return job, Candidates(out / CANDIDATES)
    candidates = find_candidates(job.library, out / CANDIDATES, scope=job.objective.scope)
    if job.plan.second_objective is not None:  # computed once, here: fits read it from the folder
        candidates.properties([job.plan.second_objective.name])
    job = replace(job, plan=_complete(job.plan, job.budget, len(candidates)))
    _note(job, ledger)
    ledger.refuse(candidates.refused, len(candidates))
    return job, candidates


def _note(job: Job, ledger: Ledger) -> None:
    """Keep what a later session and a report need."""
    kept = job if isinstance(job.library, Library) else replace(job, library=())
    ledger.remember("job", base64.b64encode(pickle.dumps(kept)).decode())
    ledger.remember("settings", {**job.objective.settings(), **asdict(job.plan), **asdict(job.budget)})
    ledger.remember("quantity", job.objective.name)
    ledger.remember("unit", job.objective.unit)
    ledger.remember("title", job.title)
    ledger.remember("command", job.command)
    ledger.remember("poses", job.poses)


def _complete(plan: Plan, budget: Budget, candidates: int) -> Plan:
    """The plan with every default written out, so that a budget that grows later changes no choice of today."""
    if budget.molecules is not None:
        plan = replace(plan, budget=budget.molecules)
        return replace(plan, initial=plan.first_batch, refit_every=plan.refit_after)
    initial = plan.initial or min(max(candidates // 100, _INITIAL[0]), _INITIAL[1])
    refit = plan.refit_every or min(max(initial // 5, _REFIT[0]), _REFIT[1])
    return replace(plan, budget=candidates, initial=initial, refit_every=refit)


def _extended(job: Job, budget: Budget) -> Job:
    given = {name: value for name, value in asdict(budget).items() if value is not None}
    plan = replace(job.plan, budget=budget.molecules) if budget.molecules is not None else job.plan
    return replace(job, budget=replace(job.budget, **given), plan=plan)


def print_summary(finished: Finished, console: Console) -> None:
    """Say where the files are and what happened."""
    console.print()
    for name, path in finished.files.items():
        console.print(f"{name:>8}  {path}", highlight=False, soft_wrap=True)
    console.print()
    if finished.outcome is None:
        console.print("The budget was spent already: give more, such as --budget.", style="bold yellow")
    elif finished.outcome.interrupted:
        console.print("Interrupted: the files hold what there was.", style="bold yellow")
    for sentence in finished.said:
        console.print(sentence, style="bold", highlight=False, soft_wrap=True)
