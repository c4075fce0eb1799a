from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

from diaspora_parsl.campaigns.screening.library.candidates import find_candidates
from diaspora_parsl.campaigns.screening.library.combinatorial import combinatorial_library
from diaspora_parsl.campaigns.screening.selection.selector import Lesson, Ranking
from diaspora_parsl.campaigns.screening.selection.trainer import Fitter
from diaspora_parsl.campaigns.screening.settings import Plan
from diaspora_parsl.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

LIMIT = 60.0


@pytest.fixture
def candidates(tmp_path: Path) -> Path:
    return find_candidates(combinatorial_library(40), tmp_path, processes=1).folder


def lesson(number: int) -> Lesson:
    return Lesson(np.arange(12), np.linspace(-9.0, -5.0, 12), number)


def fetched(fitter: Fitter) -> Ranking:
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        if (ranking := fitter.fetch()) is not None:
            return ranking
        time.sleep(0.02)
    raise TimeoutError


def test_a_fit_survives_the_death_of_its_process(candidates: Path) -> None:
    with Fitter(candidates, Plan(budget=20)) as fitter:
        assert fitter.fetch() is None
        fitter.begin(lesson(1))
        assert fitter.busy
        ranking = fetched(fitter)
        assert (ranking.number, ranking.trained_on, len(ranking.order)) == (1, 12, 28)
        assert not fitter.busy
        first = fitter.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        fitter.begin(lesson(2))
        assert fetched(fitter).number == 2
        assert fitter.pid != first


def test_what_cannot_be_fitted_ends_with_a_reason(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Fitter(tmp_path / "nowhere", Plan(budget=20)) as fitter:
        fitter.begin(lesson(1))
        with pytest.raises(ConfigurationError, match=r"cannot be fitted: .*no whole store"):
            fetched(fitter)
    assert caplog.text.count("Fit 1 of the surrogate failed") == 3


def test_the_end_does_not_wait_for_a_fit(candidates: Path) -> None:
    fitter = Fitter(candidates, Plan(budget=20))
    fitter.begin(lesson(1))
    fitter.close()
    fitter.close()
