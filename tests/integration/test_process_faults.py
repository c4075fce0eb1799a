"""A signal to a process of one of two HTEX endpoints: no task is lost, and the endpoint comes back."""

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


def _interchange(site: LocalSite) -> psutil.Process:
    process = site.interchange()
    assert isinstance(process, psutil.Process)
    return process


def _manager(site: LocalSite) -> psutil.Process:
    process = site.manager()
    assert isinstance(process, psutil.Process)
    return process


def _kill_block(site: LocalSite) -> None:
    group = os.getpgid(_manager(site).pid)
    assert group != os.getpgrp()
    os.killpg(group, signal.SIGKILL)


@pytest.mark.serial
@pytest.mark.parametrize(
    ("fault", "within"),
    [
        pytest.param(lambda site: _interchange(site).kill(), 5.0, id="interchange_killed"),
        pytest.param(lambda site: _manager(site).kill(), 5.0, id="manager_killed"),
        pytest.param(_kill_block, 5.0, id="block_killed"),
        # Nothing ends, so silence is the only evidence; a manager's is noticed by the interchange first.
        pytest.param(lambda site: _interchange(site).suspend(), 8.0, id="interchange_stopped"),
        pytest.param(lambda site: _manager(site).suspend(), 8.0, id="manager_stopped"),
    ],
)
def test_a_fault_of_a_process_costs_no_task(
    pool_of: PoolOf,
    two_sites: tuple[LocalSite, LocalSite],
    the_fault: Callable[..., None],
    fault: Callable[[LocalSite], object],
    within: float,
) -> None:
    alpha, _ = two_sites
    # On a busy machine hedges can settle every task of the endpoint before its loss is noticed.
    with pool_of(*two_sites, hedging=False) as run:
        the_fault(run, alpha, lambda: fault(alpha), within=within)
