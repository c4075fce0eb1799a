"""The service itself: tasks on their way to endpoints, and results on their way back."""

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

#: Before the id of a group of tasks: the queue that its results go to.
QUEUE_PREFIX: Final = "results."


class Submission(Struct):
    """The body of a request that submits tasks."""

    tasks: dict[str, list[str]]
    """For each function the payloads of its tasks."""
    task_group_id: str | None = None
    create_queue: bool = False
    result_serializers: list[str] = []


class Outcome(Struct):
    """What an endpoint says of a task."""

    data: str
    details: dict[str, Any] | None = None
    error_details: dict[str, Any] | None = None


class _Envelope(Struct):
    data: Outcome


def read(packed: bytes) -> Outcome:
    """The content of a packed result."""
    return msgspec.json.decode(memoryview(packed)[1:], type=_Envelope).data


class Throttle:
    """At most so many requests in so many seconds.

    Args:
        limit: number of requests.
        window: seconds.
    """

    def __init__(self, limit: int, window: float) -> None:
        self._limit = limit
        self._window = window
        self._times: deque[float] = deque()

    def wait(self, now: float) -> int:
        """Whole seconds until the next request is allowed; 0: this one is, and counts."""
        while self._times and self._times[0] <= now - self._window:
            self._times.popleft()
        if len(self._times) < self._limit:
            self._times.append(now)
            return 0
        return max(1, math.ceil(self._times[0] + self._window - now))


class Core:
    """What the routes of the service work on, in the thread of the loop.

    Args:
        broker: that results are delivered through.
        throttle: of all requests; None: there is no limit.
    """

    def __init__(self, broker: Broker, throttle: Throttle | None) -> None:
        self.broker = broker
        self.throttle = throttle
        self.ledger = Ledger()
        self.endpoints: dict[str, Endpoint] = {}
        self.troubles = AwaitedFaults()
        #: Requests by method and route.
        self.seen: Counter[str] = Counter()

    def endpoint(self, name: str) -> Endpoint:
        """The endpoint of that id.

        Raises:
            UnknownError: there is no such endpoint.
        """
        try:
            return self.endpoints[name]
        except KeyError:
            raise UnknownError("endpoint", name) from None

    def submit(self, endpoint: Endpoint, submission: Submission) -> dict[str, Any]:
        """Take tasks for an endpoint, all or none.

        Returns:
            ``task_group_id``, and ``tasks``: for each function the ids of its tasks, in the order of the payloads.

        Raises:
            UnknownError: there is no such function or group.
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
        """An endpoint says what came of a task."""
        fate = self.endpoints[task.endpoint].fate()
        if fate.kept:
            self.ledger.settle(task, packed, failed=read(packed).error_details is not None, now=time.time())
        for _ in range(fate.copies):
            self.broker.publish(QUEUE_PREFIX + task.group, packed)

    def expire(self, older_than: float) -> None:
        """Forget the results that are older than so many seconds."""
        self.broker.expire(older_than)
        self.ledger.expire(time.time() - older_than)

    # --- what may happen to the whole of it -----------------------------------------------------------------------

    async def begin(self, fault: f.Fault) -> None:
        """From now on this is wrong with the service."""
        self.troubles.begin(fault)
        match fault:
            case f.LoseConnection():
                self.broker.drop_connections()
            case f.LoseBroker():
                self.broker.set_down(True)
            case f.ForgetResults():
                self.expire(0.0)

    async def end(self, fault: f.Fault) -> None:
        """This is wrong no longer."""
        if self.troubles.end(fault) and isinstance(fault, f.LoseBroker):
            self.broker.set_down(False)
