"""The page of the benchmarks shows what was measured: no more, no less, nothing else."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree as ET  # files of this repository

import pytest

from benchmarks.experiments.every import EXPERIMENTS
from benchmarks.kit.experiment import PEERS
from benchmarks.kit.page import page, picture_name
from benchmarks.kit.pictures import digest, draw
from benchmarks.kit.schema import Measurement, Report
from benchmarks.kit.stale import reports, stale_files

ROOT = Path(__file__).parents[3]
KEPT = reports(ROOT)


def report(*measurements: Measurement, experiment: str = "black-hole", note: str = "") -> Report:
    return Report(
        experiment=experiment, date="2026-01-02T03:04:05+00:00", is_quick=False, note=note,
        machine={"system": "a machine", "ray": "not installed"}, measurements=measurements,
    )  # fmt: skip


def measured(peer: str, variant: str = "retries=0", **figures: float) -> Measurement:
    return Measurement(peer=peer, variant=variant, status="ok", figures=dict(figures))


def row_of(text: str, *cells: str) -> list[str]:
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    found = [row for row in rows if row[: len(cells)] == list(cells)]
    assert len(found) == 1, found
    return found[0]


def test_the_page_and_its_plots_show_what_is_kept() -> None:
    assert not stale_files(ROOT), "run benchmarks/page.py"


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_what_is_kept_is_whole(name: str) -> None:
    experiment, kept = EXPERIMENTS[name], KEPT[name]
    cases = [(case.peer, case.variant) for case in experiment.cases(kept.is_quick)]
    assert [(m.peer, m.variant) for m in kept.measurements] == cases
    for measurement in kept.measurements:
        if measurement.status == "ok":
            assert measurement.figures, measurement
    assert {"parsl", "ray", "distributed", "python", "cores"} <= set(kept.machine)


@pytest.mark.parametrize("name", EXPERIMENTS)
@pytest.mark.parametrize("quick", [True, False])
def test_cases_are_told_apart_and_bounded(name: str, quick: bool) -> None:  # noqa: FBT001
    cases = EXPERIMENTS[name].cases(quick)
    assert len({(case.peer, case.variant) for case in cases}) == len(cases)
    for case in cases:
        assert case.peer in PEERS
        assert case.limit > case.spec.get("wait", 0)


def test_a_figure_stands_in_its_row() -> None:
    reported = report(
        measured("pool", success=100.0, user_failures=3), measured("ray", success=2.25, user_failures=391)
    )
    text = page(EXPERIMENTS, {"black-hole": reported})
    assert row_of(text, "retries=0", "diaspora_parsl")[2:] == ["100.0", "3"]
    assert row_of(text, "retries=0", "Ray")[2:] == ["2.2", "391"]


def test_a_peer_that_is_not_there_is_listed() -> None:
    reported = report(
        measured("pool", success=100.0), Measurement(peer="ray", variant="retries=0", status="not installed")
    )
    assert row_of(page(EXPERIMENTS, {"black-hole": reported}), "retries=0", "Ray")[-1] == "not installed"


def test_what_hung_and_what_it_left_is_told() -> None:
    hung = Measurement(
        peer="plain", variant="retries=0", status="hangs", detail="did not end", processes_left=9,
        figures={"success": 50.0},
    )  # fmt: skip
    row = row_of(page(EXPERIMENTS, {"black-hole": report(hung)}), "retries=0", "Parsl")
    assert row[-1] == "hangs: did not end, 9 processes left"


@pytest.mark.parametrize(
    ("success", "failures", "verdicts"),
    [(100.0, 4, ["yes", "yes"]), (99.75, 4, ["**no**", "yes"]), (100.0, 5, ["yes", "**no**"])],
)
def test_a_goal_is_judged_by_the_figures_of_the_pool(success: float, failures: int, verdicts: list[str]) -> None:
    reported = report(
        measured("pool", success=success, user_failures=failures), measured("plain", success=3.0, user_failures=397)
    )
    text = page(EXPERIMENTS, {"black-hole": reported})
    rows = [line for line in text.splitlines() if line.startswith("| [Black hole]")]
    assert [row.split("|")[-2].strip() for row in rows] == verdicts


def test_a_goal_without_figures_is_not_said_to_be_reached() -> None:
    text = page(EXPERIMENTS, {"black-hole": report(measured("plain", success=100.0))})
    rows = [line for line in text.splitlines() if line.startswith("| [")]
    assert {row.split("|")[-2].strip() for row in rows} == {"not measured"}
    lacking = report(measured("pool"))
    assert all(target.holds(lacking) is False for target in EXPERIMENTS["black-hole"].targets)


def test_every_goal_links_to_its_section() -> None:
    text = page(EXPERIMENTS, KEPT)
    anchors = {line[3:].lower().replace(" ", "-") for line in text.splitlines() if line.startswith("## ")}
    linked = set(re.findall(r"\(#([^)]+)\)", text))
    assert linked
    assert linked <= anchors


def test_a_plot_is_the_same_each_time_and_changes_with_a_figure() -> None:
    experiment = EXPERIMENTS["black-hole"]
    one, other = report(measured("pool", success=100.0)), report(measured("pool", success=99.0))
    picture = draw(experiment, one)
    assert picture == draw(experiment, one)
    assert digest(experiment, one) in picture.decode()
    assert digest(experiment, one) != digest(experiment, other)
    ET.fromstring(picture)  # noqa: S314 - our own


def test_machines_are_told_apart() -> None:
    one, other = report(measured("pool")), report(measured("pool"), experiment="doomed")
    assert "black-hole:" not in page(EXPERIMENTS, {"black-hole": one, "doomed": other})
    elsewhere = Report(**{**{f: getattr(other, f) for f in other.__struct_fields__}, "machine": {"system": "another"}})
    text = page(EXPERIMENTS, {"black-hole": one, "doomed": elsewhere})
    assert "black-hole:" in text
    assert "another" in text


def test_names_of_pictures_are_unlike() -> None:
    assert len({picture_name(experiment) for experiment in EXPERIMENTS.values()}) == len(EXPERIMENTS)
