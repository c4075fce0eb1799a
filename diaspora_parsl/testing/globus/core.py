"""The state of the service: passes tasks to endpoints and results back."""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from typing import Any, Final

import msgspec
from msgspec import Struct

from diaspora_parsl.testing import faults as f
from diaspora_parsl.testing.globus.broker.broker import Broker
from diaspora_parsl.testing.globus.endpoint import AwaitedFaults, Endpoint
from diaspora_parsl.testing.globus.engines.process import Assignment
from diaspora_parsl.testing.globus.ledger import Ledger, Task, UnknownError

#: Prefix of the result queue of a task group, before its id.
QUEUE_PREFIX: Final = "results."


class Submission(Struct):
    """The body of a request that submits tasks."""

    tasks: dict[str, list[str]]
    """Payloads of the tasks by function."""
    task_group_id: str | None = None
    create_queue: bool = False
    result_serializers: list[str] = []


class Outcome(Struct):
    """The outcome of a task as reported by its endpoint."""

    data: str
    details: dict[str, Any] | None = None
    error_details: dict[str, Any] | None = None


class _Envelope(Struct):
    data: Outcome


def read(packed: bytes) -> Outcome:
    """Unpack a result."""
    return msgspec.json.decode(memoryview(packed)[1:], type=_Envelope).data


class Throttle:
    """Limits the rate of requests.

    Args:
        limit: Number of requests allowed per window.
        window: Length of the window in seconds.
    """

    def __init__(self, limit: int, window: float) -> None:
        self._limit = limit
        self._window = window
        self._times: deque[float] = deque()

    def wait(self, now: float) -> int:
        """Return 0 and count the request if it is allowed, else the whole seconds until the next is."""
        while self._times and self._times[0] <= now - self._window:
            self._times.popleft()
        if len(self._times) < self._limit:
            self._times.append(now)
            return 0
        return max(1, math.ceil(self._times[0] + self._window - now))


class Core:
    """The state behind the routes of the service. Use it in the thread of the loop only.

    Args:
        broker: Broker that delivers the results.
        throttle: Rate limit of all requests; None: no limit.
    """

    def __init__(self, broker: Broker, throttle: Throttle | None) -> None:
        self.broker = broker
        self.throttle = throttle
        self.ledger = Ledger()
        self.endpoints: dict[str, Endpoint] = {}
        self.faults = AwaitedFaults()
        #: Requests by method and route.
        self.seen: Counter[str] = Counter()

    def endpoint(self, name: str) -> Endpoint:
        """Return the endpoint with this id.

        Raises:
            UnknownError: No endpoint has this id.
        """
        try:
            return self.endpoints[name]
        except KeyError:
            raise UnknownError("endpoint", name) from None

    def submit(self, endpoint: Endpoint, submission: Submission) -> dict[str, Any]:
        """Accept tasks for an endpoint, all or none.

        Returns:
            ``task_group_id``, and ``tasks``: task ids by function, in the order of the payloads.

        Raises:
            UnknownError: The function or the group does not exist.
        """
        codes = {function: self.ledger.function(function)["function_code"] for function in submission.tasks}
        group = self.ledger.open_group(submission.task_group_id)
        if submission.create_queue:
            self.broker.declare(QUEUE_PREFIX + group)
        now = time.time()
        serializers = tuple(submission.result_serializers)
        tasks: dict[str, list[str]] = {}
        jobs: list[Assignment] = []
        for function, payloads in submission.tasks.items():
            made = [self.ledger.add(function, group, endpoint.name, now) for _ in payloads]
            tasks[function] = [task.id for task in made]
            jobs += [
                Assignment(task, codes[function] + payload, serializers)
                for task, payload in zip(made, payloads, strict=True)
            ]
        endpoint.engine.accept(jobs)
        return {"task_group_id": group, "tasks": tasks}

    def settle(self, task: Task, packed: bytes) -> None:
        """Record and deliver the result of a task."""
        delivery = self.endpoints[task.endpoint].draw_delivery()
        if delivery.kept:
            self.ledger.settle(task, packed, failed=read(packed).error_details is not None, now=time.time())
        for _ in range(delivery.copies):
            self.broker.publish(QUEUE_PREFIX + task.group, packed)

    def expire(self, older_than: float) -> None:
        """Drop the results older than ``older_than`` seconds."""
        self.broker.expire(older_than)
        self.ledger.expire(time.time() - older_than)

    # --- faults of the whole service ------------------------------------------------------------------------------

    async def begin(self, fault: f.Fault) -> None:
        """Begin a fault of the service."""
        self.faults.begin(fault)
        match fault:
            case f.LoseConnection():
                self.broker.drop_connections()
            case f.LoseBroker():
                self.broker.set_down(True)
            case f.ForgetResults():
                self.expire(0.0)

    async def end(self, fault: f.Fault) -> None:
        """End a fault of the service."""
        if self.faults.end(fault) and isinstance(fault, f.LoseBroker):
            self.broker.set_down(False)
