from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pika
import psutil
import pytest
from pika.exceptions import AMQPConnectionError

from diaspora_parsl.errors import ConfigurationError
from diaspora_parsl.testing.faults import (
    BlackHole,
    ClockJump,
    Fault,
    FaultScript,
    Flaky,
    ForgetResults,
    Freeze,
    Kill,
    LoseBroker,
    LoseConnection,
    LoseFabric,
    LoseNode,
    LoseResults,
    LoseWorker,
    Mute,
    OutOfMemory,
    Refuse,
    RepeatResults,
    Slow,
    WrongEnvironment,
    WrongStatus,
)
from diaspora_parsl.testing.faults.injector import Injector
from diaspora_parsl.testing.faults.worker_faults import subject_to_faults

if TYPE_CHECKING:
    from diaspora_parsl.testing.globus import EmulatedEndpoint, LocalGlobusCompute
    from tests.unit.testing.globus.rest import Rest

ALPHA: dict[str, Any] = {"at": 0.0, "endpoint": "alpha", "until": 1.0}


@contextmanager
def lasting(endpoint: EmulatedEndpoint, *faults: Fault) -> Iterator[None]:
    for fault in faults:
        endpoint.begin(fault)
    yield
    for fault in faults:
        endpoint.end(fault)


def wait_for(path: str) -> str:
    """Runs until there is such a file."""
    while not os.path.exists(path):  # noqa: PTH110
        time.sleep(0.005)
    return os.environ["DIASPORA_PARSL_NODE"]


# --- the endpoint and its parts -----------------------------------------------------------------------------------


def test_a_killed_endpoint_loses_what_it_held_and_keeps_what_comes(
    rest: Rest, alpha: EmulatedEndpoint, tmp_path: Path
) -> None:
    go = str(tmp_path / "go")
    lost = [rest.submit(alpha, wait_for, go)[0] for _ in range(3)]
    rest.until(lambda: alpha.counts()["pending_tasks"] == 1)
    assert alpha.counts()["idle_workers"] == 0
    with lasting(alpha, Kill(**ALPHA)):
        assert alpha.pids() == []
        assert rest.get(f"/v2/endpoints/{alpha.id}/status")["status"] == "offline"
        kept, _ = rest.submit(alpha, len, "abc")
        assert rest.task(kept)["status"] == "waiting-for-ep"
        assert alpha.counts()["waiting"] == 1
    (tmp_path / "go").touch()
    assert rest.result(kept) == 3
    assert rest.get(f"/v2/endpoints/{alpha.id}/status")["status"] == "online"
    assert [rest.task(task)["status"] for task in lost] == ["running", "running", "waiting-for-nodes"]
    assert alpha.counts()["outstanding_tasks"] == 0


def test_who_is_killed_for_no_time_is_back_at_once(rest: Rest, alpha: EmulatedEndpoint) -> None:
    before = set(alpha.pids())
    alpha.begin(Kill(at=0.0, endpoint="alpha"))
    rest.until(lambda: alpha.counts()["idle_workers"] == 2)
    assert before.isdisjoint(alpha.pids())
    assert alpha.status()["status"] == "online"


def test_faults_of_a_kind_that_overlap_end_with_the_last(alpha: EmulatedEndpoint) -> None:
    short, long = Kill(**ALPHA), Kill(at=0.0, endpoint="alpha", until=2.0)
    with lasting(alpha, long):
        with lasting(alpha, short):
            pass
        alpha.begin(Kill(at=0.0, endpoint="alpha"))
        assert alpha.status()["status"] == "offline"
    assert alpha.status()["status"] == "online"
    with pytest.raises(ValueError, match="not in list"):
        alpha.end(long)


def test_a_lost_worker_is_reported_and_replaced(rest: Rest, alpha: EmulatedEndpoint, tmp_path: Path) -> None:
    go = str(tmp_path / "go")
    tasks = [rest.submit(alpha, wait_for, go) for _ in range(2)]
    rest.until(lambda: alpha.counts()["idle_workers"] == 0)
    alpha.begin(LoseWorker(at=0.0, endpoint="alpha"))
    rest.until(lambda: rest.service.tasks["failed"] == 1)
    (tmp_path / "go").touch()
    reported = [rest.done(task) for task, _ in tasks]
    assert sorted(task["status"] for task in reported) == ["failed", "success"]
    error = next(task["exception"] for task in reported if task["status"] == "failed")
    assert "\nparsl.executors.high_throughput.errors.WorkerLost: Task failure due to loss of worker " in error
    assert all(rest.collect(group, 1)[0].is_error == ("exception" in rest.task(task)) for task, group in tasks)
    rest.until(lambda: alpha.counts()["idle_workers"] == 2)


def test_an_idle_worker_is_lost_when_none_is_at_work(rest: Rest, alpha: EmulatedEndpoint) -> None:
    before = alpha.pids()
    alpha.begin(LoseWorker(at=0.0, endpoint="alpha"))
    rest.until(lambda: alpha.counts()["total_workers"] == 2)
    assert len(set(before) & set(alpha.pids())) == 1
    assert not any(rest.service.tasks.values())


def test_a_lost_node_takes_its_workers_along(rest: Rest, service: LocalGlobusCompute, tmp_path: Path) -> None:
    alpha = service.endpoint("alpha", workers=2, nodes=2)
    tasks = [rest.submit(alpha, wait_for, str(tmp_path / "go"))[0] for _ in range(4)]
    rest.until(lambda: alpha.counts()["idle_workers"] == 0)
    assert alpha.counts()["managers"] == 2
    alpha.begin(LoseNode(at=0.0, endpoint="alpha", node=1))
    rest.until(lambda: service.tasks["failed"] == 2)
    (tmp_path / "go").touch()
    reported = [rest.done(task) for task in tasks]
    lost = [task["exception"] for task in reported if task["status"] == "failed"]
    assert all("errors.ManagerLost: Task failure due to loss of manager 1 on host" in error for error in lost)
    assert {rest.result(task) for task, doc in zip(tasks, reported, strict=True) if "result" in doc} == {"alpha-0"}
    rest.until(lambda: alpha.counts()["managers"] == 2)


def test_a_frozen_endpoint_stands_still_and_says_all_is_well(rest: Rest, alpha: EmulatedEndpoint) -> None:
    with lasting(alpha, Freeze(**ALPHA)):
        rest.until(lambda: {psutil.Process(pid).status() for pid in alpha.pids()} == {psutil.STATUS_STOPPED})
        task, _ = rest.submit(alpha, len, "abc")
        assert rest.task(task)["status"] == "waiting-for-nodes"
        status = rest.get(f"/v2/endpoints/{alpha.id}/status")
        assert (status["status"], status["details"]["idle_workers"]) == ("online", 2)
    assert rest.result(task) == 3


def test_what_runs_when_an_endpoint_freezes_goes_on_later(rest: Rest, alpha: EmulatedEndpoint, tmp_path: Path) -> None:
    task, _ = rest.submit(alpha, wait_for, str(tmp_path / "go"))
    rest.until(lambda: alpha.counts()["idle_workers"] == 1)
    with lasting(alpha, Freeze(**ALPHA)):
        (tmp_path / "go").touch()
        time.sleep(0.1)
        assert rest.task(task)["status"] == "running"
    assert rest.result(task) == "alpha-0"


def test_a_frozen_endpoint_can_be_killed(rest: Rest, alpha: EmulatedEndpoint) -> None:
    with lasting(alpha, Freeze(**ALPHA)), lasting(alpha, Kill(**ALPHA)):
        assert alpha.pids() == []
    assert rest.result(rest.submit(alpha, len, "abc")[0]) == 3


def test_a_mute_endpoint_works_but_does_not_answer(rest: Rest, alpha: EmulatedEndpoint) -> None:
    answers: list[Any] = []
    asking = threading.Thread(target=lambda: answers.append(rest.get(f"/v2/endpoints/{alpha.id}/status")))
    with lasting(alpha, Mute(**ALPHA)):
        asking.start()
        rest.until(lambda: "GET /v2/endpoints/{endpoint}/status" in rest.service.requests_seen)
        assert rest.result(rest.submit(alpha, len, "abc")[0]) == 3
        assert answers == []
    asking.join(30.0)
    assert [answer["status"] for answer in answers] == ["online"]


def test_a_service_with_a_hanging_request_can_be_stopped(rest: Rest, alpha: EmulatedEndpoint) -> None:
    def ask() -> None:
        with pytest.raises(OSError, match=r"closed|reset"):
            rest.get(f"/v2/endpoints/{alpha.id}/status")

    asking = threading.Thread(target=ask)
    alpha.begin(Mute(**ALPHA))
    asking.start()
    rest.until(lambda: "GET /v2/endpoints/{endpoint}/status" in rest.service.requests_seen)
    rest.service.stop()
    asking.join(30.0)
    assert not asking.is_alive()


# --- what user code meets there -----------------------------------------------------------------------------------


def test_on_a_slow_endpoint_everything_takes_longer(rest: Rest, alpha: EmulatedEndpoint) -> None:
    with lasting(alpha, Slow(**ALPHA, factor=3.0), Slow(**ALPHA, factor=2.0)):
        began = time.monotonic()
        task, _ = rest.submit(alpha, time.sleep, 0.1)
        rest.until(lambda: alpha.counts()["idle_workers"] == 1)
    rest.done(task)
    assert time.monotonic() - began >= 0.6
    again, _ = rest.submit(alpha, len, "abc")
    assert rest.result(again) == 3


def test_a_slow_task_is_lost_with_its_worker(rest: Rest, alpha: EmulatedEndpoint) -> None:
    with lasting(alpha, Slow(**ALPHA, factor=1e9)):
        task, _ = rest.submit(alpha, len, "abc")
        rest.until(lambda: alpha.counts()["idle_workers"] == 1)
        time.sleep(0.1)
        alpha.begin(LoseWorker(at=0.0, endpoint="alpha"))
        assert "WorkerLost" in rest.done(task)["exception"]


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Flaky(**ALPHA, rate=1.0), "FlakyError"),
        (BlackHole(**ALPHA), "BlackHoleError"),
        (WrongEnvironment(**ALPHA), "ModuleNotFoundError"),
        (OutOfMemory(**ALPHA), "MemoryError"),
    ],
)
def test_user_code_meets_what_is_wrong(rest: Rest, alpha: EmulatedEndpoint, fault: Fault, error: str) -> None:
    root = subject_to_faults(math.sqrt)
    with lasting(alpha, fault):
        assert error in rest.done(rest.submit(alpha, root, 9.0)[0])["exception"]
    assert rest.result(rest.submit(alpha, root, 9.0)[0]) == 3.0


# --- the way between the client and the endpoint ------------------------------------------------------------------


@pytest.mark.parametrize(("status", "code"), [(503, "SERVICE_UNAVAILABLE"), (429, "TOO_MANY_REQUESTS"), (418, "U")])
def test_submissions_are_refused(rest: Rest, alpha: EmulatedEndpoint, status: int, code: str) -> None:
    with lasting(alpha, Refuse(at=0.0, until=1.0, endpoint="alpha", status=status)):
        got, document = rest.try_submit(alpha, len, "abc")
        assert got == status
        assert document["code"].startswith(code)
        assert ("Retry-After" in rest.headers) == (status == 429)
        assert rest.get(f"/v2/endpoints/{alpha.id}/status")["status"] == "online"
    assert rest.result(rest.submit(alpha, len, "abc")[0]) == 3


def test_a_whole_service_refuses(rest: Rest, alpha: EmulatedEndpoint) -> None:
    with lasting(alpha, Refuse(at=0.0, until=1.0, status=500)):
        assert rest("GET", "/v2/version")[0] == 500
        assert rest("GET", "/v2/nothing")[0] == 500
    assert rest("GET", "/v2/version")[0] == 200


def test_a_refusal_takes_its_time_until_it_is_over(rest: Rest, alpha: EmulatedEndpoint) -> None:
    answers: list[int] = []
    rest.function(len)
    asking = threading.Thread(target=lambda: answers.append(rest.try_submit(alpha, len, "abc")[0]))
    with lasting(alpha, Refuse(at=0.0, until=1.0, endpoint="alpha", status=504, delay=1000.0)):
        asking.start()
        rest.until(lambda: any("submit" in route for route in rest.service.requests_seen))
        time.sleep(0.05)
        assert answers == []
    asking.join(30.0)
    assert answers == [504]


def test_results_get_lost_for_ever(rest: Rest, service: LocalGlobusCompute, alpha: EmulatedEndpoint) -> None:
    with lasting(alpha, LoseResults(**ALPHA)):
        task, group = rest.submit(alpha, len, "abc")
        rest.until(lambda: alpha.counts()["total_tasks"] == 1 and alpha.counts()["idle_workers"] == 2)
    assert rest.task(task)["status"] == "running"
    assert service.results_waiting(group) == 0


def test_results_get_lost_on_their_way_only(rest: Rest, service: LocalGlobusCompute, alpha: EmulatedEndpoint) -> None:
    with lasting(alpha, LoseResults(**ALPHA, kept=True)):
        task, group = rest.submit(alpha, len, "abc")
        assert rest.result(task) == 3
    assert service.results_waiting(group) == 0


def test_a_share_of_the_results_gets_lost_as_its_seed_says(rest: Rest, alpha: EmulatedEndpoint) -> None:
    def lost(seed: int) -> list[bool]:
        with lasting(alpha, LoseResults(**ALPHA, rate=0.5, seed=seed, kept=True)):
            groups = []
            for _ in range(12):  # one after the other, so that results come in this order
                task, group = rest.submit(alpha, len, "abc")
                rest.done(task)
                groups.append(group)
        return [rest.service.results_waiting(group) == 0 for group in groups]

    first, again, other = lost(1), lost(1), lost(2)
    assert first == again != other
    assert {True, False} == set(first)


def test_results_are_delivered_twice(rest: Rest, alpha: EmulatedEndpoint) -> None:
    with lasting(alpha, RepeatResults(**ALPHA)):
        task, group = rest.submit(alpha, len, "abc")
        first, second = rest.collect(group, 2)
    assert first == second
    assert str(first.task_id) == task


def test_a_status_is_wrong(rest: Rest, alpha: EmulatedEndpoint) -> None:
    path = f"/v2/endpoints/{alpha.id}/status"
    with lasting(alpha, WrongStatus(**ALPHA), Kill(**ALPHA)):
        assert rest.get(path)["status"] == "online"
        assert rest.get(path)["details"]["total_workers"] == 2
    with lasting(alpha, WrongStatus(**ALPHA, status="offline", counts=False)):
        assert rest.get(path) == {"status": "offline", "details": {}}
        assert rest.result(rest.submit(alpha, len, "abc")[0]) == 3


# --- the service as a whole ---------------------------------------------------------------------------------------


@pytest.fixture
def connect(rest: Rest) -> Callable[[], Any]:
    parameters = pika.URLParameters(rest.get("/v2/get_amqp_result_connection_url")["connection_url"])
    parameters.connection_attempts = 1
    return lambda: pika.BlockingConnection(parameters)


def test_connections_get_lost(rest: Rest, alpha: EmulatedEndpoint, connect: Callable[[], Any]) -> None:
    connection = connect()
    alpha.begin(LoseConnection(at=0.0))
    with pytest.raises(AMQPConnectionError):
        connection.process_data_events(10.0)
    with connect():
        pass
    task, group = rest.submit(alpha, len, "abc")
    assert str(rest.collect(group, 1)[0].task_id) == task


def test_without_a_broker_the_service_goes_on(rest: Rest, alpha: EmulatedEndpoint, connect: Callable[[], Any]) -> None:
    connection = connect()
    with lasting(alpha, LoseBroker(at=0.0, until=1.0)):
        with pytest.raises(AMQPConnectionError):
            connection.process_data_events(10.0)
        with pytest.raises(AMQPConnectionError):
            connect()
        task, group = rest.submit(alpha, len, "abc")
        assert rest.result(task) == 3
    assert str(rest.collect(group, 1)[0].task_id) == task


def test_results_are_forgotten(rest: Rest, service: LocalGlobusCompute, alpha: EmulatedEndpoint) -> None:
    task, group = rest.submit(alpha, len, "abc")
    rest.done(task)
    assert service.results_waiting(group) == 1
    alpha.begin(ForgetResults(at=0.0))
    assert service.results_waiting(group) == 0
    reported = rest.task(task)
    assert (reported["status"], reported["reason"]) == ("success", "the result has expired")
    assert "result" not in reported


# --- scripts ------------------------------------------------------------------------------------------------------


def test_a_script_is_applied_to_endpoints(rest: Rest, service: LocalGlobusCompute, alpha: EmulatedEndpoint) -> None:
    beta = service.endpoint("beta")
    script = FaultScript(
        (
            Refuse(at=0.0, until=0.4, endpoint="beta", status=400),
            Kill(at=0.1, endpoint="alpha", until=0.3),
            LoseConnection(at=0.2),
        )
    )
    with Injector(script, [alpha, beta]) as injector:
        rest.until(lambda: len(injector.done) >= 2)
        assert rest.try_submit(beta, len, "abc")[0] == 400
        task, _ = rest.submit(alpha, len, "abc")
        injector.wait(30.0)
    assert [type(step.fault) for step in injector.done] == [Refuse, Kill, LoseConnection, Kill, Refuse]
    assert rest.result(task) == 3
    assert rest.result(rest.submit(beta, len, "abc")[0]) == 3


def test_who_leaves_early_leaves_nothing_wrong(rest: Rest, alpha: EmulatedEndpoint) -> None:
    script = FaultScript((Freeze(at=0.0, endpoint="alpha", until=1e6), Refuse(at=0.0, until=1e6)))
    with Injector(script, [alpha]) as injector:
        rest.until(lambda: len(injector.done) == 2)
    assert rest.result(rest.submit(alpha, len, "abc")[0]) == 3


def test_what_cannot_be_applied_is_refused(alpha: EmulatedEndpoint) -> None:
    assert alpha.refuses(BlackHole(**ALPHA, node=1)) == "the endpoint has 1 nodes, from 0 up"
    assert alpha.refuses(ClockJump(at=0.0, seconds=1.0)) == "it affects a pool, not an endpoint"
    assert alpha.refuses(LoseConnection(at=0.0)) is None
    assert alpha.refuses(Refuse(at=0.0, until=1.0)) is None
    for fault in (LoseFabric(at=0.0, until=1.0), Kill(at=0.0, endpoint="beta", until=1.0)):
        with pytest.raises(ConfigurationError):
            alpha.begin(fault)
