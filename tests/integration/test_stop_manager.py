"""SIGSTOP of the manager of one of two HTEX endpoints: silence is enough, no process needs to end."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import psutil
import pytest

from diaspora_parsl.testing.local_sites import LocalSite

if TYPE_CHECKING:
    from tests.integration.conftest import PoolOf


@pytest.mark.serial
def test_a_stopped_manager_costs_no_task(
    pool_of: PoolOf, two_sites: tuple[LocalSite, LocalSite], the_fault: Callable[..., None]
) -> None:
    alpha, _ = two_sites

    def stop() -> None:
        manager = alpha.manager()
        assert isinstance(manager, psutil.Process)
        manager.suspend()

    with pool_of(*two_sites) as run:
        # Four seconds of silence at the interchange, checked about once a second, stand before everything else.
        the_fault(run, alpha, stop, within=8.0)
