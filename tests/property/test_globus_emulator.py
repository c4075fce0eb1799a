"""The emulated service loses no task in any order of operations, unless a fault requests it."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

pytest.importorskip("globus_compute_sdk", reason="needs the extra globus-test")
pytest.importorskip("aiohttp", reason="needs the extra globus-test")

import pika
from globus_compute_common.messagepack import unpack
from globus_compute_common.messagepack.message_types import Result
from pika.exceptions import AMQPError

from diaspora_parsl.testing.faults import Freeze, Kill, LoseBroker, LoseConnection, LoseWorker
from diaspora_parsl.testing.globus import EmulatedEndpoint, LocalGlobusCompute
from tests.unit.testing.globus.rest import Rest

LABELS = ("alpha", "beta")
#: States of a task in the order in which it takes them.
ORDER = ("waiting-for-ep", "waiting-for-nodes", "running", "success", "failed")
DONE = {"success", "failed"}
LASTS = {"at": 0.0, "until": 1.0}


class Emulator(RuleBasedStateMachine):
    """A client that uses every operation of the service, while endpoints and connections come and go."""

    def __init__(self) -> None:
        super().__init__()
        self.service = LocalGlobusCompute()
        self.service.start()
        self.endpoints = {label: self.service.endpoint(label) for label in LABELS}
        self.rest = Rest(self.service)
        self.wrong: set[Kill | Freeze | LoseBroker] = set()
        self.connection: Any = None
        self.groups: dict[str, list[str]] = {}
        #: What each task returns, where it runs, and how far it was when last looked at.
        self.value: dict[str, int] = {}
        self.place: dict[str, EmulatedEndpoint] = {}
        self.seen: dict[str, str] = {}
        self.lost: set[str] = set()
        self.acknowledged: set[str] = set()

    def teardown(self) -> None:
        try:
            self.all_is_well_in_the_end()
        finally:
            self.disconnect()
            self.service.stop()

    @initialize()
    def begin(self) -> None:
        self.submit("alpha", 1, new_group=True)

    # --- what a client does ---------------------------------------------------------------------------------------

    @rule(label=st.sampled_from(LABELS), count=st.integers(1, 3), new_group=st.booleans())
    def submit(self, label: str, count: int, *, new_group: bool) -> None:
        group = None if new_group or not self.groups else next(iter(self.groups))
        for _ in range(count):
            number = len(self.value)
            task, group = self.rest.submit(self.endpoints[label], abs, number, task_group_id=group)
            self.groups.setdefault(group, []).append(task)
            self.value[task], self.place[task], self.seen[task] = number, self.endpoints[label], ORDER[0]

    @rule()
    def reload(self) -> None:
        """All of the groups, from nothing."""
        for group, tasks in self.groups.items():
            reported = self.rest.get(f"/v2/taskgroup/{group}")["tasks"]
            assert [task["id"] for task in reported] == tasks
            found = self.rest("POST", "/v2/batch_status", {"task_ids": tasks})[1]["results"]
            assert set(found) == set(tasks)
            for task in tasks:
                self.check(task, found[task])

    def check(self, task: str, reported: dict[str, Any]) -> None:
        before, now = self.seen[task], reported["status"]
        assert before == now or (before not in DONE and ORDER.index(before) < ORDER.index(now))
        assert task not in self.lost or before == now
        self.seen[task] = now
        if now == "success":
            assert self.rest.serializer.deserialize(reported["result"]) == self.value[task]
        if now == "failed":
            assert "WorkerLost" in reported["exception"]

    @precondition(lambda self: self.connection is None)
    @rule()
    def connect(self) -> None:
        answer = self.rest.get("/v2/get_amqp_result_connection_url")
        parameters = pika.URLParameters(answer["connection_url"])
        parameters.connection_attempts = 1
        try:
            self.connection = pika.BlockingConnection(parameters)
        except AMQPError:
            assert any(isinstance(fault, LoseBroker) for fault in self.wrong)

    @precondition(lambda self: self.connection is not None)
    @rule(count=st.integers(1, 5), acknowledge=st.booleans(), data=st.data())
    def receive(self, count: int, *, acknowledge: bool, data: st.DataObject) -> None:
        group = data.draw(st.sampled_from(sorted(self.groups)))
        channel = self.connection.channel()
        for _ in range(count):
            method, _, body = channel.basic_get(f"results.{group}")
            if method is None:
                break
            task = self.received(group, body)
            if acknowledge:
                channel.basic_ack(method.delivery_tag)
                channel.queue_declare(f"results.{group}", passive=True)  # the acknowledgement came before its answer
                self.acknowledged.add(task)
        channel.close()  # what was not acknowledged comes again

    def received(self, group: str, body: bytes) -> str:
        result = unpack(body)
        assert isinstance(result, Result)
        task = str(result.task_id)
        assert task in self.groups[group]
        assert task not in self.acknowledged
        assert task not in self.lost
        if not result.is_error:
            assert self.rest.serializer.deserialize(result.data) == self.value[task]
        return task

    def disconnect(self) -> None:
        if self.connection is not None:
            with contextlib.suppress(AMQPError):
                self.connection.close()
            self.connection = None

    # --- what happens to it ---------------------------------------------------------------------------------------

    @rule()
    def lose_connection(self) -> None:
        self.endpoints["alpha"].begin(LoseConnection(at=0.0))
        self.disconnect()

    @rule()
    def broker(self) -> None:
        self.flip(LoseBroker(**LASTS), "alpha")
        self.disconnect()

    @rule(label=st.sampled_from(LABELS))
    def kill(self, label: str) -> None:
        if self.flip(Kill(**LASTS, endpoint=label), label):
            held = [task for task, place in self.place.items() if place.label == label]
            self.lost.update(task for task in held if self.rest.task(task)["status"] in ORDER[1:3])
            for task in held:  # as far as they came before they were lost
                self.seen[task] = self.rest.task(task)["status"]

    @rule(label=st.sampled_from(LABELS))
    def freeze(self, label: str) -> None:
        self.flip(Freeze(**LASTS, endpoint=label), label)

    @rule(label=st.sampled_from(LABELS))
    def lose_worker(self, label: str) -> None:
        self.endpoints[label].begin(LoseWorker(at=0.0, endpoint=label))

    def flip(self, fault: Kill | Freeze | LoseBroker, label: str) -> bool:
        """Begin it, or end it if it lasts; returns whether it lasts now."""
        if fault in self.wrong:
            self.wrong.remove(fault)
            self.endpoints[label].end(fault)
            return False
        self.wrong.add(fault)
        self.endpoints[label].begin(fault)
        return True

    # --- what must hold -------------------------------------------------------------------------------------------

    @invariant()
    def every_task_is_counted(self) -> None:
        assert sum(self.service.tasks.values()) == len(self.value)

    def all_is_well_in_the_end(self) -> None:
        for fault in list(self.wrong):
            self.flip(fault, getattr(fault, "endpoint", "alpha"))
        wanted = set(self.value) - self.lost
        self.rest.until(lambda: all(self.rest.task(task)["status"] in DONE for task in wanted))
        self.reload()
        self.disconnect()
        for group, tasks in self.groups.items():
            left = wanted.intersection(tasks) - self.acknowledged
            assert self.service.results_waiting(group) == len(left)
            if left:
                assert {str(result.task_id) for result in self.rest.collect(group, len(left))} == left


TestEmulator = Emulator.TestCase
TestEmulator.settings = settings(
    max_examples=8,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
