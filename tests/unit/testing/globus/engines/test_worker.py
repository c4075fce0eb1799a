from __future__ import annotations

import os
import sys
import time
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from globus_compute_common import messagepack
from globus_compute_common.messagepack.message_types import Result, Task
from globus_compute_sdk.serialize import ComputeSerializer

from diaspora_parsl.testing.globus.engines.worker import execute

if TYPE_CHECKING:
    from diaspora_parsl.testing.globus import EmulatedEndpoint
    from tests.unit.testing.globus.rest import Rest

SERIALIZER = ComputeSerializer()
TASK, ENDPOINT = uuid.uuid4(), str(uuid.uuid4())


def run(function: Callable[..., Any], *args: object, serializers: list[str] | None = None, limit: int = 1000) -> Result:
    code = SERIALIZER.pack_buffers([SERIALIZER.serialize(function)])
    payload = SERIALIZER.pack_buffers([SERIALIZER.serialize(args), SERIALIZER.serialize({})])
    body = messagepack.pack(Task(task_id=TASK, task_buffer=code + payload))
    result = messagepack.unpack(execute(body, serializers or [], ENDPOINT, limit))
    assert isinstance(result, Result)
    return result


@pytest.fixture(autouse=True)
def _restored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GC_TASK_UUID", "of another task")


def divide(a: float, b: float) -> float:
    return a / b


def test_a_result_says_where_and_when_it_was_made() -> None:
    result = run(divide, 1, 2)
    assert SERIALIZER.deserialize(result.data) == 0.5
    assert not result.is_error
    assert result.task_id == TASK
    assert result.details is not None
    assert result.details["endpoint_id"] == ENDPOINT
    assert result.details["python_version"]
    assert [status.state.value for status in result.task_statuses or ()] == ["execution-start", "execution-end"]


def test_a_function_knows_its_task() -> None:
    assert SERIALIZER.deserialize(run(os.getenv, "GC_TASK_UUID").data) == str(TASK)


def test_a_traceback_begins_in_the_users_code() -> None:
    result = run(divide, 1, 0)
    lines = result.data.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert "in divide" in lines[1]
    assert lines[-1] == "ZeroDivisionError: division by zero"
    assert result.error_details is not None
    assert result.error_details.code == "RemoteExecutionError"


def test_a_result_that_is_too_large_is_refused() -> None:
    result = run(bytes, 2000)
    assert result.error_details is not None
    assert result.error_details.code == "MaxResultSizeExceeded"
    assert "exceeded current limit of 1000B" in result.error_details.user_message


def test_a_client_chooses_how_results_are_written() -> None:
    result = run(divide, 1, 2, serializers=["globus_compute_sdk.serialize.JSONData"])
    assert result.data.endswith("0.5")


def test_only_tasks_are_run() -> None:
    with pytest.raises(TypeError, match="not a task: Result"):
        execute(messagepack.pack(Result(task_id=TASK, data="")), [], ENDPOINT, 1000)


# --- in processes of its own --------------------------------------------------------------------------------------


def talk() -> str:
    print("good morning")  # noqa: T201
    sys.stdout.write("x" * 100_000)
    os.write(1, b"good night")
    return sys.stdin.read()


def leave_a_child_and_go(started: str) -> None:
    if os.fork() == 0:
        with open(started, "w") as file:  # noqa: PTH123
            file.write(str(os.getpid()))
        time.sleep(1000)
    while not os.path.exists(started):  # noqa: PTH110
        time.sleep(0.01)
    os._exit(3)


def test_what_user_code_prints_and_reads_is_not_the_channel(rest: Rest, alpha: EmulatedEndpoint) -> None:
    task, _ = rest.submit(alpha, talk)
    assert rest.result(task) == ""
    said = alpha.output.read_text()
    assert "good morning" in said
    assert "good night" in said


def test_functions_run_in_a_folder_of_the_endpoint(rest: Rest, alpha: EmulatedEndpoint) -> None:
    tasks = [rest.submit(alpha, os.getcwd)[0] for _ in range(4)]
    assert {rest.result(task) for task in tasks} == {str(alpha.output.parent / "tasks")}


def test_a_worker_that_ends_by_itself_is_replaced(rest: Rest, alpha: EmulatedEndpoint, tmp_path: Any) -> None:
    started = tmp_path / "started"
    task, _ = rest.submit(alpha, leave_a_child_and_go, str(started))
    assert "errors.WorkerLost: Task failure due to loss of worker" in rest.done(task)["exception"]
    rest.until(lambda: not psutil.pid_exists(int(started.read_text())))
    rest.until(lambda: alpha.counts()["idle_workers"] == 2)
    assert rest.result(rest.submit(alpha, divide, 1, 2)[0]) == 0.5
