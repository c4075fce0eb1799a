from __future__ import annotations

import importlib.util
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
from globus_compute_sdk.serialize import ComputeSerializer, PureSourceTextInspect

from diaspora_parsl.errors import ConfigurationError
from diaspora_parsl.testing.faults import Freeze, Kill, LoseNode, LoseWorker, OutOfMemory
from diaspora_parsl.testing.faults.worker_faults import subject_to_faults
from diaspora_parsl.testing.globus import LocalGlobusCompute
from diaspora_parsl.testing.globus.engines import hosted

if TYPE_CHECKING:
    from diaspora_parsl.testing.globus import EmulatedEndpoint
    from tests.unit.testing.globus.rest import Rest

needs_engine = pytest.mark.skipif(
    importlib.util.find_spec("globus_compute_endpoint") is None,
    reason="needs the extra globus-engine; `make globus-engine` runs it",
)
#: Seconds until a lost node is missed and another has come, on a busy machine.
LONG = 60.0


@pytest.fixture
def real(service: LocalGlobusCompute) -> EmulatedEndpoint:
    return service.endpoint("real", workers=2, environment={"GREETING": "hello"}, engine="GlobusComputeEngine")


@pytest.fixture
def rest(rest: Rest) -> Rest:
    # The endpoint package brings a module `tests` of its own: its workers would look for our functions there.
    rest.serializer = ComputeSerializer(strategy_code=PureSourceTextInspect())
    return rest


def double(number: float) -> float:
    return number * 2


def greet(name: str) -> str:
    import os  # noqa: PLC0415 - where it runs

    os.write(1, f"greeted {name}\n".encode())
    return f"{os.environ['GREETING']}, {name}, from {os.environ['DIASPORA_PARSL_NODE']}"


def wait_for(path: str) -> int:
    """Runs until there is such a file."""
    import os  # noqa: PLC0415 - where it runs
    import time  # noqa: PLC0415 - the same

    with open(f"{path}.{os.getpid()}", "w"):  # noqa: PTH123 - it is here
        pass
    while not os.path.exists(path):  # noqa: PTH110
        time.sleep(0.01)
    return os.getpid()


def running(folder: Path) -> set[int]:
    """Processes that run `wait_for`, for a file ``go`` in that folder."""
    return {int(path.suffix[1:]) for path in folder.glob("go.*")}


@needs_engine
def test_an_engine_of_a_real_endpoint_runs_functions(rest: Rest, real: EmulatedEndpoint) -> None:
    assert real.status()["status"] == "online"
    assert real.counts()["total_workers"] == len(real.pids()) == 2
    tasks = [rest.submit(real, double, number)[0] for number in range(20)]
    assert [rest.result(task) for task in tasks] == list(range(0, 40, 2))
    task, group = rest.submit(real, greet, "world")
    assert rest.result(task) == "hello, world, from real-0"
    rest.until(lambda: "greeted world" in real.output.read_text())
    assert [str(result.task_id) for result in rest.collect(group, 1)] == [task]
    failed = rest.done(rest.submit(real, double, None)[0])
    assert failed["status"] == "failed"
    assert "TypeError" in failed["exception"]
    rest.until(lambda: real.counts()["outstanding_tasks"] == 0 and real.counts()["total_tasks"] == 22)


@needs_engine
def test_losses_inside_it_are_reported_as_by_a_real_endpoint(
    rest: Rest, real: EmulatedEndpoint, tmp_path: Path
) -> None:
    memory = OutOfMemory(at=0.0, endpoint="real", until=1.0)
    real.begin(memory)
    by_source, rest.serializer = rest.serializer, ComputeSerializer()
    assert "MemoryError" in rest.done(rest.submit(real, subject_to_faults(abs), -1)[0])["exception"]
    rest.serializer = by_source
    real.end(memory)
    go = tmp_path / "go"
    tasks = [rest.submit(real, wait_for, str(go))[0] for _ in range(2)]
    rest.until(lambda: len(running(tmp_path)) == 2)
    assert running(tmp_path) == set(real.pids())
    frozen = Freeze(at=0.0, endpoint="real", until=1.0)
    real.begin(frozen)
    late, _ = rest.submit(real, double, 3)
    go.touch()
    assert {psutil.Process(pid).status() for pid in real.pids()} == {psutil.STATUS_STOPPED}
    assert real.counts()["waiting"] == 1
    real.end(frozen)
    assert {rest.result(task) for task in tasks} == running(tmp_path)
    assert rest.result(late) == 6
    go.unlink()
    for path in tmp_path.iterdir():
        path.unlink()
    tasks = [rest.submit(real, wait_for, str(go))[0] for _ in range(2)]
    rest.until(lambda: len(running(tmp_path)) == 2)
    real.begin(LoseWorker(at=0.0, endpoint="real"))
    rest.until(lambda: any(rest.task(task)["status"] == "failed" for task in tasks))
    go.touch()
    reported = [rest.done(task) for task in tasks]
    assert sorted(task["status"] for task in reported) == ["failed", "success"]
    assert any("WorkerLost" in task.get("exception", "") for task in reported)
    rest.until(lambda: len(real.pids()) == 2)


@needs_engine
def test_a_lost_node_is_missed_and_replaced(rest: Rest, service: LocalGlobusCompute, tmp_path: Path) -> None:
    real = service.endpoint("real", nodes=2, engine="GlobusComputeEngine")
    go = tmp_path / "go"
    tasks = [rest.submit(real, wait_for, str(go))[0] for _ in range(3)]
    rest.until(lambda: len(running(tmp_path)) == 2)
    before = set(real.pids())
    real.begin(LoseNode(at=0.0, endpoint="real", node=1))
    rest.until(lambda: any(rest.task(task)["status"] == "failed" for task in tasks), LONG)
    rest.until(lambda: len(running(tmp_path)) == 3, LONG)
    go.touch()
    reported = [rest.done(task) for task in tasks]
    assert sorted(task["status"] for task in reported) == ["failed", "success", "success"]
    assert any("ManagerLost" in task.get("exception", "") for task in reported)
    assert len(before & set(real.pids())) == 1
    assert len(real.pids()) == 2


@needs_engine
def test_who_dies_with_it_is_not_heard_of_again(
    rest: Rest, real: EmulatedEndpoint, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    go = tmp_path / "go"
    lost, _ = rest.submit(real, wait_for, str(go))
    rest.until(lambda: len(running(tmp_path)) == 1)
    killed = Kill(at=0.0, endpoint="real", until=1.0)
    real.begin(killed)
    assert real.pids() == []
    assert real.status()["status"] == "offline"
    kept, _ = rest.submit(real, double, 2)
    assert rest.task(kept)["status"] == "waiting-for-ep"
    real.end(killed)
    assert rest.result(kept) == 4
    assert rest.task(lost)["status"] == "waiting-for-nodes"
    assert not caplog.records
    os.kill(_host(), signal.SIGKILL)
    rest.until(lambda: "The engine of real ended" in caplog.text)
    assert rest.result(rest.submit(real, double, 4)[0]) == 8


def _host() -> int:
    (found,) = (
        child.pid
        for child in psutil.Process().children()
        if child.status() != psutil.STATUS_ZOMBIE and "diaspora_parsl.testing.globus.engines.host" in child.cmdline()
    )
    return found


@needs_engine
def test_an_engine_that_cannot_start_is_shown(service: LocalGlobusCompute, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosted, "_READY_LIMIT", 3.0)
    began = time.monotonic()
    with pytest.raises(RuntimeError, match=r"the engine of real does not start:\n[^$]*Error"):
        service.endpoint("real", environment={"PYTHONHOME": "/nowhere"}, engine="GlobusComputeEngine")
    assert time.monotonic() - began < LONG
    assert service.endpoints == ()


def test_what_cannot_be_is_refused(service: LocalGlobusCompute, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="write 'emulated' or 'GlobusComputeEngine'"):
        service.endpoint("real", engine="other")  # type: ignore[arg-type]
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ConfigurationError, match=r"pip install 'diaspora-parsl\[globus-engine\]'"):
        service.endpoint("real", engine="GlobusComputeEngine")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: object())
    with pytest.raises(ConfigurationError, match="a GlobusComputeEngine supports only 10485760 bytes"):
        hosted.require_engine(1000)
