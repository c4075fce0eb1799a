"""The radio and the hub, without Parsl around them."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime
from multiprocessing.queues import Queue
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from parsl.monitoring.message_type import MessageType

from diaspora_parsl import FabricMonitoringHub, FabricRadio, open_fabric
from diaspora_parsl import events as ev
from diaspora_parsl.errors import ConfigurationError
from diaspora_parsl.monitors.parsl import messages, radio

WHEN = datetime(2026, 1, 31, 12, 0, 0, 123456)  # noqa: DTZ001 - as Parsl's are


def worker_message(*, last: bool = False, task: int = 1) -> messages.Message:
    return messages._BEGIN_END, {
        "run_id": "r", "try_id": 0, "task_id": task, "hostname": "n1", "block_id": "3", "first_msg": not last,
        "last_msg": last, "timestamp": WHEN,
    }  # fmt: skip


def resource_message(**values: Any) -> messages.Message:
    measured = dict.fromkeys(messages._MEASURED, 1)
    return MessageType.RESOURCE_INFO, {
        "run_id": "r", "try_id": 0, "task_id": 1, "hostname": "n1", "resource_monitoring_interval": 1.0,
        "timestamp": WHEN, "psutil_process_pid": 7, **messages._NEITHER, **measured, **values,
    }  # fmt: skip


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture
def url() -> Iterator[str]:
    address = f"memory://{uuid.uuid4().hex}"
    with contextlib.closing(open_fabric(address)):
        yield address


def received(url: str) -> list[ev.Payload | None]:
    with (
        contextlib.closing(open_fabric(url)) as fabric,
        contextlib.closing(fabric.subscribe(ev.TOPICS, "earliest")) as subscription,
    ):
        return [event.payload() for event in subscription.read(0.05)]


class Database(list[Any]):
    """Stands for the queue of Parsl's database."""

    put = list.append


@given(
    st.floats(0, 1e9),
    st.integers(0, 2**40),
    st.dictionaries(st.sampled_from(["psutil_a", "b"]), st.integers() | st.none()),
)
def test_what_a_worker_tells_comes_out_as_it_went_in(seconds: float, size: int, more: dict[str, Any]) -> None:
    for reported in (
        worker_message(),
        worker_message(last=True),
        resource_message(psutil_process_time_user=seconds, psutil_process_memory_resident=size, **more),
    ):
        ((payload, subject, key),) = messages.payloads(reported)
        assert (subject, key) == ("r/1", "r/1")
        assert messages.message(payload) == reported


def test_what_a_sender_tells_reaches_the_receiver(url: str, tmp_path: Path) -> None:
    database: Any = Database()
    made = FabricRadio(fabric=url, outbox=str(tmp_path))
    receiver = made.create_receiver(run_dir=str(tmp_path), resource_msgs=database)
    sender = made.create_sender()
    assert made.create_sender() is sender
    for each in (worker_message(), resource_message(), worker_message(last=True)):
        sender.send(each)
    receiver.shutdown()
    reported = (worker_message(), resource_message(), worker_message(last=True))
    assert all(each in database for each in reported)
    assert len(database) == len(reported)


def test_a_forked_process_hands_over_to_its_parent(url: str, tmp_path: Path) -> None:
    database: Any = Database()
    made = FabricRadio(fabric=url, outbox=str(tmp_path))
    receiver = made.create_receiver(run_dir=str(tmp_path), resource_msgs=database)
    made.create_sender().send(worker_message())
    child = os.fork()
    if child == 0:
        made.create_sender().send(resource_message())
        os._exit(0)
    os.waitpid(child, 0)
    until(lambda: len(database) == 2)
    receiver.shutdown()


def test_messages_of_other_radios_and_broken_ones_are_left_out(url: str, tmp_path: Path) -> None:
    database: Any = Database()
    made, other = (FabricRadio(fabric=url, outbox=str(tmp_path)) for _ in range(2))
    receiver = made.create_receiver(run_dir=str(tmp_path), resource_msgs=database)
    nobody = other.create_receiver(run_dir=str(tmp_path), resource_msgs=messages.Tee(lambda _: None))
    for each in (made, other):
        sender: Any = each.create_sender()
        sender.send("nonsense")
        sender._publisher.emit(ev.TryChanged(run="r", parsl_task=1, parsl_try=0, status="running", at="soon"), "x")
        sender.send(worker_message(task=2 if each is other else 1))
    until(lambda: database)
    nobody.shutdown()
    receiver.shutdown()
    assert database == [worker_message()]


def test_it_travels_and_hides_passwords() -> None:
    made = FabricRadio(fabric="redis://:s3cret@host:6379/0", site="anl")
    again = pickle.loads(pickle.dumps(made))  # noqa: S301 - it was made here
    assert (again.fabric, again.site, again.channel) == (made.fabric, "anl", made.channel)
    assert "s3cret" not in repr(made)
    assert "s3cret" not in repr(FabricMonitoringHub(fabric="redis://:s3cret@host:6379/0"))


@pytest.mark.parametrize("fabric", ["embedded", "nowhere", 7, "pigeon://coop"])
def test_a_fabric_that_no_worker_reaches_is_refused(fabric: Any) -> None:
    with pytest.raises(ConfigurationError):
        FabricRadio(fabric=fabric)


def test_workers_look_where_their_site_says(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIASPORA_PARSL_FABRIC", url)
    with contextlib.closing(FabricRadio().open()) as fabric:
        assert fabric.url == url


def _put(queue: Queue[Any]) -> None:
    queue.put(worker_message())


def test_a_hub_tells_what_is_put_here_and_in_other_processes(url: str, tmp_path: Path) -> None:
    hub = FabricMonitoringHub(fabric=url)
    hub.start(str(tmp_path / "run"), str(tmp_path), None)
    task = {"run_id": "r", "task_id": 1, "try_id": 0, "task_status_name": "launched", "timestamp": WHEN,
            "task_executor": "alpha", "task_func_name": "f", "task_fail_count": 0}  # fmt: skip
    block = {"run_id": "r", "executor_label": "alpha", "block_id": "0", "status": "RUNNING", "job_id": 7,
             "timestamp": WHEN}  # fmt: skip
    reported: Any
    for reported in (
        (MessageType.TASK_INFO, task),
        (MessageType.BLOCK_INFO, [block]),
        (MessageType.NODE_INFO, {}),
        "hm",
    ):
        hub.resource_msgs.put(reported)
    process = multiprocessing.get_context("spawn").Process(target=_put, args=(hub.resource_msgs,))
    process.start()
    process.join(100)
    assert process.exitcode == 0
    until(lambda: len(received(url)) == 3)
    hub.close()
    hub.close()
    statuses = [reported for reported in received(url) if isinstance(reported, ev.TryChanged)]
    assert [reported.status for reported in statuses] == ["launched", "running"]
    assert (statuses[0].executor, statuses[0].function) == ("alpha", "f")
    (reported,) = [reported for reported in received(url) if isinstance(reported, ev.BlockChanged)]
    assert (reported.executor, reported.block, reported.job, reported.status) == ("alpha", "0", "7", "RUNNING")


def test_a_hub_with_a_database_is_that_and_more(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from parsl.monitoring import MonitoringHub  # noqa: PLC0415 - it asks for SQLAlchemy

    inner = MonitoringHub(workflow_name="w", resource_monitoring_interval=3.0)
    database: Any = Database()
    monkeypatch.setattr(MonitoringHub, "start", lambda self, *_: setattr(self, "resource_msgs", database))
    ended: list[bool] = []
    monkeypatch.setattr(MonitoringHub, "close", lambda _: ended.append(True))
    hub = FabricMonitoringHub(fabric=open_fabric(url), database=inner)
    assert (hub.workflow_name, hub.resource_monitoring_interval) == ("w", 3.0)
    hub.start(str(tmp_path / "run"), str(tmp_path), None)
    end = {"run_id": "r", "tasks_completed_count": 3, "tasks_failed_count": 1}
    hub.resource_msgs.put((MessageType.WORKFLOW_INFO, end))
    assert database == [(MessageType.WORKFLOW_INFO, end)]
    until(lambda: received(url) == [ev.WorkflowEnded(run="r", completed=3, failed=1)])
    with pytest.raises(ConfigurationError, match="serves one run"):
        hub.start(str(tmp_path / "run"), str(tmp_path), None)
    hub.close()
    assert ended == [True]


@pytest.mark.parametrize("wrong", [{"fabric": 7}, {"fabric": "pigeon://coop"}, {"database": FabricMonitoringHub()}])
def test_a_hub_that_cannot_work_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        FabricMonitoringHub(**wrong)


def test_a_sender_whose_parent_is_gone_raises_nothing(url: str, tmp_path: Path) -> None:
    made = FabricRadio(fabric=url, outbox=str(tmp_path))
    sender: Any = made.create_sender()
    radio.close_senders(made.channel)
    child = SimpleNamespace(is_of_this_process=False, _outer=sender._outer)
    radio.FabricRadioSender.send(child, worker_message())  # type: ignore[arg-type]
