from __future__ import annotations

import pickle

import pytest

from diaspora_parsl.campaigns.screening.settings import Box, Docking, Plan, Target
from diaspora_parsl.campaigns.screening.target.receptor import DHFR_BOX, shipped_target
from diaspora_parsl.errors import ConfigurationError


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Box(center=(0, 0, 0), size=(0, 20, 20)), "Write edges between"),
        (lambda: Box(center=(0, 0, 0), size=(20, 20, 200)), "Write edges between"),
        (lambda: Docking(exhaustiveness=0), "Write 1 or more"),
        (lambda: Docking(max_evals=-1), "Write 0"),
        (lambda: Docking(timeout=0), "Write 1 or more"),
        (lambda: Plan(budget=0), "Write the number"),
        (lambda: Plan(budget=5, in_flight=0), "Write 1 or more"),
        (lambda: Plan(budget=5, initial=-1), "Write 0"),
        (lambda: Plan(budget=5, acquisition="best"), '"thompson" or "random"'),  # type: ignore[arg-type]
        (lambda: Plan(budget=5, surrogate="gpt"), '"lightgbm" or "forest"'),  # type: ignore[arg-type]
        (lambda: Plan(budget=5, scaffold_cap=-1), "Write 0"),
        (lambda: Plan(budget=5, gp_limit=0), "Write 1 or more"),
        (lambda: Plan(budget=5, second="qed"), 'Write "max:qed"'),
        (lambda: Plan(budget=5, second="mw<500"), 'Write "max:qed"'),
    ],
)
def test_what_cannot_work_says_what_to_write(make: object, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        make()  # type: ignore[operator]


def test_defaults_follow_the_budget() -> None:
    assert (Plan(budget=200).first_batch, Plan(budget=200).refit_after) == (20, 4)
    assert Plan(budget=6).first_batch == 6
    assert Plan(budget=1000, initial=3, refit_every=7).first_batch == 3
    assert Plan(budget=1000, initial=3, refit_every=7).refit_after == 7


def test_a_second_objective_is_read() -> None:
    assert Plan(budget=1).second_objective is None
    assert Plan(budget=1, second="max:qed").second_objective == ("qed", -1, None)
    assert Plan(budget=1, second="min:rotatable_bonds").second_objective == ("rotatable_bonds", 1, None)
    assert Plan(budget=1, second="mw<=500").second_objective == ("mw", 1, 500.0)
    assert Plan(budget=1, second="logp>=-0.5").second_objective == ("logp", -1, -0.5)


def test_a_target_survives_the_way_to_a_worker() -> None:
    target = shipped_target()
    copy = pickle.loads(pickle.dumps(target))  # noqa: S301 - our own bytes
    assert copy == target
    assert copy.digest == target.digest
    assert copy.pdbqt == target.pdbqt
    assert len(target.receptor) < 60_000


def test_receptor_or_box_change_the_digest() -> None:
    target = Target.of("ATOM", DHFR_BOX, name="a")
    assert target.digest == Target.of("ATOM", DHFR_BOX, name="b").digest
    assert target.digest != Target.of("ATOM ", DHFR_BOX, name="a").digest
    assert target.digest != Target.of("ATOM", Box(center=(0, 0, 0), size=(20, 20, 20)), name="a").digest
