from __future__ import annotations

import csv
import html.parser
import io
import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from rdkit import Chem
from rich.console import Console

from diaspora_parsl.campaigns.screening.chemistry.novelty import novelty
from diaspora_parsl.campaigns.screening.library.candidates import find_candidates
from diaspora_parsl.campaigns.screening.library.combinatorial import combinatorial_library
from diaspora_parsl.campaigns.screening.objectives.docking import prepare_ligand
from diaspora_parsl.campaigns.screening.progress import Display, Tally, line
from diaspora_parsl.campaigns.screening.records import Fit, Row, Session
from diaspora_parsl.campaigns.screening.report.report import ReportInput, write_report
from diaspora_parsl.campaigns.screening.results.analysis import agreement, agreement_by_round, enrichment
from diaspora_parsl.campaigns.screening.results.exports import ranked, write_events, write_poses, write_ranked
from diaspora_parsl.campaigns.screening.results.reroutes import Fault
from diaspora_parsl.events import Event, TaskSubmitted, decode, encode_payload

if TYPE_CHECKING:
    from pathlib import Path


def campaign_rows() -> list[Row]:
    """A finished campaign: 20 random molecules, 40 chosen ones that are 1 kcal/mol better, two failures."""
    generator = np.random.default_rng(0)
    rows = []
    for number, entry in enumerate(find_candidates(combinatorial_library(62)).entries):
        chosen = number >= 20
        score = float(generator.normal(-8.0 if chosen else -7.0, 0.5))
        rows.append(
            Row(
                molecule=number,
                name=entry.name,
                smiles=entry.smiles,
                status="ok",
                score=score,
                predicted=score + 0.3 if chosen else None,
                model=1 + (number - 20) // 10 if chosen else 0,
                submitted=100.0 + number,
                started=100.5 + number,
                ended=101.5 + number,
                seconds=1.0,
                site=("alpha", "beta", "gamma")[number % 3],
            )
        )
    return [
        *rows[:60],
        replace(rows[60], status="timeout", detail="Longer than the limit of 60 s.", score=None),
        Row(molecule=99, name="<b>bad</b>", smiles="<script>", status="parse", detail="RDKit cannot read this SMILES."),
    ]


ROWS = campaign_rows()


def test_enrichment_is_measured_against_the_random_batch() -> None:
    gain = enrichment(ROWS)
    assert gain is not None
    assert gain.sample == 20
    assert len(gain.hits) == 61  # settled by a worker; the unreadable line never was a candidate
    assert gain.hits[19] == 2  # a tenth of the random batch, by definition
    assert gain.factor > 2
    assert (np.diff(gain.best) <= 0).all()
    assert (gain.random_hits.low <= gain.random_hits.middle).all()
    assert (gain.random_best.high <= gain.random_best.middle).all() or (
        gain.random_best.low <= gain.random_best.middle
    ).all()
    assert enrichment(ROWS[:3]) is None


def test_a_random_campaign_stays_in_the_band() -> None:
    generator = np.random.default_rng(4)
    rows = [replace(ROWS[number % 60], molecule=number, score=float(generator.normal(-7, 1)), model=int(number >= 50),
                    submitted=1.0, ended=float(number)) for number in range(250)]  # fmt: skip
    gain = enrichment(rows)
    assert gain is not None
    assert gain.random_hits.low[-1] <= gain.hits[-1] <= gain.random_hits.high[-1]


def test_agreement() -> None:
    guess = agreement(ROWS)
    assert guess is not None
    assert guess.error == pytest.approx(0.3)
    assert guess.spearman == pytest.approx(1.0)
    assert agreement(ROWS[:20]) is None


def test_agreement_round_by_round() -> None:
    rounds = agreement_by_round(ROWS)
    assert [(one.first, one.last, len(one.docked)) for one in rounds] == [(fit, fit, 10) for fit in (1, 2, 3, 4)]
    two = agreement_by_round(ROWS, most=2)
    assert [(one.first, one.last) for one in two] == [(1, 2), (3, 4)]
    assert agreement_by_round(ROWS[:20]) == []
    one_fit_each = [replace(row, model=number) for number, row in enumerate(ROWS[:60])]
    assert [len(one.docked) for one in agreement_by_round(one_fit_each)] == [7, 7, 6, 7, 7, 6]


def test_novelty_is_the_distance_to_the_nearest_that_was_known() -> None:
    same, other = "CCOC(=O)c1ccccc1", "C1CCNCC1"
    assert novelty([same, other], []) == [None, None]
    assert novelty([same], [same]) == [None]  # itself is no reference
    near, far = novelty([same, other], ["COC(=O)c1ccccc1", same])
    assert near is not None
    assert far is not None
    assert 0 < near < 0.5 < far <= 1


def test_the_ranking_holds_every_molecule(tmp_path: Path) -> None:
    write_ranked(tmp_path / "ranked.csv", ROWS)
    with (tmp_path / "ranked.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == len(ROWS)
    scores = [float(one["score"]) for one in lines if one["score"]]
    assert scores == sorted(scores)
    assert [one["rank"] for one in lines[:2]] == ["1", "2"]
    assert [(one["rank"], one["status"]) for one in lines[-2:]] == [("", "timeout"), ("", "parse")]


def test_poses_are_whole_molecules(tmp_path: Path) -> None:
    rows = [replace(row, pose=prepare_ligand(row.smiles, 80)[0]) for row in ROWS[:4]]
    assert write_poses(tmp_path / "poses.sdf", rows, 3) == 3
    with Chem.SDMolSupplier(str(tmp_path / "poses.sdf")) as supplier:
        molecules = list(supplier)
    assert [molecule.GetProp("_Name") for molecule in molecules] == [row.name for row in ranked(rows)[:3]]
    for molecule, row in zip(molecules, ranked(rows), strict=False):
        assert Chem.MolToSmiles(Chem.RemoveHs(molecule)) == row.smiles
        assert float(molecule.GetProp("score_kcal_per_mol")) == row.score


def test_events_are_json_lines(tmp_path: Path) -> None:
    event = Event(
        id="1", source="s", type=TaskSubmitted.event_type(), subject="x", time="2026-01-01T00:00:00Z",
        partitionkey="k", sequence=1, data=encode_payload(TaskSubmitted(task=1, function="score_molecule")),
    )  # fmt: skip
    write_events(tmp_path / "events.jsonl", [event, event])
    lines = (tmp_path / "events.jsonl").read_bytes().splitlines()
    assert [decode(raw) for raw in lines] == [event, event]
    assert json.loads(lines[0])["specversion"] == "1.0"


class Page(html.parser.HTMLParser):
    """What a browser would load, and the ids of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.loaded: list[str] = []
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("src", "href", "xlink:href") and not (value or "").startswith(("#", "data:")):
                self.loaded.append(value or "")


def report(tmp_path: Path, **changes: object) -> str:
    values: dict[str, object] = {
        "title": "A campaign", "headline": ["3 tasks were submitted, 0 lost."], "rows": ROWS, "candidates": 62,
        "started": 100.0, "ended": 170.0, "settings": {"seed": 1, "box": (1, 2, 3)}, "command": "diaspora-parsl demo",
        "faults": [Fault(at=120.0, site="beta", what="killed"), Fault(at=140.0, site="beta", what="restored")],
    }  # fmt: skip
    write_report(tmp_path / "report.html", ReportInput(**{**values, **changes}))  # type: ignore[arg-type]
    return (tmp_path / "report.html").read_text(encoding="utf-8")


def test_the_report_is_one_file_that_shows_everything(tmp_path: Path) -> None:
    text = report(tmp_path)
    page = Page(text)
    assert page.loaded == []
    assert "script" not in page.tags
    assert "b" not in page.tags
    assert len(page.ids) == len(set(page.ids))
    assert page.tags.count("svg") == 12 + 6
    assert len(text) < 2_000_000
    for expected in (
        "0 lost",
        ranked(ROWS)[0].name,
        "killed, 20 s",
        "allowed back, 40 s",
        "Longer than the limit",
        "1, 2, 3",
    ):
        assert expected in text
    assert set(re.findall(r"url\(#([^)]+)\)", text)) <= set(page.ids)


@pytest.mark.parametrize("rows", [[], ROWS[-1:], ROWS[:1], ROWS[:6], ROWS[60:61]])
def test_the_report_of_almost_nothing(tmp_path: Path, rows: list[Row]) -> None:
    assert "</html>" in report(tmp_path, rows=rows, faults=[], interrupted=True)


def test_the_report_tells_of_sessions_and_fits(tmp_path: Path) -> None:
    killed = Session(number=1, started=100.0, ended=130.0, ending="killed", host="login1", workers=4, longest_wait=0.25)
    text = report(
        tmp_path,
        sessions=[killed, Session(number=2, started=150.0, host="login2")],
        fits=[Fit(number=1, session=1, trained_on=20, began=120.0, ended=121.0)],
        pauses=[(130.0, 150.0)],
    )
    for expected in ("killed", "login1", "0.2", "runs", "login2", "fitted once, to 20 scores", "nobody conducted"):
        assert expected in text


def test_progress_in_a_file_is_a_few_lines() -> None:
    tally = Tally(budget=len(ROWS))
    file = io.StringIO()
    display = Display(Console(file=file, width=40))
    with display.shown():
        for row in ROWS:
            tally.count(row)
            display(tally.progress(in_flight=2, now=row.ended or 170.0))
        display.note("Site beta was killed.")
    lines = file.getvalue().splitlines()
    assert 5 < len(lines) < 20
    assert "molecules 62/62" in lines[-2]
    assert "timeout 1, parse 1" in lines[-2]
    assert lines[-1] == "Site beta was killed."


def test_progress_in_a_terminal() -> None:
    tally = Tally(budget=10)
    for row in ROWS[:8]:
        tally.count(row)
    progress = tally.progress(in_flight=2, now=110.0)
    assert (progress.fraction, progress.best) == (0.8, min(row.score or 0 for row in ROWS[:8]))
    assert progress.eta == pytest.approx(2 / progress.rate)
    assert "alpha 3" in line(progress)
    file = io.StringIO()
    with Display(Console(file=file, force_terminal=True)).shown() as display:
        display(progress)
        display.note("Site beta was killed.")
        display(progress)
    assert "Site beta was killed." in file.getvalue()
