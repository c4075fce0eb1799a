"""What the pool uses of Parsl beyond its documented interface exists and behaves, in the Parsl that is installed."""

from __future__ import annotations

import functools
import inspect
import operator
import os
import threading
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import parsl
import pytest
from parsl.app.errors import RemoteExceptionWrapper, wrap_error
from parsl.config import Config
from parsl.executors import HighThroughputExecutor, MPIExecutor, ThreadPoolExecutor
from parsl.executors.base import ParslExecutor
from parsl.executors.errors import InvalidResourceSpecification
from parsl.executors.high_throughput.errors import CommandClientBadError, CommandClientTimeoutError
from parsl.executors.high_throughput.zmq_pipes import CommandClient
from parsl.executors.status_handling import BlockProviderExecutor
from parsl.jobs.job_status_poller import JobStatusPoller
from parsl.jobs.states import JobState, JobStatus
from parsl.launchers import SimpleLauncher, SrunLauncher
from parsl.monitoring.remote import monitor_wrapper
from parsl.providers import LocalProvider
from parsl.serialize import unpack_apply_message
from parsl.serialize.errors import SerializationError
from parsl.utils import RepresentationMixin, Timer

from diaspora_parsl import Endpoint, ResilientPoolExecutor
from diaspora_parsl.core.failure_rules import BUILT_IN
from diaspora_parsl.executors.parsl import adapter


def _provider(**options: Any) -> LocalProvider:
    return LocalProvider(**{"init_blocks": 1, "max_blocks": 1, "launcher": SimpleLauncher(), **options})


def _htex(label: str = "alpha", **options: Any) -> HighThroughputExecutor:
    return HighThroughputExecutor(
        label=label, **{"address": "127.0.0.1", "max_workers_per_node": 1, "provider": _provider(), **options}
    )


def _until(condition: Callable[[], bool], limit: float = 90.0) -> bool:
    end = time.monotonic() + limit
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return False


# --- shapes -------------------------------------------------------------------------------------------------------


def test_every_module_of_ours_that_imports_parsl_can_be_imported() -> None:
    for name in ("parsl.adapter", "endpoint", "runtime.instance", "pool", "staging"):
        import_module(f"diaspora_parsl.executors.{name}")


@pytest.mark.parametrize("name", [str(rule.error) for rule in BUILT_IN if str(rule.error).startswith("parsl.")])
def test_exceptions_that_are_matched_by_name_exist(name: str) -> None:
    module, _, cls = name.rpartition(".")
    found = getattr(import_module(module), cls)
    assert issubclass(found, Exception)
    assert f"{found.__module__}.{found.__qualname__}" == name


def test_attributes_before_the_start() -> None:
    executor = _htex()
    assert executor.interchange_proc is None
    assert (executor.heartbeat_period, executor.heartbeat_threshold) == adapter.PARSL_HEARTBEATS
    assert executor._result_queue_thread is None
    assert executor.blocks_to_job_id == {}
    assert executor.status_facade == {}
    assert executor.status_polling_interval == 5
    assert executor.bad_state_is_set is False
    assert executor.executor_exception is None
    assert "outstanding" in dir(type(executor))  # what the strategy calls, and a pool replaces
    assert executor.run_id is None
    assert executor.workers_per_node == 1
    provider: Any = executor.provider
    assert (provider.max_blocks, provider.nodes_per_block, provider.worker_init) == (1, 1, "")
    assert hasattr(executor.provider, "script_dir")
    assert not adapter.is_started(executor)


def test_signatures() -> None:
    assert list(inspect.signature(CommandClient.run).parameters) == ["self", "message", "max_retries", "timeout_s"]
    assert "timeout" in inspect.signature(HighThroughputExecutor.shutdown).parameters
    assert list(inspect.signature(Timer.close).parameters) == ["self", "timeout"]
    assert list(inspect.signature(JobStatusPoller.close).parameters) == ["self", "timeout"]
    assert list(inspect.signature(HighThroughputExecutor._start_local_interchange_process).parameters) == ["self"]
    assert list(inspect.signature(ParslExecutor.submit).parameters)[:3] == ["self", "func", "resource_specification"]
    assert list(inspect.signature(BlockProviderExecutor.scale_out_facade).parameters) == ["self", "n"]
    assert issubclass(HighThroughputExecutor, BlockProviderExecutor)
    assert issubclass(JobStatusPoller, Timer)
    assert {"PENDING", "HELD", "RUNNING", "UNKNOWN", "COMPLETED", "MISSING"} <= set(JobState.__members__)
    assert JobStatus(JobState.COMPLETED).terminal
    assert not JobStatus(JobState.RUNNING).terminal


# --- building -----------------------------------------------------------------------------------------------------


def _mpi() -> MPIExecutor:
    return MPIExecutor(label="mpi", address="127.0.0.1", max_workers_per_block=2, provider=_provider())


RICH = {
    "working_dir": "/tmp/somewhere",  # noqa: S108 - a name, nothing is written
    "worker_debug": True,
    "cores_per_worker": 0.5,
    "mem_per_worker": 1.5,
    "max_workers_per_node": 3,
    "cpu_affinity": "block",
    "available_accelerators": ["0", "1"],
    "prefetch_capacity": 2,
    "heartbeat_period": 2,
    "heartbeat_threshold": 7,
    "drain_period": 100,
    "poll_period": 20,
    "worker_ports": (54000, 54001),  # older Parsl
    "worker_port": 54002,  # newer Parsl
    "block_error_handler": False,
    "encrypted": True,
}


def _known_to_htex(options: dict[str, Any]) -> dict[str, Any]:
    known = inspect.signature(HighThroughputExecutor.__init__).parameters
    return {name: value for name, value in options.items() if name in known}


@pytest.mark.parametrize(
    "make",
    [
        lambda: HighThroughputExecutor(address="127.0.0.1"),
        lambda: _htex(**_known_to_htex(RICH)),
        lambda: _htex(available_accelerators=2),
        lambda: _htex(interchange_launch_cmd=["sh", "-c", "exec interchange.py"]),
        lambda: _htex(launch_cmd="process_worker_pool.py --help"),
        lambda: ThreadPoolExecutor(label="threads", max_threads=3, thread_name_prefix="mine", working_dir="/data"),
        _mpi,
        lambda: MPIExecutor(label="mpi", address="127.0.0.1", mpi_launcher="srun", provider=_provider()),
    ],
    ids=["htex", "rich", "accelerators", "interchange", "launch", "threads", "mpi", "srun"],
)
def test_recipe_builds_an_equal_executor(make: Callable[[], ParslExecutor]) -> None:
    executor = make()
    build = adapter.recipe(executor)
    assert build is not None
    again = build()
    assert again is not executor
    assert type(again) is type(executor)
    assert repr(again) == repr(executor)
    assert getattr(again, "provider", None) is getattr(executor, "provider", None)


def test_constructor_arguments_are_attributes() -> None:
    for executor in (_htex(), _mpi(), ThreadPoolExecutor(), _provider()):
        assert isinstance(executor, RepresentationMixin)
        arguments = list(inspect.signature(type(executor).__init__).parameters)[1:]
        assert [name for name in arguments if not hasattr(executor, name)] == []


def test_an_executor_of_somebody_else_has_no_recipe() -> None:
    class Mine(ThreadPoolExecutor):
        pass

    assert adapter.recipe(Mine(label="mine")) is None


def test_tightened_heartbeats() -> None:
    executor = _htex()
    assert adapter.tighten_heartbeats(executor, (1, 4))
    assert (executor.heartbeat_period, executor.heartbeat_threshold) == (1, 4)
    chosen = _htex(heartbeat_period=10, heartbeat_threshold=60)
    assert not adapter.tighten_heartbeats(chosen, (1, 4))
    assert (chosen.heartbeat_period, chosen.heartbeat_threshold) == (10, 60)


def test_what_an_executor_offers() -> None:
    scaled = _htex(max_workers_per_node=4, provider=_provider(max_blocks=3, nodes_per_block=2))
    assert adapter.capacity(scaled, None) == 24
    assert adapter.capacity(scaled, 5) == 5
    assert adapter.capacity(ThreadPoolExecutor(max_threads=7), None) == 7
    assert adapter.resources(_htex()) == frozenset({"priority"})
    assert adapter.resources(_mpi()) == frozenset({"num_nodes", "ranks_per_node", "num_ranks", "launcher_options"})
    assert adapter.resources(ThreadPoolExecutor()) == frozenset()
    with_launcher = _htex(provider=_provider(launcher=SrunLauncher(), worker_init="module load x"))
    assert adapter.worker_init(with_launcher) == "module load x"
    adapter.set_worker_init(with_launcher, "true")
    assert adapter.worker_init(with_launcher) == "true"


# --- tasks --------------------------------------------------------------------------------------------------------


def simulate(x: int = 0) -> int:
    return x + 1


def shell() -> str:
    return "true"


def test_apps_are_recognised_under_all_wrappers() -> None:
    seen: list[Callable[..., Any]] = []
    app_of_python = parsl.python_app(simulate)
    app_of_bash = parsl.bash_app(shell)
    kernel = SimpleNamespace(submit=lambda func, **_: seen.append(func))
    for app in (app_of_python, app_of_bash):
        vars(app)["data_flow_kernel"] = kernel
        app()
    python, bash = (adapter.describe(func) for func in seen)
    assert python == (f"{__name__}.simulate", True, False)
    assert bash == (f"{__name__}.shell", True, True)


def test_monitoring_and_partials_hide_nothing(tmp_path: Path) -> None:
    app = wrap_error(simulate)
    arguments: dict[str, Any] = {
        "args": (), "kwargs": {}, "x_try_id": 0, "x_task_id": 0, "radio_config": None, "run_id": "r",
        "sleep_dur": 1.0, "monitor_resources": False, "run_dir": str(tmp_path),
        "logging_level": 0, "monitoring_hub_url": "",
    }  # fmt: skip
    known = inspect.signature(monitor_wrapper).parameters
    monitored = monitor_wrapper(**{name: arguments[name] for name in known if name in arguments}, f=app)[0]
    assert adapter.describe(monitored) == (f"{__name__}.simulate", True, False)
    assert adapter.describe(functools.partial(app, 1)) == (f"{__name__}.simulate", True, False)
    assert adapter.describe(simulate) == (f"{__name__}.simulate", False, False)
    assert adapter.describe(functools.partial(simulate, 1)) == (f"{__name__}.simulate", False, False)
    assert adapter.describe(SimpleNamespace) == ("types.SimpleNamespace", False, False)


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((), {}),
        ((1, -2.5, "text", b"bytes", None, True), {"name": "value"}),  # plain: written by pickle
        (([1, 2], {"a": Path("/x")}), {"scale": functools.partial(operator.mul, 3)}),  # written by dill
    ],
)
def test_plain_arguments_arrive_as_through_parsls_own_submit(
    args: tuple[Any, ...], kwargs: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[dict[str, Any]] = []
    executor = _htex()
    monkeypatch.setattr(executor, "outgoing_q", SimpleNamespace(put=sent.append), raising=False)
    adapter.submit(executor, simulate, {"priority": 1}, args, kwargs)
    executor.submit(simulate, {"priority": 1}, *args, **kwargs)
    (ours, our_args, our_kwargs), (_, their_args, their_kwargs) = (
        unpack_apply_message(message["buffer"]) for message in sent
    )
    assert (our_args, repr(our_kwargs)) == (their_args, repr(their_kwargs))
    assert {**sent[0], "buffer": None, "task_id": None} == {**sent[1], "buffer": None, "task_id": None}
    assert ours(1) == 2


def test_what_cannot_be_sent_is_refused_as_by_parsl() -> None:
    stream = iter(x for x in range(1))
    for resources, error in (({"bogus": 1}, InvalidResourceSpecification), ({}, SerializationError)):
        with pytest.raises(error):
            adapter.submit(_htex(), lambda: stream, resources, (), {})


def test_a_users_exception_is_a_wrapped_result() -> None:
    result = wrap_error(lambda: 1 / 0)()
    assert isinstance(result, RemoteExceptionWrapper)
    assert isinstance(adapter.raised_by_user(result), ZeroDivisionError)
    assert adapter.raised_by_user(5) is None


# --- a real one ---------------------------------------------------------------------------------------------------


@pytest.fixture
def running(tmp_path: Path) -> Iterator[HighThroughputExecutor]:
    """A local HTEX as a member of a pool runs it."""
    executor = _htex()
    log_config = getattr(executor, "log_config", None)  # older Parsl has none
    adapter.prepare(executor, adapter.RunContext(str(tmp_path), "run", log_config, None))
    adapter.tighten_heartbeats(executor, (1, 4))
    abandon = adapter.guard_channels(executor)
    executor.start()
    adapter.show_demand(executor, lambda: 1)
    poller = adapter.start_poller(executor, "simple", 120, 1.0)
    assert poller is not None
    try:
        yield executor
    finally:
        adapter.stop_polling(poller, 2.0, scale_in=adapter.why_dead(executor) is None)
        abandon()
        adapter.cancel_jobs(executor)
        adapter.shut_down(executor, wait=1.0)
        adapter.kill_interchange(executor)


def test_an_executor_starts_works_and_is_observed(running: HighThroughputExecutor) -> None:
    executor = running
    assert adapter.is_started(executor)
    assert adapter.why_dead(executor) is None
    assert isinstance(executor._result_queue_thread, threading.Thread)
    assert isinstance(executor.command_client._lock, type(threading.Lock()))
    assert executor.command_client.ok is True
    assert _until(lambda: adapter.observe(executor, 1).slots == 1)
    assert adapter.submit(executor, operator.add, {}, (41, 1), {}).result(timeout=90) == 42
    blocks = executor.submit(os.getenv, {}, "PARSL_WORKER_BLOCK_ID").result(timeout=90)
    assert blocks in executor.blocks_to_job_id
    assert blocks in executor.connected_blocks()
    assert _until(lambda: blocks in executor.status_facade and executor.status_facade[blocks].state is JobState.RUNNING)
    manager = executor.connected_managers()[0]
    assert {"worker_count", "active", "block_id", "tasks"} <= set(manager)
    assert adapter.observe(executor, 1).blocks == {blocks}
    installed = adapter.distributions(executor)
    assert installed is None or {"parsl", "dill"} <= installed  # None: a Parsl that does not tell


def test_a_dead_interchange_is_seen_and_blocks_nobody(running: HighThroughputExecutor) -> None:
    executor = running
    process = executor.interchange_proc
    assert process is not None
    process.kill()
    process.wait()
    began = time.monotonic()
    with pytest.raises((CommandClientTimeoutError, CommandClientBadError)):  # the poller may have asked first
        adapter.observe(executor, 1)
    assert time.monotonic() - began < adapter.COMMAND_LIMIT / 2
    with pytest.raises(CommandClientBadError):
        executor.connected_managers()
    reason = adapter.why_dead(executor)
    assert reason is not None
    assert "interchange" in reason


APPS = """
import os

def work(x):
    return x * 2, os.environ.get("PARSL_WORKER_POOL_ID", "") != ""

def fail():
    raise LookupError("mine")

def shell():
    return "true"
"""


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_pool_runs_apps_on_this_parsl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "apps_of_this_test.py").write_text(APPS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))  # workers import what this process imports
    monkeypatch.syspath_prepend(tmp_path)
    apps = import_module("apps_of_this_test")
    pool = ResilientPoolExecutor(
        label="pool", endpoints=[Endpoint(_htex("alpha"), site="somewhere")], fabric="memory://adapter"
    )
    with parsl.load(Config(executors=[pool], run_dir=str(tmp_path / "runinfo"), usage_tracking=0)):
        doubled = [parsl.python_app(apps.work)(i) for i in range(20)]
        assert [future.result(timeout=100) for future in doubled] == [(2 * i, True) for i in range(20)]
        with pytest.raises(LookupError, match="mine"):
            parsl.python_app(apps.fail)().result(timeout=100)
        assert parsl.bash_app(apps.shell)().result(timeout=100) == 0
