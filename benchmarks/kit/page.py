"""Build the documentation page from the JSON reports of experiments."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.kit.experiment import PEERS, Column, Experiment
from benchmarks.kit.schema import Measurement, Report

VERDICTS = {True: "yes", False: "**no**", None: "not measured"}

_HEAD = """\
<!-- Drawn by benchmarks/page.py from benchmarks/results/*.json. Change those, not this. -->

# Benchmarks

The pool beside plain Parsl, Dask distributed and Ray, measured in one go on one machine. Every case runs in a process
of its own with a limit; whatever is left of it is counted and killed. A peer that is not installed is listed as such,
and a goal that is not reached is listed as not reached.

```
make bench                                 # everything, in a short form; BENCH="black-hole doomed" for some, in full
.venv/bin/python benchmarks/run.py --help
.venv/bin/python benchmarks/run.py all --json benchmarks/results           # everything in full, about 40 minutes
.venv/bin/python benchmarks/page.py                                        # this page, from benchmarks/results
```

Ray may live in an environment of its own: `--ray-python PATH`. The times from a fault to the first rerouted start are
asserted by `tests/integration/` too, and `benchmarks/overhead.py` measures overhead and memory alone, for work on them.
"""


def page(experiments: Mapping[str, Experiment], reports: Mapping[str, Report]) -> str:
    """Return the whole page as Markdown."""
    parts = [_HEAD, _goals(experiments, reports)]
    parts += [_section(experiment, reports.get(name)) for name, experiment in experiments.items()]
    parts.append(_machines(reports))
    return "\n".join(parts)


def filled(text: str, experiment: Experiment, report: Report | None) -> str:
    """A page of its own words, with what was measured between two marks.

    Raises:
        ValueError: it has no such marks.
    """
    begin, end = f"<!-- {experiment.name}: begin -->\n", f"<!-- {experiment.name}: end -->\n"
    before, found, rest = text.partition(begin)
    _, found_too, after = rest.partition(end)
    if not (found and found_too):
        raise ValueError(f"the page has no marks {begin.strip()} and {end.strip()}")
    shown = _section(experiment, report)
    if report is not None:
        goals = [[target.says, VERDICTS[target.holds(report)]] for target in experiment.targets]
        shown += "\n" + _table(["the pool must show", "shown"], goals) + "\n" + _machines({experiment.name: report})
    return f"{before}{begin}{shown}\n{end}{after}"


def picture_name(experiment: Experiment) -> str:
    """File name of an experiment's plot, in docs/images."""
    return f"bench-{experiment.name}.svg"


def _goals(experiments: Mapping[str, Experiment], reports: Mapping[str, Report]) -> str:
    rows = []
    for name, experiment in experiments.items():
        for target in experiment.targets:
            verdict = target.holds(reports[name]) if name in reports else None
            rows.append([f"[{experiment.title}](#{_anchor(experiment)})", target.says, VERDICTS[verdict]])
    return "## Goals of the pool\n\n" + _table(["experiment", "the pool must show", "shown"], rows)


def _section(experiment: Experiment, report: Report | None) -> str:
    lines = [f"## {experiment.title}", "", experiment.asks, ""]
    if report is None:
        return "\n".join([*lines, "Not measured yet.", ""])
    kind = "short form" if report.is_quick else "in full"
    note = f"; {report.note}" if report.note else ""
    loads = [m.load for m in report.measurements if m.load is not None]
    load = f"; load average before each case {min(loads):.1f} to {max(loads):.1f}" if loads else ""
    lines += [f"Measured {report.date[:10]}, {kind}{note}{load}.", "", _measurements(experiment, report)]
    if experiment.plot is not None:
        alt = f"{experiment.title}: {experiment.plot.axis}, by peer"
        lines += [f"![{alt}](images/{picture_name(experiment)})", ""]
    return "\n".join(lines)


def _measurements(experiment: Experiment, report: Report) -> str:
    columns = [c for c in experiment.columns if any(c.of(report, m) is not None for m in report.measurements)]
    shows_end = experiment.shows_exit or any(m.status != "ok" for m in report.measurements)
    heads = ["case", "peer", *(column.heading for column in columns), *(["end"] if shows_end else [])]
    rows = []
    for measurement in report.measurements:
        cells = [_cell(column, report, measurement) for column in columns]
        end = [_end(measurement, shows_exit=experiment.shows_exit)] if shows_end else []
        rows.append([measurement.variant, PEERS[measurement.peer], *cells, *end])
    return _table(heads, rows)


def _cell(column: Column, report: Report, measurement: Measurement) -> str:
    value = column.of(report, measurement)
    return "-" if value is None else column.form.format(value)


def _end(measurement: Measurement, *, shows_exit: bool) -> str:
    if measurement.status == "not installed":
        return "not installed"
    left = f", {measurement.processes_left} processes left" if measurement.processes_left else ""
    if measurement.status != "ok":
        return f"{measurement.status}: {measurement.detail}{left}".replace("|", "/")
    if shows_exit and measurement.exit_seconds is not None:
        return f"{measurement.exit_seconds:.1f} s{left}"
    return f"clean{left}"


def _machines(reports: Mapping[str, Report]) -> str:
    seen: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for name, report in reports.items():
        seen.setdefault(tuple(report.machine.items()), []).append(name)
    parts = ["## Machine and versions\n"]
    for machine, names in seen.items():
        if len(seen) > 1:
            parts.append(f"{', '.join(names)}:\n")
        parts.append(_table(["what", "which"], [[key.replace("_", " "), value] for key, value in machine]))
    return "\n".join(parts)


def _anchor(experiment: Experiment) -> str:
    return experiment.title.lower().replace(" ", "-")


def _table(heads: list[str], rows: list[list[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
