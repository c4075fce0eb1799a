"""Another Parsl or another Python at an endpoint is the place's fault: it is said, and tasks complete elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from parsl.executors import HighThroughputExecutor
from parsl.launchers import SimpleLauncher
from parsl.providers import LocalProvider

from diaspora_parsl import Endpoint
from diaspora_parsl import events as ev
from diaspora_parsl.testing.local_sites import LocalSite

if TYPE_CHECKING:
    from tests.integration.conftest import PoolOf

#: What a site finds before the real packages: the same Parsl, which says that it is another; or another Python.
PRETENCES = {
    "parsl": "import parsl.version\nparsl.version.VERSION = '1999.1.1'\n",
    "python": "import sys\n"
    "class Pretended(tuple):\n"
    "    major, minor, micro, releaselevel, serial = 3, 99, 0, 'final', 0\n"
    "sys.version_info = Pretended(sys.version_info)\n",
}


@pytest.mark.parametrize("what", ["parsl", "python"])
def test_another_version_is_the_fault_of_the_place(pool_of: PoolOf, tmp_path: Path, what: str) -> None:
    pretence = tmp_path / "pretence"
    pretence.mkdir()
    (pretence / "sitecustomize.py").write_text(PRETENCES[what], encoding="utf-8")
    alpha = HighThroughputExecutor(
        label="alpha",
        address="127.0.0.1",
        max_workers_per_node=1,
        cores_per_worker=1e-6,
        encrypted=False,
        provider=LocalProvider(
            init_blocks=1,
            max_blocks=1,
            launcher=SimpleLauncher(),
            worker_init=f"export DIASPORA_PARSL_SITE=alpha PYTHONPATH={pretence}",
        ),
    )
    with LocalSite("beta", workers=2) as beta, pool_of(Endpoint(alpha), beta) as run:
        run.results(run.tasks(10, 0.1))
        down = run.wait_for(ev.EndpointDown, endpoint="alpha")
        assert "VersionMismatch" in down.reason
        assert {"parsl": "parsl.v=1999.1.1", "python": "py.v=3.99"}[what] in down.reason
        assert {e.site for e in run.executions()} == {"beta"}
        run.assert_each_ran_once()
