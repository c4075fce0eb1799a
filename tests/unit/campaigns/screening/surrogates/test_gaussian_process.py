from __future__ import annotations

import numpy as np

from diaspora_parsl.campaigns.screening.surrogates.gaussian_process import TanimotoGP

BITS = np.packbits(np.random.default_rng(0).random((60, 2048)) < 0.05, axis=1)
SCORES = np.random.default_rng(1).normal(-8, 1, 60)


def test_it_agrees_with_the_textbook() -> None:
    bits = np.array([[1, 1, 0, 0, 0, 0, 0, 0], [1, 0, 1, 0, 0, 0, 0, 0], [0, 0, 1, 1, 0, 0, 0, 0]], dtype=np.uint8)
    scores = np.array([-1.0, -2.0, -4.0])
    model = TanimotoGP(np.packbits(bits, axis=1), scores)
    kernel = np.array([[1, 1 / 3, 0], [1 / 3, 1, 1 / 3], [0, 1 / 3, 1]])
    expected = kernel @ np.linalg.solve(kernel + model.noise * np.eye(3), scores - scores.mean()) + scores.mean()
    np.testing.assert_allclose(model.predict(np.packbits(bits, axis=1)).mean, expected, atol=1e-6)


def test_pending_molecules_leave_the_means_and_are_known_better() -> None:
    known, pending, others = BITS[:30], BITS[30:35], BITS[30:]
    before = TanimotoGP(known, SCORES[:30]).predict(others)
    after = TanimotoGP(known, SCORES[:30], pending).predict(others)
    np.testing.assert_allclose(after.mean, before.mean)
    assert (after.deviation <= before.deviation + 1e-9).all()
    assert (after.deviation[:5] < 0.9 * before.deviation[:5]).all()


def test_the_mean_alone_is_the_same() -> None:
    model = TanimotoGP(BITS[:30], SCORES[:30])
    np.testing.assert_allclose(model.mean(BITS), model.predict(BITS).mean)


def test_many_scores_tell_their_noise_by_a_part_of_them() -> None:
    chance = np.random.default_rng(2)
    bits = np.packbits(chance.random((1100, 256)) < 0.1, axis=1)
    truth = np.unpackbits(bits, axis=1)[:, :20].sum(axis=1) - 8.0
    model = TanimotoGP(bits[:1050], truth[:1050])
    assert np.corrcoef(model.mean(bits[1050:]), truth[1050:])[0, 1] > 0.5
