"""The pool's verdict as the cost of a retry: ``Config(retry_handler=diaspora_parsl.retry_handler)``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from .runtime.futures import TaskFuture, settling

#: Failures of a task from which losses of the infrastructure are charged too, so that free retries end.
_MOST_FREE: Final = 20


def retry_handler(_exception: BaseException, task_record: Mapping[str, Any]) -> float:
    """Return the cost of a failed try of a task in the user's ``retries``.

    The cost is all retries if the error is the task's own or the pool has given the task up, 0 if the infrastructure
    lost the task, and otherwise 1, as without a handler. Tasks of other executors cost 1.

    Args:
        _exception: Exception of the task. The attribution is read from the pool's future instead.
        task_record: Record that Parsl keeps of the task.
    """
    # Parsl calls this inside a callback of the future, and may not have put a new future into its record yet.
    future = settling() or task_record.get("exec_fu")
    verdict = future.verdict if isinstance(future, TaskFuture) else None
    if verdict is None:
        return 1.0
    if verdict.cost < 1.0 and task_record.get("fail_count", 0) > _MOST_FREE:
        return 1.0
    return verdict.cost
