"""The commands `screen run`, `screen resume`, `screen report` and `demo` of `diaspora-parsl`."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.console import Console

from diaspora_parsl.campaigns.screening.budget import Budget, seconds_of
from diaspora_parsl.campaigns.screening.library.reader import read_library
from diaspora_parsl.campaigns.screening.settings import Acquisition, Box, Docking, Plan, SurrogateName, Target
from diaspora_parsl.campaigns.screening.target.receptor import DHFR_BOX, load_receptor, shipped_target
from diaspora_parsl.cli import screen_benchmark, screen_prepare
from diaspora_parsl.errors import ConfigurationError

if TYPE_CHECKING:
    from parsl.config import Config

    from diaspora_parsl.campaigns.screening.session import Finished

#: What a shell reports for a program that Ctrl-C ended.
INTERRUPTED: Final = 130
_SITES_UNKNOWN: Final = 32

_RUN = """Screen your own molecules against your own receptor.

Docks a random first batch, learns from it which molecules look good, and docks those next, until the budget is spent:
a number of molecules, CPU hours or wall time, whichever comes first. Molecules that cannot be read, shaped or docked in
time are rows with a reason. If it is killed, `diaspora-parsl screen resume FOLDER` goes on.

\b
Example:
  diaspora-parsl screen run --library molecules.smi --budget 500 \\
      --receptor protein.pdb --center 10.3 36.3 18.6 --size 20 --out my-run

\b
On your own sites, with a file that sets `config = Config(...)`:
  diaspora-parsl screen run --library molecules.csv.gz --wall-time 2h --config sites.py

\b
On Globus Compute endpoints that have diaspora-parsl[campaigns] installed:
  diaspora-parsl screen run --library molecules.csv.gz --budget 5000 \\
      --globus alpha=4b116d3c-1703-4f8f-9f6f-39921e5864df --globus beta=...

Without --receptor, the shipped dihydrofolate reductase of Candida albicans (PDB 1IA1) is the target.
"""

_RESUME = """Go on with a campaign that was interrupted or killed, or that may spend more.

What is settled is not docked again; what was in flight comes first. Everything is as it was when the campaign
began, but for what is given here.

\b
Examples:
  diaspora-parsl screen resume my-run
  diaspora-parsl screen resume my-run --budget 1000 --config other-sites.py
"""

_REPORT = """Write the report and the tables of a campaign again, from its folder alone; also while it runs.

\b
Example:
  diaspora-parsl screen report my-run
"""

ConfigOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Python file with a Parsl `config` or `fresh_config()`. Default: this machine."),
]
GlobusOption = Annotated[
    list[str] | None,
    typer.Option(metavar="LABEL=UUID", help="A Globus Compute endpoint; LABEL:SITE=UUID names its site. Repeatable."),
]
JournalOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Remembers what is in flight there: after a crash it is not docked again."),
]
BudgetOption = Annotated[int | None, typer.Option(metavar="MOLECULES", help="Molecules to dock, failures included.")]
CpuOption = Annotated[float | None, typer.Option(metavar="HOURS", help="CPU hours of workers, one core each.")]
WallOption = Annotated[
    str | None, typer.Option(metavar="DURATION", help="How long it may run in all: 90s, 30m, 2h, 1d, 1h30m.")
]
FolderArgument = Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of the campaign.")]


def register(app: typer.Typer) -> None:
    """Add the commands to an application."""
    screen = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="Screen molecules against a receptor.")
    screen_prepare.register(screen)
    screen_benchmark.register(screen)
    screen.command("run", help=_RUN)(run)
    screen.command("resume", help=_RESUME)(resume)
    screen.command("report", help=_REPORT)(report)
    app.add_typer(screen, name="screen")
    app.command("demo")(demo)


def run(  # noqa: D103 - its help is above
    *,
    library: Annotated[
        Path, typer.Option(metavar="FILE", help="Molecules: .smi or .csv, either also as .gz, or .parquet.")
    ],
    budget: BudgetOption = None,
    cpu_hours: CpuOption = None,
    wall_time: WallOption = None,
    smiles_column: Annotated[str | None, typer.Option(help="Column of the library with the SMILES.")] = None,
    objective: Annotated[
        str,
        typer.Option(
            metavar="WHAT",
            help="docking, xtb, xtb:homo ..., module:function, file.py:function, or the path of a .csv with scores.",
        ),
    ] = "docking",
    maximize: Annotated[bool, typer.Option("--maximize", help="More is better.")] = False,
    score_column: Annotated[str | None, typer.Option(help="Column of the .csv with the scores.")] = None,
    target: Annotated[Path | None, typer.Option(metavar="FOLDER", help="What `screen prepare` made.")] = None,
    receptor: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Receptor as .pdbqt, or as .pdb to be prepared.")
    ] = None,
    cofactor: Annotated[
        list[str] | None,
        typer.Option(metavar="RESIDUE=SMILES", help="A HETATM residue of the .pdb to keep. Repeatable."),
    ] = None,
    center: Annotated[
        tuple[float, float, float] | None, typer.Option(metavar="X Y Z", help="Centre of the box: X Y Z in Å.")
    ] = None,
    size: Annotated[float, typer.Option(help="Edge of the box in Å.")] = 20.0,
    config: ConfigOption = None,
    globus: GlobusOption = None,
    globus_journal: JournalOption = None,
    workers: Annotated[
        int, typer.Option(min=1, help="Workers on this machine, without --config and --globus.")
    ] = os.cpu_count() or 1,
    in_flight: Annotated[
        int | None,
        typer.Option(min=1, help="Tasks given to Parsl at a time. Default: some more than workers have been seen."),
    ] = None,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder for everything the campaign leaves.")] = Path(
        "screen-run"
    ),
    seed: Annotated[int, typer.Option(help="Seed of the random first batch.")] = 0,
    initial: Annotated[int, typer.Option(min=0, help="Random molecules first; 0: a tenth of the budget.")] = 0,
    surrogate: Annotated[SurrogateName, typer.Option(help="What guesses scores.")] = "auto",
    acquisition: Annotated[Acquisition, typer.Option(help="How to choose by its guesses.")] = "greedy",
    ucb_beta: Annotated[float, typer.Option(help="Weight of the uncertainty for ucb, in standard deviations.")] = 1.0,
    scaffold_cap: Annotated[int, typer.Option(min=0, help="Molecules of one scaffold at most; 0: no cap.")] = 0,
    second: Annotated[
        str, typer.Option(metavar="GOAL", help="A second objective: max:qed, min:logp, mw<=500, tpsa>=20 ...")
    ] = "",
    rounds: Annotated[
        int,
        typer.Option(min=0, help="Synchronous rounds: what is chosen depends on scores alone. 0: as results arrive."),
    ] = 0,
    exhaustiveness: Annotated[int, typer.Option(help="Vina's exhaustiveness.")] = 1,
    max_evals: Annotated[int, typer.Option(help="Limit of Vina's evaluations; 0 leaves it to Vina.")] = 0,
    timeout: Annotated[float, typer.Option(help="Seconds per molecule.")] = 120.0,
    memory: Annotated[int, typer.Option(help="MB per molecule; 0 for no limit.")] = 4000,
    max_heavy_atoms: Annotated[int, typer.Option(help="Refuse larger molecules.")] = 80,
    poses: Annotated[int, typer.Option(min=0, help="Best molecules whose poses are written.")] = 100,
) -> None:
    if not library.is_file():
        raise ConfigurationError(f"There is no library {library}. Write the path of a .smi, .csv or .parquet file.")
    limits = _budget(budget, cpu_hours, wall_time)
    if limits is None:
        raise ConfigurationError(
            "When shall the campaign end? Write --budget MOLECULES, --cpu-hours HOURS or --wall-time 2h."
        )
    # Loading chemistry, statistics and plots takes seconds, which `--help` and a misspelt path need not wait for.
    from diaspora_parsl.campaigns.parsl_configs import local_config  # noqa: PLC0415
    from diaspora_parsl.campaigns.screening.objectives import parse_objective  # noqa: PLC0415
    from diaspora_parsl.campaigns.screening.session import ANY_NUMBER, Job, print_summary, run_campaign  # noqa: PLC0415

    sites = _sites(config, globus, globus_journal)
    where = sites or partial(local_config, workers)
    job = Job(
        title="Screening {candidates} molecules of " + library.name.replace("{", "{{").replace("}", "}}"),
        library=read_library(library.resolve(), smiles_column),
        objective=parse_objective(
            objective,
            target=_target(target, receptor, center, size, cofactor or []),
            docking=Docking(
                exhaustiveness=exhaustiveness,
                max_evals=max_evals,
                timeout=timeout,
                memory=memory,
                max_heavy_atoms=max_heavy_atoms,
            ),
            maximize=maximize,
            score_column=score_column,
        ),
        plan=Plan(
            budget=budget or ANY_NUMBER,
            initial=initial,
            in_flight=in_flight or (_SITES_UNKNOWN if sites else workers + 2),
            surrogate=surrogate,
            acquisition=acquisition,
            ucb_beta=ucb_beta,
            scaffold_cap=scaffold_cap,
            second=second,
            seed=seed,
            rounds=rounds,
        ),
        budget=limits,
        sites=where,
        adaptive=in_flight is None,
        poses=poses,
        command=_command(),
    )
    console = Console()
    finished = run_campaign(job, out, where(), console)
    print_summary(finished, console)
    _leave(finished)


def resume(  # noqa: D103 - as above
    folder: FolderArgument,
    *,
    budget: BudgetOption = None,
    cpu_hours: CpuOption = None,
    wall_time: WallOption = None,
    config: ConfigOption = None,
    globus: GlobusOption = None,
    globus_journal: JournalOption = None,
) -> None:
    sites = _sites(config, globus, globus_journal)
    from diaspora_parsl.campaigns.screening import session  # noqa: PLC0415 - as above

    console = Console()
    finished = session.resume_campaign(
        folder, console, sites=sites, budget=_budget(budget, cpu_hours, wall_time), command=_command()
    )
    session.print_summary(finished, console)
    _leave(finished)


def report(folder: FolderArgument) -> None:  # noqa: D103 - as above
    from diaspora_parsl.campaigns.screening.workspace import read_folder, write_files  # noqa: PLC0415 - as above

    console = Console()
    record = read_folder(folder)
    for name, path in write_files(folder, record).items():
        console.print(f"{name:>8}  {path}", highlight=False, soft_wrap=True)
    for sentence in record.said:
        console.print(sentence, style="bold", highlight=False, soft_wrap=True)


def demo(
    *,
    out: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Folder for everything the demo leaves; numbered if taken.")
    ] = Path("demo-run"),
    budget: Annotated[int, typer.Option(min=20, help="Molecules to dock.")] = 160,
    seed: Annotated[int, typer.Option(help="Seed of the random first batch.")] = 0,
    globus: Annotated[
        bool, typer.Option("--globus", help="On three endpoints of an emulated Globus Compute; no account is needed.")
    ] = False,
) -> None:
    """Dock a few hundred molecules on three local sites, and kill one of them in the middle: about three minutes."""
    from diaspora_parsl.campaigns.screening.session import print_summary  # noqa: PLC0415 - as above
    from diaspora_parsl.cli.demo import run_demo  # noqa: PLC0415 - as above

    console = Console()
    finished = run_demo(out, budget=budget, seed=seed, console=console, globus=globus)
    print_summary(finished, console)
    _leave(finished)
    if finished.outcome is not None and finished.outcome.lost:
        raise typer.Exit(1)


def _leave(finished: Finished) -> None:
    if finished.outcome is not None and finished.outcome.interrupted:
        raise typer.Exit(INTERRUPTED)


def _command() -> str:
    return shlex.join(["diaspora-parsl", *sys.argv[1:]])


def _budget(molecules: int | None, cpu_hours: float | None, wall_time: str | None) -> Budget | None:
    """What may be spent; None if nothing is said about it."""
    if molecules is None and cpu_hours is None and wall_time is None:
        return None
    seconds = None if wall_time is None else seconds_of(wall_time)
    return Budget(molecules=molecules, cpu_hours=cpu_hours, wall_time=seconds)


def _sites(config: Path | None, globus: list[str] | None, journal: Path | None) -> Callable[[], Config] | None:
    """What makes the configuration that was asked for; None if none was. A later session calls it again."""
    if config and globus:
        raise ConfigurationError("Both --config and --globus say where to dock. Give one of them.")
    if journal and not globus:
        raise ConfigurationError("--globus-journal is for endpoints of Globus Compute. Write --globus LABEL=UUID, too.")
    from diaspora_parsl.campaigns.parsl_configs import globus_config, load_config  # noqa: PLC0415 - as above

    if globus:
        return partial(globus_config, tuple(globus), journal.resolve() if journal else None)
    return partial(load_config, config.resolve()) if config else None


def _target(
    folder: Path | None,
    receptor: Path | None,
    center: tuple[float, float, float] | None,
    size: float,
    cofactors: list[str],
) -> Target:
    if folder is not None:
        if receptor or center or cofactors:
            raise ConfigurationError("--target brings receptor and box. Leave --receptor, --center and --cofactor out.")
        from diaspora_parsl.campaigns.screening.target.prepare import load_target  # noqa: PLC0415 - as above

        return load_target(folder)
    if receptor is None:
        if center is not None or cofactors:
            raise ConfigurationError("--center and --cofactor belong to a receptor. Write --receptor protein.pdb.")
        return shipped_target()
    if center is None:
        x, y, z = DHFR_BOX.center
        raise ConfigurationError(
            f"Where shall poses be searched? Write --center X Y Z in Å, such as --center {x} {y} {z}."
        )
    kept = screen_prepare.parse_cofactors(cofactors)
    box = Box(center=center, size=(size, size, size))
    return Target.of(load_receptor(receptor, kept), box, name=receptor.name)
