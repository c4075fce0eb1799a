"""The command `screen prepare` of `diaspora-parsl`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from diaspora_parsl.campaigns.screening.settings import Docking
from diaspora_parsl.errors import ConfigurationError

if TYPE_CHECKING:
    from diaspora_parsl.campaigns.screening.target.prepare import Prepared

_HELP = """Prepare a target: receptor, box, and a check that docking finds the native ligand's place.

RECEPTOR is a .pdb or .pdbqt file, or an id of the Protein Data Bank, which is fetched. Without it, the shipped
dihydrofolate reductase of Candida albicans is prepared with its inhibitor.

\b
Examples:
  diaspora-parsl screen prepare 1IA1 --chain B --ligand TQ3 --cofactor NDP='NC(=O)C1=CN(...)' \\
      --ligand-smiles 'Nc1nc(N)c2c(Sc3ccccc3)cccc2n1' --out dhfr
  diaspora-parsl screen prepare protein.pdb --ligand inhibitor.sdf --out target
  diaspora-parsl screen prepare protein.pdbqt --center 10.3 36.3 18.6 --size 20 --out target
  diaspora-parsl screen run --target target --library molecules.smi --budget 500
"""


def register(screen: typer.Typer) -> None:
    """Add the command to the group `screen`."""
    screen.command("prepare", help=_HELP)(prepare)


def prepare(  # noqa: D103 - its help is above
    receptor: Annotated[str, typer.Argument(metavar="[RECEPTOR]", help="File, or PDB id.", show_default=False)] = "",
    *,
    ligand: Annotated[
        str, typer.Option(metavar="FILE|RESIDUE", help="The native ligand: .sdf, .mol, .mol2 or .pdb, or TQ3 or B:301.")
    ] = "",
    ligand_smiles: Annotated[str, typer.Option(help="Bond orders of a ligand from a PDB file.")] = "",
    center: Annotated[
        tuple[float, float, float] | None, typer.Option(metavar="X Y Z", help="Centre of the box in Å.")
    ] = None,
    size: Annotated[
        float | None, typer.Option(help="Edge of the box in Å. Default: the ligand and 5 Å, at least 20.")
    ] = None,
    cofactor: Annotated[
        list[str] | None,
        typer.Option(metavar="RESIDUE=SMILES", help="A HETATM residue of the .pdb to keep. Repeatable."),
    ] = None,
    chain: Annotated[
        list[str] | None, typer.Option(help="A chain of the .pdb to keep. Repeatable; default: all.")
    ] = None,
    drop_unknown: Annotated[
        bool, typer.Option("--drop-unknown", help="Leave out residues that meeko has no template for.")
    ] = False,
    redock: Annotated[bool, typer.Option(help="Dock the native ligand and compare.")] = True,
    exhaustiveness: Annotated[int, typer.Option(help="Vina's exhaustiveness for that.")] = 8,
    timeout: Annotated[float, typer.Option(help="Seconds for that.")] = 900.0,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder of the target.")] = Path("target"),
) -> None:
    from diaspora_parsl.campaigns.screening.target import prepare as preparing  # noqa: PLC0415 - `--help` need not load chemistry

    request = preparing.Request(
        receptor=receptor,
        ligand=ligand,
        ligand_smiles=ligand_smiles,
        center=center,
        edge=size,
        cofactors=parse_cofactors(cofactor or []),
        chains=tuple(chain or ()),
        drop_unknown=drop_unknown,
        redock=redock,
        docking=Docking(exhaustiveness=exhaustiveness, timeout=timeout),
    )
    if (out / preparing.DESCRIPTION).exists():
        raise ConfigurationError(f"{out} holds a target already. Write another --out.")
    console = Console()
    with console.status("Preparing the receptor and docking its ligand …"):
        prepared = preparing.prepare(request)
    files = preparing.write_target(prepared, out)
    show(prepared, console)
    for name, path in files.items():
        console.print(f"{name:>8}  {path}", highlight=False, soft_wrap=True)
    console.print(f"\ndiaspora-parsl screen run --target {out} --library molecules.smi --budget 500", soft_wrap=True)


def parse_cofactors(given: list[str]) -> dict[str, str]:
    """Residue name to SMILES, from ``RESIDUE=SMILES``.

    Raises:
        ConfigurationError: one is not of this form.
    """
    kept = {}
    for cofactor in given:
        residue, equals, smiles = cofactor.partition("=")
        if not (residue and equals and smiles):
            raise ConfigurationError(f'--cofactor "{cofactor}" is not RESIDUE=SMILES, such as HEM=...')
        kept[residue.strip()] = smiles.strip()
    return kept


def show(prepared: Prepared, console: Console) -> None:
    """The target as a table, with what should be looked at."""
    from diaspora_parsl.campaigns.screening.target.prepare import ADVICE  # noqa: PLC0415 - as above

    box, ligand, redocking = prepared.target.box, prepared.ligand, prepared.redocking
    atoms = sum(line.startswith(("ATOM", "HETATM")) for line in prepared.target.pdbqt.splitlines())
    table = Table(show_header=False, box=None)
    table.add_row("receptor", f"{prepared.target.name}, {atoms:,} atoms")
    table.add_row(
        "box", f"{' x '.join(f'{one:g}' for one in box.size)} Å at {' '.join(f'{one:g}' for one in box.center)}"
    )
    if ligand is not None:
        table.add_row("native ligand", f"{ligand.name}  {ligand.smiles}")
    if redocking is not None:
        table.add_row(
            "docked back",
            f"[bold {'green' if redocking.good else 'red'}]{redocking.rmsd:.2f} Å[/] from its place, "
            f"{redocking.score:.2f} kcal/mol, {redocking.seconds:.0f} s",
        )
    console.print(table, highlight=False, soft_wrap=True)
    for note in prepared.notes:
        console.print(f"Note: {note}", style="yellow", highlight=False, markup=False, soft_wrap=True)
    if redocking is not None and not redocking.good:
        console.print(
            "Warning: more than 2 Å. Scores of this target mean little until docking finds the native place:",
            style="bold red",
            highlight=False,
            soft_wrap=True,
        )
        for number, advice in enumerate(ADVICE, start=1):
            console.print(f" {number}. {advice}", highlight=False, soft_wrap=True)
