"""The pool's verdict as the cost of a retry: ``Config(retry_handler=diaspora_parsl.retry_handler)``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from .runtime.futures import TaskFuture, settling

#: A task that failed so often is charged even for what the infrastructure lost: free retries must end too.
_MOST_FREE: Final = 20


def retry_handler(_exception: BaseException, task_record: Mapping[str, Any]) -> float:
    """Tell the DataFlowKernel what a failed try of a task costs of the user's ``retries``.

    All of them, if trying again is hopeless: the error is the task's own, or the pool has given the task up. None, if
    the infrastructure lost it. Otherwise one, as without a handler; so for tasks of executors that are no pool.

    Args:
        _exception: what the task failed with. The verdict is not read from it, but from the pool's future.
        task_record: Parsl's record of the task.
    """
    # Parsl calls this inside a callback of the future, and may not have put a new future into its record yet.
    future = settling() or task_record.get("exec_fu")
    verdict = future.verdict if isinstance(future, TaskFuture) else None
    if verdict is None:
        return 1.0
    if verdict.cost < 1.0 and task_record.get("fail_count", 0) > _MOST_FREE:
        return 1.0
    return verdict.cost
