"""The page and its plots as files of the repository: writing them, and finding out which do not fit the JSON."""

from __future__ import annotations

from pathlib import Path

from benchmarks.experiments.every import EXPERIMENTS
from benchmarks.kit import schema
from benchmarks.kit.experiment import MAIN_PAGE
from benchmarks.kit.page import filled, page, picture_name
from benchmarks.kit.pictures import digest, draw
from benchmarks.kit.schema import Report


def reports(root: Path) -> dict[str, Report]:
    """What is kept of all experiments, in the order of the page."""
    folder = root / "benchmarks" / "results"
    return {name: schema.read(folder / f"{name}.json") for name in EXPERIMENTS if (folder / f"{name}.json").exists()}


def write_files(root: Path) -> list[Path]:
    """Write the page and all plots."""
    kept = reports(root)
    written = []
    for path, text in _pages(root, kept).items():
        path.write_text(text, encoding="utf-8")
        written.append(path)
    for name, report in kept.items():
        if EXPERIMENTS[name].plot is not None:
            path = _picture(root, name)
            path.write_bytes(draw(EXPERIMENTS[name], report))
            written.append(path)
    return written


def stale_files(root: Path) -> list[Path]:
    """What does not show what is kept: the page, plots that show something else, plots of nothing."""
    kept = reports(root)
    stale = [path for path, text in _pages(root, kept).items() if path.read_text(encoding="utf-8") != text]
    wanted = {_picture(root, name): name for name in kept if EXPERIMENTS[name].plot is not None}
    for path, name in wanted.items():
        mark = digest(EXPERIMENTS[name], kept[name])
        if not path.exists() or f">{mark}<" not in path.read_text(encoding="utf-8"):
            stale.append(path)
    there = set((root / "docs" / "images").glob("bench-*.svg"))
    return stale + sorted(there - set(wanted))


def _pages(root: Path, kept: dict[str, Report]) -> dict[Path, str]:
    """What the pages must be: one for all experiments, and those with words of their own."""
    own = {name: experiment for name, experiment in EXPERIMENTS.items() if experiment.page != MAIN_PAGE}
    main = {name: experiment for name, experiment in EXPERIMENTS.items() if name not in own}
    pages = {root / "docs" / MAIN_PAGE: page(main, {name: kept[name] for name in main if name in kept})}
    for name, experiment in own.items():
        path = root / "docs" / experiment.page
        pages[path] = filled(pages.get(path) or path.read_text(encoding="utf-8"), experiment, kept.get(name))
    return pages


def _picture(root: Path, name: str) -> Path:
    return root / "docs" / "images" / picture_name(EXPERIMENTS[name])
