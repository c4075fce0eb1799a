"""The page and its plots as files of the repository: writing them, and finding out which do not fit the JSON."""

from __future__ import annotations

from pathlib import Path

from benchmarks.experiments.every import EXPERIMENTS
from benchmarks.kit import schema
from benchmarks.kit.page import page, picture_name
from benchmarks.kit.pictures import digest, draw
from benchmarks.kit.schema import Report


def reports(root: Path) -> dict[str, Report]:
    """What is kept of all experiments, in the order of the page."""
    folder = root / "benchmarks" / "results"
    return {name: schema.read(folder / f"{name}.json") for name in EXPERIMENTS if (folder / f"{name}.json").exists()}


def write_files(root: Path) -> list[Path]:
    """Write the page and all plots."""
    kept = reports(root)
    written = [_page(root)]
    written[0].write_text(page(EXPERIMENTS, kept), encoding="utf-8")
    for name, report in kept.items():
        if EXPERIMENTS[name].plot is not None:
            path = _picture(root, name)
            path.write_bytes(draw(EXPERIMENTS[name], report))
            written.append(path)
    return written


def stale_files(root: Path) -> list[Path]:
    """What does not show what is kept: the page, plots that show something else, plots of nothing."""
    kept = reports(root)
    stale = []
    if _page(root).read_text(encoding="utf-8") != page(EXPERIMENTS, kept):
        stale.append(_page(root))
    wanted = {_picture(root, name): name for name in kept if EXPERIMENTS[name].plot is not None}
    for path, name in wanted.items():
        mark = digest(EXPERIMENTS[name], kept[name])
        if not path.exists() or f">{mark}<" not in path.read_text(encoding="utf-8"):
            stale.append(path)
    there = set((root / "docs" / "images").glob("bench-*.svg"))
    return stale + sorted(there - set(wanted))


def _page(root: Path) -> Path:
    return root / "docs" / "benchmarks.md"


def _picture(root: Path, name: str) -> Path:
    return root / "docs" / "images" / picture_name(EXPERIMENTS[name])
