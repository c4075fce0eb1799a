"""The command `screen benchmark` of `diaspora-parsl`."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from diaspora_parsl.campaigns.screening.settings import Acquisition, Plan, SurrogateName
from diaspora_parsl.errors import ConfigurationError

if TYPE_CHECKING:
    from diaspora_parsl.campaigns.screening.benchmark import Run

_HELP = """Measure the choice on a library whose scores are all known.

A campaign on virtual workers spends a part of the library as its budget, and is asked how many of the best molecules
it found; random choice and a random forest as MolPAL's stand beside it. Nothing is docked. Without other options, the
choice is the one that `screen run` makes.

\b
Example:
  diaspora-parsl screen benchmark --library Enamine10k.csv.gz --scores Enamine10k_scores.csv.gz \\
      --top 100 --fraction 0.06 --seeds 5 --json out.json
"""

_NAMES: Final = {
    "product": "diaspora-parsl",
    "random_forest": "random forest as in MolPAL, on the same fingerprints",
    "random": "random",
}
#: What MolPAL publishes about this very library at 6 %, with where it stands.
_PUBLISHED: Final = (
    "MolPAL's message-passing net, greedy, as published",
    "",
    "59.6 ± 2.3",
)
_SOURCE: Final = "Graff et al. 2021, Chemical Science 12, 7866, tables S1 to S3, quoted in coleygroup/molpal issue 39"
_BEGIN: Final = "<!-- screen benchmark: begin -->\n"
_END: Final = "<!-- screen benchmark: end -->\n"


def register(screen: typer.Typer) -> None:
    """Add the command to the group."""
    screen.command("benchmark", help=_HELP)(benchmark)


def benchmark(  # noqa: D103 - its help is above
    *,
    library: Annotated[Path, typer.Option(metavar="FILE", help="Molecules, as for `screen run`.")],
    scores: Annotated[Path, typer.Option(metavar="FILE", help="A .csv, or .gz of it, with SMILES and scores.")],
    top: Annotated[int, typer.Option(min=1, help="How many are the best.")] = 100,
    fraction: Annotated[float, typer.Option(min=0.0001, max=1, help="Of the library that is screened.")] = 0.06,
    seeds: Annotated[int, typer.Option(min=1, help="Repetitions, with the seeds 0, 1, 2 ...")] = 5,
    jobs: Annotated[int, typer.Option(min=1, help="Seeds at a time, each in a process of its own.")] = 1,
    in_flight: Annotated[int, typer.Option(min=1, help="Virtual workers.")] = 8,
    surrogate: Annotated[SurrogateName, typer.Option(help="auto, gp, lightgbm or forest.")] = "auto",
    acquisition: Annotated[Acquisition, typer.Option(help="greedy, ucb, ei, thompson or random.")] = "greedy",
    rounds: Annotated[int, typer.Option(min=0, help="Synchronous rounds. 0: as results arrive.")] = 0,
    initial: Annotated[int, typer.Option(min=0, help="Random molecules first; 0: a tenth of the budget.")] = 0,
    smiles_column: Annotated[str | None, typer.Option(help="Column of both files with the SMILES.")] = None,
    score_column: Annotated[str | None, typer.Option(help="Column of the .csv with the scores.")] = None,
    maximize: Annotated[bool, typer.Option("--maximize", help="More is better.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write all figures there.")] = None,
    table: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the table into this Markdown file, between its markers.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw the curves there: .svg or .png.")] = None,
) -> None:
    from diaspora_parsl.campaigns.screening import benchmark as work  # noqa: PLC0415 - loads RDKit

    if plot is not None and plot.suffix not in {".svg", ".png"}:
        raise ConfigurationError(f"--plot {plot} is no kind of picture. Write a name that ends in .svg or .png.")
    if table is not None:
        _check_markers(table)
    console = Console(stderr=True)
    with console.status("Reading the library ..."):
        truth = work.load_truth(
            library, scores, smiles_column=smiles_column, score_column=score_column, maximize=maximize
        )
    best = work.Best(truth.scores, top)
    plan = Plan(
        budget=max(1, round(fraction * len(truth.scores))),
        in_flight=in_flight,
        surrogate=surrogate,
        acquisition=acquisition,
        rounds=rounds,
        initial=initial,
    )
    runs: dict[str, Run] = {}
    seconds: dict[str, float] = {}
    with _progress(console) as advance:
        for name, strategy in work.strategies(plan).items():
            began = time.perf_counter()
            with advance(_NAMES[name], seeds * plan.budget) as tick:
                runs[name] = work.run(truth, best, strategy, seeds, jobs=jobs, tick=tick)
            seconds[name] = (time.perf_counter() - began) / seeds
    settings = {
        **work.settings_of(truth, best, plan, seeds),
        "library": library.name,
        "scores": scores.name,
        "fraction": fraction,
        "jobs": jobs,
        "seconds_per_seed": {name: round(value, 1) for name, value in seconds.items()},
    }
    rows = _rows(runs, is_published=_is_published(library, top, fraction))
    Console().print(_printed(rows, settings))
    if json_file is not None:
        figures = {"settings": settings, **{name: asdict(one) for name, one in runs.items()}}
        json_file.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    if table is not None:
        _write_table(table, rows, settings)
    if plot is not None:
        from diaspora_parsl.campaigns.screening.report.benchmark_plot import draw  # noqa: PLC0415 - loads matplotlib

        draw(plot, {_NAMES[name]: one.curve for name, one in runs.items()}, top=top)


def _is_published(library: Path, top: int, fraction: float) -> bool:
    return library.name.startswith("Enamine10k.") and (top, fraction) == (100, 0.06)


@contextmanager
def _progress(console: Console) -> Iterator[Callable[[str, int], Any]]:
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console) as bar:

        @contextmanager
        def advance(name: str, total: int) -> Iterator[Callable[[int], None]]:
            task = bar.add_task(name, total=total)
            yield lambda count: bar.advance(task, count)

        yield advance


def _rows(runs: dict[str, Run], *, is_published: bool) -> list[tuple[str, str, str]]:
    rows = [(_NAMES[name], _spread(runs[name].scores_percent), _spread(runs[name].exact_percent)) for name in _NAMES]
    if is_published:
        rows.insert(1, _PUBLISHED)
    return rows


def _spread(values: list[float]) -> str:
    """Mean, and standard deviation of single seeds."""
    deviation = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.1f}{deviation}"


def _caption(settings: dict[str, Any]) -> str:
    plan = settings["plan"]
    return (
        f"Share of the best {settings['top']} of {settings['molecules']:,} molecules found after {plan['budget']} "
        f"({100 * plan['budget'] / settings['molecules']:.1f} %), mean ± standard deviation of "
        f"{len(settings['seeds'])} seeds. Failures count as screened."
    )


def _notes(rows: list[tuple[str, str, str]], settings: dict[str, Any]) -> str:
    source = f" Published figure: {_SOURCE}." if _PUBLISHED in rows else ""
    ties = f" {settings['tied_at_cutoff']} molecules have the score of the last of the best, {settings['cutoff']:g}."
    return f"{settings['tie_rule']}{ties}{source}"


def _printed(rows: list[tuple[str, str, str]], settings: dict[str, Any]) -> Table:
    found = Table(title=_caption(settings), caption=_notes(rows, settings), title_justify="left")
    found.add_column("choice")
    found.add_column("scores %", justify="right")
    found.add_column("exact molecules %", justify="right")
    for row in rows:
        found.add_row(*row)
    return found


def _check_markers(page: Path) -> None:
    text = page.read_text(encoding="utf-8") if page.is_file() else ""
    if not 0 <= text.find(_BEGIN) < text.find(_END):
        raise ConfigurationError(f"{page} has no place for the table. Write the lines\n{_BEGIN}{_END}into it.")


def _write_table(page: Path, rows: list[tuple[str, str, str]], settings: dict[str, Any]) -> None:
    text = page.read_text(encoding="utf-8")
    lines = [
        _caption(settings),
        "",
        "| choice | scores % | exact molecules % |",
        "|---|---|---|",
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
        _notes(rows, settings),
    ]
    before, after = text.split(_BEGIN, 1)[0], text.split(_END, 1)[1]
    page.write_text(before + _BEGIN + "\n".join(lines) + "\n" + _END + after, encoding="utf-8")
