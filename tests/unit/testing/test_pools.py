from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import parsl
import pytest

from diaspora_parsl.errors import ConfigurationError
from diaspora_parsl.testing.faults import Freeze, Kill
from diaspora_parsl.testing.globus import LocalGlobusCompute
from diaspora_parsl.testing.pools import resilient_pool


def test_a_local_site_and_an_emulated_endpoint_in_one_pool(tmp_path: Path) -> None:
    stories: list[str] = []
    faults = [Kill(at=0.5, endpoint="gamma", until=2.0)]
    with LocalGlobusCompute() as service:
        gamma = service.endpoint("gamma", workers=2)
        with resilient_pool(
            "alpha", gamma, folder=tmp_path, faults=faults, pool={"label": "mine"}, retries=3, tell=stories.append
        ) as run:
            assert (run.pool.label, run.dfk.config.retries, list(run.sites)) == ("mine", 3, ["alpha"])
            work = parsl.python_app(subprocess.check_call)  # on what is loaded
            for future in [work(["sleep", "0.2"]) for _ in range(24)]:
                future.result(60)
            run.wait_for_faults()
            run.sites["alpha"].freeze(interchange=True)  # and nobody thaws it
    story = run.story()
    assert sum(story.finished.values()) == story.submitted == 24
    assert set(story.finished) <= {"alpha", "gamma"}
    assert not story.lost
    assert [(one.fault, one.ended) for one in story.faults] == [(faults[0], False), (faults[0], True)]
    assert stories == [str(story)]
    assert "24 tasks: 24 finished" in stories[0]
    with pytest.raises(parsl.errors.NoDataFlowKernelError):
        parsl.dfk()


def test_faults_that_never_came_are_no_success(tmp_path: Path) -> None:
    with (
        pytest.warns(UserWarning, match="0 of 1 faults happened"),
        resilient_pool("alpha", folder=tmp_path, faults=[Freeze(at=100.0, endpoint="alpha", until=101.0)], workers=1),
    ):
        pass


@pytest.mark.parametrize(
    ("parts", "options", "sentence"),
    [
        (("alpha", "alpha"), {}, "two places are called 'alpha'"),
        ((object(),), {}, "cannot be part of a pool"),
        (("alpha",), {"pool": {"fabric": "memory://x"}}, 'leave it "embedded"'),
    ],
)
def test_what_makes_no_pool_is_refused_with_a_sentence(
    tmp_path: Path, parts: tuple[Any, ...], options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ConfigurationError, match=sentence), resilient_pool(*parts, folder=tmp_path, **options):
        pass
