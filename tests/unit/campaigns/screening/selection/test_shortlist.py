from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from diaspora_parsl.campaigns.screening.selection import shortlist as ranking
from diaspora_parsl.campaigns.screening.selection.shortlist import lowest, shortlist

CHANCE = np.random.default_rng(0)
BITS = np.packbits(CHANCE.random((6000, 64)) < 0.2, axis=1)
WEIGHTS = CHANCE.normal(size=64)


def merit(bits: NDArray[np.uint8]) -> NDArray[np.float32]:
    return np.asarray(np.tanh(np.unpackbits(bits, axis=1) @ WEIGHTS / 4), np.float32)


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=50), st.integers(1, 60))
def test_the_lowest_are_those_of_a_stable_sort(values: list[int], count: int) -> None:
    numbers = np.array(values, np.float32)
    assert lowest(numbers, count).tolist() == np.argsort(numbers, kind="stable")[:count].tolist()


def test_few_molecules_are_all_on_the_shortlist() -> None:
    assert shortlist(merit, BITS, 10, 0).tolist() == list(range(6000))


def test_what_the_model_likes_best_passes_the_sieve(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranking, "EXACT", 600)
    passed = shortlist(merit, BITS, 10, 0)
    assert len(passed) == 600
    assert np.isin(lowest(merit(BITS), 100), passed).mean() > 0.95
    assert passed.tolist() == shortlist(merit, BITS, 10, 0).tolist()
    assert len(shortlist(merit, BITS, 900, 0)) == 900


def test_sums_of_weights_are_those_of_all_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranking, "_CHUNK", 1000)
    sums = ranking._linear(BITS, WEIGHTS.astype(np.float32))
    np.testing.assert_allclose(sums, np.unpackbits(BITS, axis=1) @ WEIGHTS, atol=1e-4)
