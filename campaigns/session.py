"""A session: one campaign from library to report, in a folder of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from parsl.config import Config
from rich.console import Console

from diaspora_parsl.campaigns.campaign import Campaign, Observer, Outcome
from diaspora_parsl.campaigns.candidates import find_candidates
from diaspora_parsl.campaigns.configs import find_parsl_programs, settle_in
from diaspora_parsl.campaigns.fabric_events import events_of_run
from diaspora_parsl.campaigns.incident import Fault, at_their_sites, sentences, tell_story
from diaspora_parsl.campaigns.ledger import Ledger
from diaspora_parsl.campaigns.library import Entry
from diaspora_parsl.campaigns.objectives import DockingObjective
from diaspora_parsl.campaigns.outputs import write_events, write_poses, write_ranked
from diaspora_parsl.campaigns.progress import Display
from diaspora_parsl.campaigns.report import ReportInput, write_report
from diaspora_parsl.campaigns.settings import Docking, Plan, Target
from diaspora_parsl.errors import ConfigurationError

LEDGER: Final = "campaign.sqlite"


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """What a session does."""

    title: str
    """Heading of the report; ``{candidates}`` becomes their number."""
    library: Iterable[Entry]
    target: Target
    docking: Docking
    plan: Plan
    out: Path
    poses: int = 100
    """Best molecules whose poses are written as SDF."""
    command: str = ""
    """What the report says about doing it again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finished:
    """What a session leaves."""

    outcome: Outcome
    said: Sequence[str]
    """What happened, in sentences."""
    files: dict[str, Path]


def new_folder(path: Path) -> Path:
    """The folder, or the same with a number behind it if a campaign is in there already."""
    candidate, number = path, 1
    while (candidate / LEDGER).exists():
        number += 1
        candidate = path.with_name(f"{path.name}-{number}")
    return candidate


def conduct(
    job: Job,
    config: Config,
    console: Console,
    *,
    observers: Callable[[Display], tuple[Observer, ...]] = lambda _display: (),
    faults: Sequence[Fault] = (),
) -> Finished:
    """Run a campaign and write everything it leaves behind, also when it is interrupted.

    Args:
        job: what to do.
        config: where to do it.
        console: shows the progress.
        observers: given the display, more observers of the progress.
        faults: read when the campaign is over: what the observers did to the sites.

    Raises:
        ConfigurationError: the input cannot be used; the message says what to write instead.
    """
    find_parsl_programs()
    job.out.mkdir(parents=True, exist_ok=True)
    if (job.out / LEDGER).exists():
        raise ConfigurationError(f"{job.out} holds a campaign already. Write another --out.")
    display = Display(console)
    candidates = find_candidates(job.library)
    with Ledger(job.out / LEDGER) as ledger:
        objective = DockingObjective(target=job.target, docking=job.docking)
        settings = {**objective.settings(), **asdict(job.plan)}
        ledger.remember("settings", settings)
        ledger.remember("candidates", len(candidates))
        campaign = Campaign(
            candidates=candidates,
            objective=objective,
            plan=job.plan,
            ledger=ledger,
            observers=(display, *observers(display)),
        )
        with display.shown():
            outcome = campaign.run(settle_in(config, job.out))
        rows = ledger.rows()
    events = events_of_run(Path(outcome.run_dir), outcome.started)
    rows = at_their_sites(rows, events)
    story = tell_story(events, rows)
    said = sentences(outcome.submitted, outcome.lost, story, faults)
    if unfinished := outcome.submitted - outcome.settled:
        said.append(f"{unfinished} were in flight when the campaign was interrupted, and have no row.")
    files = {
        name: job.out / file
        for name, file in {
            "report": "report.html",
            "ranking": "ranked.csv",
            "poses": "best_poses.sdf",
            "events": "events.jsonl",
            "ledger": LEDGER,
        }.items()
    }
    write_events(files["events"], events)
    write_ranked(files["ranking"], rows)
    write_poses(files["poses"], rows, job.poses)
    write_report(
        files["report"],
        ReportInput(
            title=job.title.format(candidates=f"{len(candidates):,}"),
            headline=said,
            rows=rows,
            candidates=len(candidates),
            started=outcome.started,
            ended=outcome.ended,
            settings=settings,
            command=job.command,
            story=story,
            faults=faults,
            interrupted=outcome.interrupted,
        ),
    )
    return Finished(outcome=outcome, said=said, files=files)


def tell(finished: Finished, console: Console) -> None:
    """Say where the files are and what happened."""
    console.print()
    for name, path in finished.files.items():
        console.print(f"{name:>8}  {path}", highlight=False, soft_wrap=True)
    console.print()
    if finished.outcome.interrupted:
        console.print("Interrupted: the files hold what there was.", style="bold yellow")
    for sentence in finished.said:
        console.print(sentence, style="bold", highlight=False, soft_wrap=True)
