"""SIGSTOP of the interchange of one of two HTEX endpoints: nothing ever fails there, and yet every task completes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import psutil
import pytest

from diaspora_parsl.testing.local_sites import LocalSite

if TYPE_CHECKING:
    from tests.integration.conftest import PoolOf


@pytest.mark.serial
def test_a_stopped_interchange_costs_no_task(
    pool_of: PoolOf, two_sites: tuple[LocalSite, LocalSite], the_fault: Callable[..., None]
) -> None:
    alpha, _ = two_sites

    def stop() -> None:
        interchange = alpha.interchange()
        assert isinstance(interchange, psutil.Process)
        interchange.suspend()

    with pool_of(*two_sites) as run:
        the_fault(run, alpha, stop, within=8.0)
