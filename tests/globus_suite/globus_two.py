"""Two endpoints of a local Globus Compute, each behind the executor that Parsl has for it."""

import atexit

from globus_compute_sdk import Executor
from parsl.config import Config
from parsl.executors import GlobusComputeExecutor

from diaspora_parsl.testing.globus import LocalGlobusCompute


def _executor(service: LocalGlobusCompute, label: str) -> GlobusComputeExecutor:
    endpoint = service.endpoint(label, workers=2)
    # As upstream's tests do: else most of the time goes into what the SDK spares the real service.
    executor = Executor(endpoint_id=endpoint.id, client=service.client(), api_burst_limit=8, api_burst_window_s=1)
    executor.task_group_id = None  # or the end of one cancels what the other waits for
    return GlobusComputeExecutor(executor=executor, label=label)


def fresh_config() -> Config:
    """What Parsl's test harness loads."""
    service = LocalGlobusCompute()
    service.start()
    atexit.register(service.stop)  # after the threads that the SDK keeps to the end of the interpreter
    return Config(executors=[_executor(service, label) for label in ("alpha", "beta")])
