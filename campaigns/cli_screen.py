"""The commands `screen run`, `screen resume`, `screen report` and `demo` of `diaspora-parsl`."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console

from diaspora_parsl.campaigns.library import read_library
from diaspora_parsl.campaigns.receptor import DHFR_BOX, load_receptor, shipped_target
from diaspora_parsl.campaigns.settings import Acquisition, Box, Docking, Plan, Target
from diaspora_parsl.errors import ConfigurationError

#: What a shell reports for a program that Ctrl-C ended.
INTERRUPTED: Final = 130
_SITES_UNKNOWN: Final = 32

_HELP = """Screen your own molecules against your own receptor.

Docks a random first batch, learns from it which molecules look good, and docks those next, until the budget is spent.
Molecules that cannot be read, shaped or docked in time are rows with a reason.

\b
Example:
  diaspora-parsl screen run --library molecules.smi --budget 500 \\
      --receptor protein.pdb --center 10.3 36.3 18.6 --size 20 --out my-run

\b
On your own sites, with a file that sets `config = Config(...)`:
  diaspora-parsl screen run --library molecules.csv.gz --budget 5000 --config sites.py --in-flight 200

\b
On Globus Compute endpoints that have diaspora-parsl[campaigns] installed:
  diaspora-parsl screen run --library molecules.csv.gz --budget 5000 \\
      --globus alpha=4b116d3c-1703-4f8f-9f6f-39921e5864df --globus beta=...

Without --receptor, the shipped dihydrofolate reductase of Candida albicans (PDB 1IA1) is the target.
"""


def register(app: typer.Typer) -> None:
    """Add the commands to an application."""
    screen = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="Screen molecules against a receptor.")
    screen.command("run", help=_HELP)(run)
    app.add_typer(screen, name="screen")
    app.command("demo")(demo)


def run(  # noqa: D103 - its help is above
    *,
    library: Annotated[Path, typer.Option(metavar="FILE", help="Molecules: .smi or .csv, either of them also as .gz.")],
    budget: Annotated[int, typer.Option(help="Molecules to dock.")],
    smiles_column: Annotated[str | None, typer.Option(help="Column of the .csv with the SMILES.")] = None,
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
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Python file with a Parsl `config` or `fresh_config()`. Default: this machine."
        ),
    ] = None,
    globus: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LABEL=UUID", help="A Globus Compute endpoint; LABEL:SITE=UUID names its site. Repeatable."
        ),
    ] = None,
    globus_journal: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Remembers what is in flight there: after a crash it is not docked again."),
    ] = None,
    workers: Annotated[
        int, typer.Option(min=1, help="Workers on this machine, without --config and --globus.")
    ] = os.cpu_count() or 1,
    in_flight: Annotated[
        int | None, typer.Option(min=1, help="Tasks given to Parsl at a time: all workers and a few more.")
    ] = None,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder for everything the campaign leaves.")] = Path(
        "screen-run"
    ),
    seed: Annotated[int, typer.Option(help="Seed of the random first batch.")] = 0,
    initial: Annotated[int, typer.Option(min=0, help="Random molecules first; 0: a fifth of the budget.")] = 0,
    acquisition: Annotated[Acquisition, typer.Option(help="How to choose: greedy, ucb or random.")] = "greedy",
    exhaustiveness: Annotated[int, typer.Option(help="Vina's exhaustiveness.")] = 1,
    max_evals: Annotated[int, typer.Option(help="Limit of Vina's evaluations; 0 leaves it to Vina.")] = 0,
    timeout: Annotated[float, typer.Option(help="Seconds per molecule.")] = 120.0,
    max_heavy_atoms: Annotated[int, typer.Option(help="Refuse larger molecules.")] = 80,
    poses: Annotated[int, typer.Option(min=0, help="Best molecules whose poses are written.")] = 100,
) -> None:
    if not library.is_file():
        raise ConfigurationError(f"There is no library {library}. Write the path of a .smi or .csv file.")
    if config and globus:
        raise ConfigurationError("Both --config and --globus say where to dock. Give one of them.")
    if globus_journal and not globus:
        raise ConfigurationError("--globus-journal is for endpoints of Globus Compute. Write --globus LABEL=UUID, too.")
    # Loading chemistry, statistics and plots takes seconds, which `--help` and a misspelt path need not wait for.
    from diaspora_parsl.campaigns.configs import globus_config, load_config, local_config  # noqa: PLC0415
    from diaspora_parsl.campaigns.session import Job, conduct, tell  # noqa: PLC0415

    job = Job(
        title="Screening {candidates} molecules of " + library.name.replace("{", "{{").replace("}", "}}"),
        library=read_library(library, smiles_column),
        target=_target(receptor, center, size, cofactor or []),
        docking=Docking(
            exhaustiveness=exhaustiveness, max_evals=max_evals, timeout=timeout, max_heavy_atoms=max_heavy_atoms
        ),
        plan=Plan(
            budget=budget,
            initial=initial,
            in_flight=in_flight or (_SITES_UNKNOWN if config or globus else workers + 2),
            acquisition=acquisition,
            seed=seed,
        ),
        out=out,
        poses=poses,
        command=shlex.join(["diaspora-parsl", *sys.argv[1:]]),
    )
    console = Console()
    if globus:
        where = globus_config(globus, globus_journal)
    else:
        where = load_config(config) if config else local_config(workers)
    finished = conduct(job, where, console)
    tell(finished, console)
    if finished.outcome.interrupted:
        raise typer.Exit(INTERRUPTED)


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
    from diaspora_parsl.campaigns.demo import run_demo  # noqa: PLC0415 - as above
    from diaspora_parsl.campaigns.session import tell  # noqa: PLC0415 - as above

    console = Console()
    finished = run_demo(out, budget=budget, seed=seed, console=console, globus=globus)
    tell(finished, console)
    if finished.outcome.interrupted:
        raise typer.Exit(INTERRUPTED)
    if finished.outcome.lost:
        raise typer.Exit(1)


def _target(
    receptor: Path | None, center: tuple[float, float, float] | None, size: float, cofactors: list[str]
) -> Target:
    if receptor is None:
        if center is not None or cofactors:
            raise ConfigurationError("--center and --cofactor belong to a receptor. Write --receptor protein.pdb.")
        return shipped_target()
    if center is None:
        x, y, z = DHFR_BOX.center
        raise ConfigurationError(
            f"Where shall poses be searched? Write --center X Y Z in Å, such as --center {x} {y} {z}."
        )
    kept = {}
    for cofactor in cofactors:
        residue, equals, smiles = cofactor.partition("=")
        if not (residue and equals and smiles):
            raise ConfigurationError(f'--cofactor "{cofactor}" is not RESIDUE=SMILES, such as HEM=...')
        kept[residue.strip()] = smiles.strip()
    box = Box(center=center, size=(size, size, size))
    return Target.of(load_receptor(receptor, kept), box, name=receptor.name)
