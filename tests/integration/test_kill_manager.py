"""kill -9 of the manager of one of two HTEX endpoints: every task completes, and the endpoint comes back."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import psutil
import pytest

from diaspora_parsl.testing.local_sites import LocalSite

if TYPE_CHECKING:
    from tests.integration.conftest import PoolOf


@pytest.mark.serial
def test_a_killed_manager_costs_no_task(
    pool_of: PoolOf, two_sites: tuple[LocalSite, LocalSite], the_fault: Callable[..., None]
) -> None:
    alpha, _ = two_sites

    def kill() -> None:
        manager = alpha.manager()
        assert isinstance(manager, psutil.Process)
        manager.kill()

    with pool_of(*two_sites) as run:
        the_fault(run, alpha, kill)
