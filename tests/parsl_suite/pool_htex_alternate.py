"""As pool_htex.py, with many options different: the counterpart of Parsl's tests/configs/htex_local_alternate.py."""

from pathlib import Path

from parsl.config import Config
from parsl.data_provider.file_noop import NoOpFileStaging
from parsl.data_provider.ftp import FTPInTaskStaging
from parsl.data_provider.http import HTTPInTaskStaging
from parsl.data_provider.staging import Staging
from parsl.data_provider.zip import ZipFileStaging
from parsl.dataflow.memoization import BasicMemoizer
from parsl.executors import HighThroughputExecutor
from parsl.launchers import SingleNodeLauncher
from parsl.logconfigs.json import JSONLogging
from parsl.monitoring import MonitoringHub
from parsl.providers import LocalProvider

from diaspora_parsl import Endpoint, ResilientPoolExecutor

working_dir = str(Path.cwd() / "test_htex_alternate")


def _staging() -> list[Staging]:
    return [ZipFileStaging(), FTPInTaskStaging(), HTTPInTaskStaging(), NoOpFileStaging()]


def _htex(label: str) -> HighThroughputExecutor:
    return HighThroughputExecutor(
        label=label,
        address="127.0.0.1",
        working_dir=working_dir,
        storage_access=_staging(),
        worker_debug=True,
        cores_per_worker=1,
        heartbeat_period=2,
        heartbeat_threshold=5,
        poll_period=100,
        encrypted=True,
        max_workers_per_node=1,
        provider=LocalProvider(init_blocks=0, min_blocks=0, max_blocks=3, launcher=SingleNodeLauncher()),
        block_error_handler=False,
    )


def fresh_config() -> Config:
    """What Parsl's test harness loads."""
    return Config(
        executors=[
            ResilientPoolExecutor(label="pool", endpoints=[_htex("alpha"), Endpoint(_htex("beta"), site="elsewhere")])
        ],
        strategy="simple",
        memoizer=BasicMemoizer(memoize=True, checkpoint_mode="task_exit"),
        retries=2,
        monitoring=MonitoringHub(monitoring_debug=False, resource_monitoring_interval=1),
        usage_tracking=3,
        project_name="parsl test configuration of a pool",
        initialize_logging=JSONLogging(level=1),
    )


config = fresh_config()
