"""Two HTEX endpoints as one pool: the counterpart of Parsl's own tests/configs/htex_local.py."""

from parsl.config import Config
from parsl.executors import HighThroughputExecutor
from parsl.launchers import SimpleLauncher
from parsl.providers import LocalProvider

from diaspora_parsl import ResilientPoolExecutor


def _htex(label: str) -> HighThroughputExecutor:
    return HighThroughputExecutor(
        label=label,
        address="127.0.0.1",
        worker_debug=True,
        cores_per_worker=1,
        encrypted=True,
        max_workers_per_node=1,
        provider=LocalProvider(init_blocks=1, max_blocks=1, launcher=SimpleLauncher()),
    )


def fresh_config() -> Config:
    """What Parsl's test harness loads."""
    return Config(executors=[ResilientPoolExecutor(label="pool", endpoints=[_htex("alpha"), _htex("beta")])])
