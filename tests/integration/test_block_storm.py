"""A scheduler in trouble is not asked again and again, whatever ways to fail it has; once it is well, blocks come."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from parsl.executors import HighThroughputExecutor
from parsl.providers import LocalProvider

from diaspora_parsl import events as ev

if TYPE_CHECKING:
    from tests.integration.conftest import PoolOf

#: Seconds that the trouble lasts, and requests that the pauses of 2, 4, 8 ... seconds leave room for meanwhile.
TROUBLE = 13.0
HANDFUL = 4
#: Seconds from its end until the endpoint works: the pause at hand, and the polls of Parsl.
RECOVERY = 60.0


class Scheduler(LocalProvider):
    """Gives no blocks until it is well."""

    def __init__(self, way: str, **options: Any) -> None:
        super().__init__(**options)  # type: ignore[no-untyped-call]
        self.way = way
        self.well_from = float("inf")
        self.asked: list[float] = []

    def submit(self, command: str, tasks_per_node: int, job_name: str = "test") -> Any:
        """Count, and refuse or start something that ends at once."""
        now = time.monotonic()
        if not self.asked:
            self.well_from = now + TROUBLE
        self.asked.append(now)
        if now < self.well_from:
            if self.way == "raises":
                raise RuntimeError("sbatch: error: slurm_persist_conn_open_without_init")
            if self.way == "returns nothing":
                return None
            command = "exit 1"
        return super().submit(command, tasks_per_node, job_name)  # type: ignore[no-untyped-call]


@pytest.mark.serial
@pytest.mark.parametrize("handler", [True, False])
@pytest.mark.parametrize("way", ["raises", "returns nothing", "starts what dies"])
def test_a_scheduler_in_trouble_is_asked_a_handful_of_times(pool_of: PoolOf, way: str, handler: bool) -> None:  # noqa: FBT001 - a parameter
    provider = Scheduler(way, init_blocks=2, max_blocks=4, nodes_per_block=1)
    alpha = HighThroughputExecutor(
        label="alpha", provider=provider, max_workers_per_node=1, block_error_handler=handler, address="127.0.0.1"
    )
    with pool_of(alpha, strategy_period=0.5) as run:
        futures = run.tasks(8, 0.1)
        assert [future.result(TROUBLE + RECOVERY) for future in futures] == list(range(1, 9))
        in_trouble = [at for at in provider.asked if at < provider.well_from]
        # What dies at once is known only at the next status poll: the two first blocks were requested together.
        assert 2 <= len(in_trouble) <= HANDFUL + 2 * (way == "starts what dies")
        assert len(provider.asked) > len(in_trouble)
        published = run.events(ev.EndpointRefused)
        assert [event.pause for event in published[:2]] == [2.0, 4.0]
        expected = {"raises": "slurm_persist_conn", "returns nothing": "did not return a job ID"}
        assert expected.get(way, "had brought no worker") in published[0].reason
