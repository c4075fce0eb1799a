from __future__ import annotations

import numpy as np
import pytest

from diaspora_parsl.campaigns.screening.library.candidates import find_candidates
from diaspora_parsl.campaigns.screening.library.combinatorial import combinatorial_library
from diaspora_parsl.campaigns.screening.settings import Plan, SurrogateName
from diaspora_parsl.campaigns.screening.surrogates.base import Surrogate
from diaspora_parsl.campaigns.screening.surrogates.factory import fit_surrogate, surrogate_name

CANDIDATES = find_candidates(combinatorial_library(300))
BITS = CANDIDATES.fingerprints
SCORES = np.array([-4 - 0.15 * len(entry.smiles) - 0.3 * entry.smiles.count("n") for entry in CANDIDATES.entries])
ALL: tuple[SurrogateName, ...] = ("gp", "lightgbm", "forest")


def fitted(name: SurrogateName, count: int = 150, seed: int = 0) -> Surrogate:
    return fit_surrogate(Plan(budget=1, surrogate=name, seed=seed), BITS[:count], SCORES[:count], BITS[:0])


@pytest.mark.parametrize("name", ALL)
def test_it_learns_what_similar_molecules_score(name: SurrogateName) -> None:
    order = np.random.default_rng(1).permutation(300)
    known, unknown = order[:150], order[150:]
    model = fit_surrogate(Plan(budget=1, surrogate=name), BITS[known], SCORES[known], BITS[:0])
    mean, deviation = model.predict(BITS[unknown])
    assert np.abs(mean - SCORES[unknown]).mean() < 0.6 * np.abs(SCORES[unknown] - SCORES[known].mean()).mean()
    assert (deviation >= 0).all()
    assert deviation.mean() > model.predict(BITS[known]).deviation.mean()
    np.testing.assert_allclose(model.mean(BITS[unknown]), mean)


@pytest.mark.parametrize("name", ALL)
def test_a_molecule_is_expected_the_same_in_any_company(name: SurrogateName) -> None:
    model = fitted(name)
    whole = model.predict(BITS)
    for part in (slice(0, 1), slice(7, 100), slice(200, None)):
        np.testing.assert_allclose(model.predict(BITS[part]).mean, whole.mean[part], rtol=1e-9)
        np.testing.assert_allclose(model.predict(BITS[part]).deviation, whole.deviation[part], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", ALL)
def test_the_same_scores_and_seed_give_the_same_model(name: SurrogateName) -> None:
    np.testing.assert_array_equal(fitted(name, seed=3).mean(BITS), fitted(name, seed=3).mean(BITS))


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("count", [1, 3])
def test_little_to_learn_from_is_no_error(name: SurrogateName, count: int) -> None:
    model = fit_surrogate(Plan(budget=1, surrogate=name), BITS[:count], np.full(count, -5.0), BITS[:0])
    mean, deviation = model.predict(BITS)
    np.testing.assert_allclose(mean, -5.0, atol=1e-3)
    assert np.isfinite(deviation).all()


@pytest.mark.parametrize("name", ALL)
def test_no_scores_are_an_error(name: SurrogateName) -> None:
    with pytest.raises(ValueError, match="cannot be fitted"):
        fit_surrogate(Plan(budget=1, surrogate=name), BITS[:0], np.array([]), BITS[:0])


def test_the_gaussian_process_gives_way_to_trees() -> None:
    plan = Plan(budget=1, gp_limit=100)
    assert (surrogate_name(plan, 100), surrogate_name(plan, 101)) == ("gp", "lightgbm")
    assert surrogate_name(Plan(budget=1, gp_limit=100, surrogate="gp"), 101) == "gp"
