"""The managers of a block are gone and its job goes on, as if all were well: the block is ended, and another comes."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

import psutil
import pytest
from parsl.executors import HighThroughputExecutor
from parsl.executors.high_throughput.executor import DEFAULT_LAUNCH_CMD
from parsl.launchers import SimpleLauncher
from parsl.providers import LocalProvider

from diaspora_parsl import events as ev
from diaspora_parsl.testing.local_sites import LocalSite

if TYPE_CHECKING:
    from tests.integration.conftest import PoolOf


@pytest.mark.serial
def test_a_deserted_block_is_replaced(pool_of: PoolOf) -> None:
    alpha = HighThroughputExecutor(
        label="alpha",
        address="127.0.0.1",
        max_workers_per_node=1,
        encrypted=False,
        launch_cmd=DEFAULT_LAUNCH_CMD + "; sleep 600",
        provider=LocalProvider(
            init_blocks=1,
            min_blocks=1,
            max_blocks=1,
            launcher=SimpleLauncher(),
            worker_init="export DIASPORA_PARSL_SITE=alpha",
        ),
    )
    with LocalSite("beta", workers=2) as beta, pool_of(alpha, beta) as run:
        run.warm_up("alpha")
        (manager,) = [p for p in run.processes() if _is_manager_of(p, "alpha")]
        for process in [manager, *manager.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):  # it ended with the others
                process.kill()
        driver = run.pool._driver
        assert driver is not None
        # What is sent there before the loss is seen would be reason enough to give the whole endpoint up.
        run.until(lambda: driver._core.state("alpha")[0] == "waiting", what="the loss was not seen")
        killed = time.time()
        run.with_load(
            lambda: any(e.site == "alpha" and e.start > killed for e in run.executions()), "no other block came"
        )
        assert not run.events(ev.EndpointReviving, endpoint="alpha")


def _is_manager_of(process: psutil.Process, endpoint: str) -> bool:
    try:
        words = process.cmdline()
    except psutil.Error:  # it ended meanwhile
        return False
    return any(word.endswith("process_worker_pool.py") for word in words[1:2]) and endpoint in " ".join(words)
