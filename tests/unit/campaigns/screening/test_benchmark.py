from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from diaspora_parsl.campaigns.screening import benchmark
from diaspora_parsl.campaigns.screening.benchmark import Best, Truth, simulate
from diaspora_parsl.campaigns.screening.library.combinatorial import combinatorial_library
from diaspora_parsl.campaigns.screening.settings import Plan
from diaspora_parsl.cli import screen_benchmark
from diaspora_parsl.errors import ConfigurationError


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A library of 200, and scores of all but a tenth of it."""
    folder = tmp_path_factory.mktemp("oracle")
    entries = list(combinatorial_library(200))
    (folder / "library.smi").write_text("".join(f"{entry.smiles} {entry.name}\n" for entry in entries))
    with (folder / "scores.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["smiles", "score"])
        writer.writerows(
            (entry.smiles, round(-4 - 0.15 * len(entry.smiles), 1)) for entry in entries if entry.molecule % 10
        )
    return folder / "library.smi", folder / "scores.csv"


def truth_of(count: int = 80) -> Truth:
    chance = np.random.default_rng(0)
    scores = chance.normal(size=count).round(1)
    scores[::9] = np.nan
    return Truth(np.packbits(chance.random((count, 256)) < 0.1, axis=1), scores)


@given(st.lists(st.integers(-4, 0), min_size=8, max_size=30), st.integers(1, 8))
def test_what_is_found_is_counted_by_the_rule_for_ties(scores: list[int], top: int) -> None:
    best = Best(np.array(scores, float), top)
    screened = np.random.default_rng(len(scores)).permutation(len(scores))[: len(scores) // 2]
    found = best.found(screened)
    wanted = sorted(scores)[:top]
    for place in screened:
        if scores[place] in wanted:
            wanted.remove(scores[place])
    assert found.scores == top - len(wanted)
    firsts = sorted(range(len(scores)), key=lambda place: (scores[place], place))[:top]
    assert found.exact == len(set(firsts) & set(screened.tolist())) <= found.scores
    assert best.found(np.arange(len(scores))) == (top, top)


def test_more_best_than_scores_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="smaller --top"):
        Best(np.array([1.0, np.nan]), 2)


@pytest.mark.parametrize("plan", [Plan(budget=30), Plan(budget=30, rounds=3), Plan(budget=30, acquisition="random")])
def test_a_virtual_campaign_spends_its_budget_on_different_molecules(plan: Plan) -> None:
    truth = truth_of()
    ticks: list[None] = []
    settled = simulate(truth, plan, lambda: ticks.append(None))
    assert len(settled) == len(set(settled.tolist())) == len(ticks) == 30
    assert settled.tolist() == simulate(truth, plan).tolist()


def test_scores_are_found_by_molecule(files: tuple[Path, Path]) -> None:
    truth = benchmark.load_truth(*files)
    assert len(truth.scores) == 200
    assert np.flatnonzero(np.isnan(truth.scores)).tolist() == list(range(0, 200, 10))
    upside_down = benchmark.load_truth(*files, maximize=True)
    np.testing.assert_array_equal(upside_down.scores, -truth.scores)


def test_the_command_writes_figures_table_and_picture(files: tuple[Path, Path], tmp_path: Path) -> None:
    app = typer.Typer()
    app.callback()(lambda: None)
    screen_benchmark.register(app)
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- screen benchmark: begin -->\nold\n<!-- screen benchmark: end -->\nafter\n")
    words = ["benchmark", "--library", str(files[0]), "--scores", str(files[1]), "--top", "20", "--fraction", "0.2"]
    outputs = {name: tmp_path / name for name in ("out.json", "curve.png")}
    words += ["--seeds", "2", "--json", str(outputs["out.json"]), "--plot", str(outputs["curve.png"])]
    answer = CliRunner().invoke(app, [*words, "--table", str(page)])
    assert answer.exit_code == 0, answer.output
    figures = json.loads(outputs["out.json"].read_text())
    assert set(figures) == {"settings", "product", "random", "random_forest"}
    for name in ("product", "random", "random_forest"):
        assert set(figures[name]) == {"scores_percent", "exact_percent", "curve"}
        assert len(figures[name]["scores_percent"]) == len(figures[name]["exact_percent"]) == 2
        assert figures[name]["curve"][-1]["scores_percent"] == figures[name]["scores_percent"]
        assert figures[name]["curve"][-1]["molecules"] == figures["settings"]["plan"]["budget"] == 40
    assert np.mean(figures["product"]["scores_percent"]) > np.mean(figures["random"]["scores_percent"])
    assert outputs["curve.png"].read_bytes()[:4] == b"\x89PNG"
    text = page.read_text()
    assert text.startswith("before\n<!-- screen benchmark: begin -->\n")
    assert text.endswith("<!-- screen benchmark: end -->\nafter\n")
    assert "| diaspora-parsl |" in text
    assert "old" not in text


def test_outputs_are_checked_before_the_work(files: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"ends in \.svg"):
        screen_benchmark.benchmark(library=files[0], scores=files[1], plot=tmp_path / "page.md")
    with pytest.raises(ConfigurationError, match="no place for the table"):
        screen_benchmark.benchmark(library=files[0], scores=files[1], table=tmp_path / "page.md")
