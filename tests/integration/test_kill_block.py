"""kill -9 of a whole block (its process group) of one of two HTEX endpoints: no task is lost, the block comes back."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING

import psutil
import pytest

from diaspora_parsl.testing.local_sites import LocalSite

if TYPE_CHECKING:
    from tests.integration.conftest import PoolOf


@pytest.mark.serial
def test_a_killed_block_costs_no_task(
    pool_of: PoolOf, two_sites: tuple[LocalSite, LocalSite], the_fault: Callable[..., None]
) -> None:
    alpha, _ = two_sites

    def kill() -> None:
        manager = alpha.manager()
        assert isinstance(manager, psutil.Process)
        group = os.getpgid(manager.pid)
        assert group != os.getpgrp()
        os.killpg(group, signal.SIGKILL)

    with pool_of(*two_sites) as run:
        the_fault(run, alpha, kill)
