"""Everything of Parsl's that is not its documented interface, in one place.

What is used here is checked against the oldest and the newest supported Parsl by tests/contract/test_parsl_adapter.py.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import pickle
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple

import zmq
from msgspec import Struct
from parsl.app.bash import remote_side_bash_executor
from parsl.app.errors import RemoteExceptionWrapper, wrap_error
from parsl.executors import HighThroughputExecutor, MPIExecutor, ThreadPoolExecutor
from parsl.executors.base import ParslExecutor
from parsl.executors.high_throughput.errors import CommandClientBadError, CommandClientTimeoutError, WorkerLost
from parsl.executors.high_throughput.executor import DEFAULT_INTERCHANGE_LAUNCH_CMD
from parsl.executors.status_handling import BlockProviderExecutor
from parsl.jobs.job_status_poller import JobStatusPoller
from parsl.jobs.states import JobState, JobStatus
from parsl.launchers.base import Launcher
from parsl.providers import LocalProvider
from parsl.serialize import concretes, serialize
from parsl.serialize.errors import SerializationError
from parsl.serialize.facade import pack_buffers
from parsl.utils import RepresentationMixin, Timer

from .launcher import AgentLauncher
from .observable import ObservableExecutor, Observation
from .scale_out_backoff import PROVEN_AFTER, ScaleOutBackoff
from .worker_init import agent_command

#: Parsl's own defaults, in seconds: they are what makes its detection slow.
PARSL_HEARTBEATS = (30, 120)
#: No command to an interchange may take longer than this, in seconds; after that the channel is bad for good.
COMMAND_LIMIT = 10.0
#: No send to an interchange may block longer than this, in seconds.
SEND_LIMIT = 2.0
#: Marks every process of a block, so that none is left behind.
BLOCK_VARIABLE = "DIASPORA_PARSL_BLOCK"

#: Bytes of code above which Parsl warns, as in its own ``submit``.
_LARGE = 1 << 20
_APP_CODE = wrap_error(lambda: None).__code__
_HINTS = frozenset({"priority"})
_MPI = frozenset({"num_nodes", "ranks_per_node", "num_ranks", "launcher_options"})


class RunContext(Struct, frozen=True):
    """What a DataFlowKernel gives each of its executors, and a pool passes on to its endpoints."""

    run_dir: str
    run_id: str | None
    log_config: Any
    monitoring_messages: Any


# --- building -----------------------------------------------------------------------------------------------------


def recipe(executor: ParslExecutor) -> Callable[[], ParslExecutor] | None:
    """How to build this executor again, from its configuration as it stands now; None if that cannot be known.

    Parsl's own executors keep every constructor argument as an attribute (`RepresentationMixin`). Some are changed by
    `start`, so this must be asked before. The provider is not rebuilt: it keeps the table of jobs that must be
    cancelled before a new generation may start.
    """
    kind = type(executor)
    if not (isinstance(executor, RepresentationMixin) and kind.__module__.startswith("parsl.")):
        return None
    arguments = {}
    for name in list(inspect.signature(kind.__init__).parameters)[1:]:
        value = getattr(executor, name)
        if name == "max_workers_per_node" and value == float("inf"):
            continue  # how HTEX keeps "not given"
        if name == "interchange_launch_cmd" and value == DEFAULT_INTERCHANGE_LAUNCH_CMD:
            continue
        arguments[name] = value
    return lambda: kind(**arguments)


def is_started(executor: ParslExecutor) -> bool:
    """Whether somebody has started it already."""
    if isinstance(executor, HighThroughputExecutor):
        return executor.interchange_proc is not None
    return executor.run_id is not None or (isinstance(executor, ThreadPoolExecutor) and hasattr(executor, "executor"))


def prepare(executor: ParslExecutor, context: RunContext) -> None:
    """Do for a member of a pool what the DataFlowKernel does for the executors of a `Config`."""
    executor.run_id = context.run_id
    executor.run_dir = context.run_dir
    if hasattr(executor, "log_config"):
        executor.log_config = context.log_config
    if context.monitoring_messages is not None:
        executor.monitoring_messages = context.monitoring_messages
    provider: Any = getattr(executor, "provider", None)
    if hasattr(provider, "script_dir"):
        provider.script_dir = str(Path(context.run_dir) / "submit_scripts")
        Path(provider.script_dir).mkdir(parents=True, exist_ok=True)


def tighten_heartbeats(executor: ParslExecutor, heartbeats: tuple[int, int]) -> bool:
    """Replace Parsl's default heartbeat period and threshold (seconds); a user's own choice is left alone."""
    if not isinstance(executor, HighThroughputExecutor):
        return False
    if (executor.heartbeat_period, executor.heartbeat_threshold) != PARSL_HEARTBEATS:
        return False
    executor.heartbeat_period, executor.heartbeat_threshold = heartbeats
    return True


def worker_init(executor: ParslExecutor) -> str | None:
    """The shell lines that run in each block before its workers; None if the executor has no such thing."""
    value = getattr(getattr(executor, "provider", None), "worker_init", None)
    return value if isinstance(value, str) else None


def set_worker_init(executor: ParslExecutor, lines: str) -> None:
    """Replace those lines."""
    provider: Any = getattr(executor, "provider", None)
    provider.worker_init = lines


def launch_agents(executor: ParslExecutor, endpoint: str, site: str, address: Path) -> str:
    """Have an agent started on each node of each block, beside its manager.

    Returns:
        A line for `set_worker_init` where there is no launcher; empty otherwise.
    """
    provider: Any = getattr(executor, "provider", None)
    launcher = getattr(provider, "launcher", None)
    if not isinstance(launcher, Launcher):
        return agent_command(endpoint, site, address)
    inner = launcher.inner if isinstance(launcher, AgentLauncher) else launcher  # of the generation before
    provider.launcher = AgentLauncher(inner, endpoint=endpoint, site=site, fabric=address)
    return ""


def guard_channels(executor: ParslExecutor) -> Callable[[], None]:
    """Before `start`: bound every command and every send, so that a dead interchange blocks nobody for ever.

    Returns:
        A call that makes commands under way, and all later ones, fail at once: to be used before closing the sockets
        under the threads that wait on them.
    """
    abandoned = threading.Event()
    if isinstance(executor, HighThroughputExecutor):
        launch = executor._start_local_interchange_process  # noqa: SLF001 - the first moment at which the channels exist

        def guarded_launch() -> None:
            _bound_commands(executor, abandoned)
            socket = executor.outgoing_q.zmq_socket
            socket.setsockopt(zmq.SNDTIMEO, int(SEND_LIMIT * 1000))
            socket.setsockopt(zmq.LINGER, 0)
            launch()

        vars(executor)["_start_local_interchange_process"] = guarded_launch
    return abandoned.set


def _bound_commands(executor: HighThroughputExecutor, abandoned: threading.Event) -> None:
    client = executor.command_client
    lock: threading.Lock = client._lock  # noqa: SLF001 - one REQ socket: commands of several threads take turns

    def run(message: Any, max_retries: int = 3, timeout_s: float | None = None) -> Any:  # noqa: ARG001 - Parsl's
        limit = COMMAND_LIMIT if timeout_s is None else timeout_s
        end = time.monotonic() + limit
        with lock:
            if not client.ok or abandoned.is_set():
                raise CommandClientBadError
            socket, waits_for = client.zmq_socket, zmq.POLLOUT  # at first the interchange has not connected yet
            while not abandoned.is_set() and time.monotonic() < end:
                if socket.poll(100, waits_for):
                    if waits_for == zmq.POLLIN:
                        return socket.recv_pyobj()
                    socket.send_pyobj(message)
                    waits_for = zmq.POLLIN
                elif (process := executor.interchange_proc) is not None and process.poll() is not None:
                    break
            client.ok = False
            raise CommandClientTimeoutError(f"no answer within {limit:.0f} s, or its process has ended")

    vars(client)["run"] = run


def show_demand(executor: ParslExecutor, demand: Callable[[], int]) -> None:
    """Let Parsl's scaling strategy read the pool's demand instead of what is bound to the executor."""
    if isinstance(executor, BlockProviderExecutor):
        vars(executor)["outstanding"] = demand  # on the instance, where the strategy finds it first


def guard_scaling(executor: ParslExecutor, budget: ScaleOutBackoff) -> Callable[[], None]:
    """Ask for blocks one by one, and only as the budget allows.

    Returns:
        A call for after each status poll: it looks what became of blocks, and asks again for what was withheld of the
        first ones, which Parsl's strategies request only once.
    """
    if not isinstance(executor, BlockProviderExecutor) or executor.provider is None:
        return lambda: None
    ask, patience, owed = executor.scale_out_facade, PROVEN_AFTER + executor.status_polling_interval, -1
    budget.forget()

    def review() -> None:
        for block, status in list(executor.status_facade.items()):
            if status.state is JobState.MISSING:  # what HTEX makes of the end of a block that never connected
                budget.ended((executor, block), time.monotonic(), " ".join((status.message or "").split())[:300])

    def scale_out(blocks: int) -> list[str]:
        nonlocal owed
        got: list[str] = []
        review()
        while len(got) < blocks and budget.may_ask(time.monotonic()):
            before = set(executor.status_facade)
            new = ask(1)
            if not new:
                why = [status.message for block, status in executor.status_facade.items() if block not in before]
                budget.refused(time.monotonic(), " ".join(str(*why[:1]).split())[:300])
                break
            now = time.monotonic()
            budget.accepted((executor, new[0]), now, proven_at=now + patience)
            got += new
        owed = max(0, (blocks if owed < 0 else owed) - len(got))
        return got

    def tend() -> None:
        review()
        if owed > 0 and not executor.bad_state_is_set:
            scale_out(owed)

    vars(executor)["scale_out_facade"] = scale_out  # on the instance, where the strategy finds it first
    return tend


def start_poller(
    executor: ParslExecutor,
    strategy: str,
    max_idletime: float,
    period: float,
    tend: Callable[[], None] = lambda: None,
) -> JobStatusPoller | None:
    """Start status polling and scaling for one executor with blocks, and ``tend`` after each round; None if no blocks.

    One poller per endpoint: a status call that hangs stalls nobody else.
    """
    if not isinstance(executor, BlockProviderExecutor) or executor.provider is None:
        return None
    return _EagerPoller(executor, strategy, max_idletime, period, tend)


class _EagerPoller(JobStatusPoller):
    """Has its executor in its first round, which is at once: Parsl's own requests the first block a period later."""

    def __init__(
        self,
        executor: BlockProviderExecutor,
        strategy: str,
        max_idletime: float,
        period: float,
        tend: Callable[[], None],
    ) -> None:
        self._awaited = [executor]
        self._tend = tend
        super().__init__(strategy=strategy, max_idletime=max_idletime, strategy_period=period)  # starts its thread

    def poll(self) -> None:
        """One round."""
        if self._awaited:
            self.add_executors([self._awaited.pop()])
        super().poll()
        self._tend()


# --- asking -------------------------------------------------------------------------------------------------------


def why_dead(executor: ParslExecutor) -> str | None:
    """Why this executor can never work again, or None. Never blocks."""
    if isinstance(executor, ObservableExecutor):
        return executor.why_dead()
    if isinstance(executor, BlockProviderExecutor) and executor.bad_state_is_set:
        cause = executor.executor_exception
        text = " ".join(str(cause).split())
        return f"Parsl set its bad state: {type(cause).__name__}: {text[:300]}"
    if isinstance(executor, HighThroughputExecutor):
        process = executor.interchange_proc
        if process is not None and process.poll() is not None:
            return f"its interchange (pid {process.pid}) ended with exit code {process.returncode}"
        if not executor.command_client.ok:
            return f"its interchange gave no answer within {COMMAND_LIMIT:.0f} s"
        thread = executor._result_queue_thread  # noqa: SLF001 - nothing public tells that results stopped flowing
        if thread is not None and not thread.is_alive():
            return "Parsl's thread that receives its results has ended"
    return None


def observe(executor: ParslExecutor, fixed_slots: int) -> Observation:
    """Ask an executor what it has. May block up to `COMMAND_LIMIT`.

    Raises:
        Exception: whatever Parsl raises when the interchange does not answer.
    """
    if isinstance(executor, ObservableExecutor):
        return executor.observe()
    if not isinstance(executor, HighThroughputExecutor):
        return Observation(fixed_slots)
    managers = executor.connected_managers()
    ended = _ended_blocks(executor)
    useful = [
        manager
        for manager in managers
        if manager["active"] and not manager.get("draining", False) and manager["block_id"] not in ended
    ]
    slots = sum(manager["worker_count"] for manager in useful)
    pairs = tuple(sorted((manager["manager"], manager["block_id"] or "") for manager in useful))
    there = {manager["block_id"] for manager in managers} | ended
    awaited = {
        block: status.state
        for block, status in list(executor.status_facade.items())
        if status.state in {JobState.PENDING, JobState.RUNNING} and block not in there
    }
    came = set(executor.connected_blocks()) if awaited or not slots else set()
    deserted = frozenset(block for block, state in awaited.items() if state is JobState.RUNNING and block in came)
    more = bool(awaited.keys() - deserted)
    if slots:
        blocks = frozenset(str(manager["block_id"]) for manager in useful)
        return Observation(slots, blocks=blocks, managers=pairs, more=more, deserted=deserted)
    expected = any(
        status.state in {JobState.PENDING, JobState.HELD}
        or (status.state in {JobState.RUNNING, JobState.UNKNOWN} and block not in came)
        for block, status in list(executor.status_facade.items())
    )
    return Observation(0, blocks_expected=expected, more=more, deserted=deserted)


def hold_node(executor: ParslExecutor, manager: str, block: str) -> bool:
    """Send nothing new to a manager, if it is alone in its block; there is no way back but a new block.

    Returns:
        False if the manager is gone, or has neighbours in its block that are needed.
    """
    if not isinstance(executor, HighThroughputExecutor):
        return False
    there = [known["manager"] for known in executor.connected_managers() if known["block_id"] == block]
    if there != [manager]:
        return False
    executor._hold_manager(manager)  # noqa: SLF001 - nothing public keeps tasks off one manager
    return True


def end_block(executor: ParslExecutor, block: str) -> bool:
    """End a block all of whose managers are idle, as scaling in does, so that the strategy may start another.

    Returns:
        False if something still runs there: ask again.
    """
    if not isinstance(executor, HighThroughputExecutor) or executor.provider is None:
        return True
    if any(known["tasks"] for known in executor.connected_managers() if known["block_id"] == block):
        return False
    job = executor.blocks_to_job_id.get(block)
    if job is not None and all(executor.provider.cancel([job])):
        ended = JobStatus(JobState.SCALED_IN)
        executor._status[block] = executor._simulated_status[block] = ended  # noqa: SLF001 - or it counts as failed
        executor.send_monitoring_info({block: ended})
    return True


def distributions(executor: ParslExecutor) -> frozenset[str] | None:
    """Names of the distributions that are installed at any of its managers; None if it does not say.

    May block up to `COMMAND_LIMIT`.

    Raises:
        Exception: whatever Parsl raises when the interchange does not answer.
    """
    ask = getattr(executor, "connected_managers_packages", None)
    if not isinstance(executor, HighThroughputExecutor) or ask is None:
        return None
    managers: dict[str, dict[str, str]] = ask()
    return frozenset(name for packages in managers.values() for name in packages)


def _ended_blocks(executor: HighThroughputExecutor) -> set[str]:
    """Blocks on this host that are over, seconds before the interchange misses their managers' heartbeats.

    Other providers are not asked: each status call costs a batch system work, and Parsl polls it already.
    """
    if not runs_here(executor) or executor.provider is None:
        return set()
    blocks = list(executor.blocks_to_job_id.items())
    states = executor.provider.status([job for _, job in blocks])
    return {block for (block, _), state in zip(blocks, states, strict=True) if state is not None and state.terminal}


def runs_here(executor: ParslExecutor) -> bool:
    """Whether its blocks are processes of this host."""
    return isinstance(getattr(executor, "provider", None), LocalProvider)


def fixed_slots(executor: ParslExecutor) -> int | None:
    """Attempts it can run at once, if that never changes and can be known."""
    if isinstance(executor, ObservableExecutor):
        return executor.most_slots()
    for name in ("max_threads", "max_workers"):
        value = getattr(executor, name, None)
        if isinstance(value, int) and value > 0:
            return value
    return None


def has_nodes(executor: ParslExecutor) -> bool:
    """Whether its attempts may run on several nodes, by workers that know their host, block and manager."""
    if not isinstance(executor, HighThroughputExecutor):
        return False
    provider: Any = executor.provider
    return provider is None or getattr(provider, "max_blocks", 1) * getattr(provider, "nodes_per_block", 1) > 1


def asks_for_slots(executor: ParslExecutor) -> bool:
    """Whether its slots come from connected workers."""
    return isinstance(executor, HighThroughputExecutor)


def capacity(executor: ParslExecutor, slots: int | None) -> int:
    """Slots it could have once scaled out to its last block."""
    if isinstance(executor, BlockProviderExecutor) and executor.provider is not None:
        provider: Any = executor.provider
        blocks = getattr(provider, "max_blocks", 1) * getattr(provider, "nodes_per_block", 1)
        most = max(1, int(blocks * max(1, executor.workers_per_node)))
        return most if slots is None else min(most, slots)
    return slots or fixed_slots(executor) or 1


def resources(executor: ParslExecutor) -> frozenset[str] | None:
    """Keys of a resource specification that it takes; None if it says nothing, and gets them all."""
    if isinstance(executor, ObservableExecutor):
        return executor.takes
    if isinstance(executor, MPIExecutor):
        return _MPI
    if isinstance(executor, HighThroughputExecutor):
        return _HINTS
    if isinstance(executor, ThreadPoolExecutor):
        return frozenset()
    return None


# --- tasks --------------------------------------------------------------------------------------------------------


class Description(NamedTuple):
    """What can be told of a callable that a DataFlowKernel, or anybody, submits."""

    name: str
    """Of the user's function inside Parsl's wrappers."""
    is_app: bool
    """An app's own exceptions come back as a *successful* `RemoteExceptionWrapper`."""
    is_bash: bool
    """A bash app: it appends to files of its own."""


def describe(function: Callable[..., Any]) -> Description:
    """Look through Parsl's wrappers at what the user wrote."""
    is_app = is_bash = False
    for _ in range(10):
        is_app = is_app or getattr(function, "__code__", None) is _APP_CODE
        inner = getattr(function, "__wrapped__", None)
        if inner is None and isinstance(function, functools.partial):
            is_bash = is_bash or function.func is remote_side_bash_executor
            inner = function.args[0] if function.args and callable(function.args[0]) else function.func
        if inner is None:
            break
        function = inner
    module = getattr(function, "__module__", None) or "?"
    return Description(f"{module}.{getattr(function, '__qualname__', type(function).__name__)}", is_app, is_bash)


def writes_files(kwargs: dict[str, Any]) -> bool:
    """Whether Parsl lets this call of an app write files, which a second run at the same time would spoil."""
    return any(kwargs.get(name) for name in ("stdout", "stderr", "outputs"))


def raised_by_user(result: Any) -> BaseException | None:
    """The user's exception, if this result wraps one."""
    return result.e_value if type(result) is RemoteExceptionWrapper else None


#: Values that every pickler writes alike, if they are few.
_PLAIN = (type(None), bool, int, float, str, bytes)
_FEW = 16
#: How Parsl marks data that dill wrote. What dill makes of plain values is an ordinary pickle.
_DILL = concretes.DillSerializer.identifier + b"\n"


def submit(
    executor: ParslExecutor,
    function: Callable[..., Any],
    resources: dict[str, Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Future[Any]:
    """Submit one attempt. Plain arguments reach an HTEX without dill, which takes ten times as long as pickle.

    Raises:
        Exception: whatever the executor's own ``submit`` raises.
    """
    payload = getattr(executor, "submit_payload", None)  # not in Parsl of 2025
    if type(executor) is HighThroughputExecutor and payload and _is_plain(args) and _is_plain(tuple(kwargs.values())):
        executor.validate_resource_spec(resources)
        try:
            code = serialize(function, buffer_threshold=_LARGE)
        except TypeError:
            raise SerializationError(getattr(function, "__name__", repr(function))) from None
        buffers = [code, _DILL + pickle.dumps(args), _DILL + pickle.dumps(kwargs)]
        sent: Future[Any] = payload({"resource_spec": resources} if resources else {}, pack_buffers(buffers))
        return sent
    return executor.submit(function, resources, *args, **kwargs)


def worker_lost(node: str) -> WorkerLost:
    """What HTEX says when a manager misses a worker."""
    return WorkerLost(-1, node)


def catching(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with its exceptions caught into its result, as those of apps are, so that they come as they are."""
    return function if describe(function).is_app else wrap_error(function)


def _is_plain(values: tuple[Any, ...]) -> bool:
    return len(values) <= _FEW and all(type(value) in _PLAIN for value in values)


# --- ending -------------------------------------------------------------------------------------------------------


def stop_polling(poller: JobStatusPoller, timeout: float, *, scale_in: bool) -> None:
    """End status polling within ``timeout`` seconds; ``scale_in`` also ends all blocks the polite way."""
    if scale_in:
        poller.close(timeout)
    else:
        Timer.close(poller, timeout)


def cancel_jobs(executor: ParslExecutor) -> None:
    """Cancel every job of this executor through its provider: a dead interchange cannot scale in."""
    if not isinstance(executor, BlockProviderExecutor) or executor.provider is None:
        return
    jobs = [
        job
        for block, job in list(executor.blocks_to_job_id.items())
        if (status := executor.status_facade.get(block)) is None or not status.terminal
    ]
    if jobs:
        executor.provider.cancel(jobs)


def shut_down(executor: ParslExecutor, *, wait: float) -> None:
    """The executor's own shutdown, as bounded as it can be asked to be."""
    if isinstance(executor, HighThroughputExecutor):
        if executor.interchange_proc is None:
            return
        executor.shutdown(timeout=wait)
    else:
        executor.shutdown()


def kill_interchange(executor: ParslExecutor) -> None:
    """SIGKILL the interchange, which a stopped one cannot ignore, reap it, and close the pipe to it."""
    process = getattr(executor, "interchange_proc", None)
    if process is None:
        return
    if process.poll() is None:
        process.kill()
        process.wait(timeout=5)
    if process.stdin is not None:
        with contextlib.suppress(OSError):  # what waits in it reaches nobody any more
            process.stdin.close()  # Parsl leaves it open if the interchange does not start
