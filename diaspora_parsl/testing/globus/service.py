"""A local Globus Compute service for the unmodified SDK, and its endpoints."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import uuid
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypeVar

from aiohttp import web

from diaspora_parsl.errors import ConfigurationError
from diaspora_parsl.testing import faults as f
from diaspora_parsl.testing.globus.broker.broker import Broker
from diaspora_parsl.testing.globus.core import QUEUE_PREFIX, Core, Throttle
from diaspora_parsl.testing.globus.endpoint import Endpoint
from diaspora_parsl.testing.globus.engines.base import Engine, Setup
from diaspora_parsl.testing.globus.engines.engine import EmulatedEngine
from diaspora_parsl.testing.globus.engines.hosted import HostedEngine, require_engine
from diaspora_parsl.testing.globus.web import application

if TYPE_CHECKING:
    from globus_compute_sdk import Client

#: Seconds in which the service must answer a call, start an endpoint, and stop.
_LIMIT: Final = 40.0
_START_LIMIT: Final = 110.0
_STOP_LIMIT: Final = 20.0
#: Seconds that open requests have at shutdown.
_SHUTDOWN_GRACE: Final = 0.2
#: Bounds of the seconds between two searches for expired results.
_SHORTEST_SEARCH: Final = 0.05
_LONGEST_SEARCH: Final = 60.0

T = TypeVar("T")


class LocalGlobusCompute:
    """A Globus Compute service on this host for the unmodified SDK: ``with LocalGlobusCompute() as service:``.

    One thread runs the REST interface and the AMQP broker for results. Endpoints run functions in their own processes.
    `EmulatedEndpoint` documents the faults.

    Args:
        host: Address to listen at.
        port: Port of the REST interface; 0: any free port. The SDK finds port 5000 without options, see `client`.
        payload_limit: Largest submission in bytes.
        result_limit: Largest result in bytes.
        results_kept: Seconds after which an unfetched result expires.
        requests: Rate limit as (requests, seconds), above which requests get status 429; None: no limit. The real
            service allows 20 requests in 10 s.

    Raises:
        ConfigurationError: A number is not above 0.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        payload_limit: int = 10 * 2**20,
        result_limit: int = 10 * 2**20,
        results_kept: float = 1800.0,
        requests: tuple[int, float] | None = None,
    ) -> None:
        if results_kept <= 0.0 or (requests is not None and (requests[0] < 1 or requests[1] <= 0.0)):
            raise ConfigurationError(
                f"LocalGlobusCompute(results_kept={results_kept}, requests={requests}): give numbers above 0"
            )
        self._host = host
        self._port = port
        self._payload_limit = payload_limit
        self._result_limit = result_limit
        self._results_kept = results_kept
        self._throttle = None if requests is None else Throttle(*requests)
        self._endpoints: dict[str, EmulatedEndpoint] = {}
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop
        self._core: Core
        self._ended: asyncio.Event
        self._ready = threading.Event()
        self._failure: BaseException | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # --- from start to stop ---------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the service, without endpoints.

        Raises:
            OSError: The port is in use.
            RuntimeError: The service was started before.
        """
        if self._thread is not None:
            raise RuntimeError("this service was started before; make another")
        self._thread = threading.Thread(target=self._run, name="local-globus-compute", daemon=True)
        self._thread.start()
        if not self._ready.wait(_LIMIT):
            raise RuntimeError(f"the service did not start within {_LIMIT:.0f} s")
        if self._failure is not None:
            self._thread.join(_STOP_LIMIT)
            raise self._failure

    def stop(self) -> None:
        """End requests, connections, endpoints and their processes. A second call does nothing.

        Raises:
            RuntimeError: The service does not end in time, or failed while it ran.
        """
        if self._thread is None or not self._thread.is_alive():
            return
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(_STOP_LIMIT)
        if self._thread.is_alive():
            raise RuntimeError(f"the service did not end within {_STOP_LIMIT:.0f} s")
        if self._failure is not None:
            raise RuntimeError("the service failed while it ran") from self._failure

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as failure:  # noqa: BLE001 - raised where the service is started or stopped
            self._failure = failure
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()
        self._core = Core(Broker(self._host), self._throttle)
        runner = web.AppRunner(
            application(self._core, self._payload_limit),
            handler_cancellation=True,  # else the service answers disconnected clients for ever
            shutdown_timeout=_SHUTDOWN_GRACE,
            access_log=None,
        )
        await runner.setup()
        try:
            site = web.TCPSite(runner, self._host, self._port, reuse_address=True)
            await site.start()
            self._port = runner.addresses[0][1]
            await self._core.broker.start()
            self._ready.set()
            pause = min(max(self._results_kept / 4.0, _SHORTEST_SEARCH), _LONGEST_SEARCH)
            while not self._ended.is_set():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._ended.wait(), pause)
                self._core.expire(self._results_kept)
        finally:
            async with contextlib.AsyncExitStack() as stack:
                for endpoint in self._core.endpoints.values():
                    stack.push_async_callback(endpoint.engine.stop)
                stack.push_async_callback(self._core.broker.stop)
                stack.push_async_callback(runner.cleanup)

    def call(self, work: Callable[[Core], Coroutine[Any, Any, T]], limit: float = _LIMIT) -> T:
        """Run a coroutine in the thread of the service and return its result, within ``limit`` seconds."""
        if self._thread is None or not self._thread.is_alive():
            raise RuntimeError("this service does not run; use it inside `with LocalGlobusCompute() as service:`")
        return asyncio.run_coroutine_threadsafe(work(self._core), self._loop).result(limit)

    # --- what a test uses -----------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """URL of the REST interface."""
        return f"http://{self._host}:{self._port}"

    def client(self, **options: Any) -> Client:
        """Return a client of the SDK for this service. Use one per executor: a client serializes its requests.

        Args:
            options: Further arguments of `globus_compute_sdk.Client`.
        """
        from diaspora_parsl.testing.globus.sdk import client  # noqa: PLC0415 - load the SDK on demand

        return client(self.url, **options)

    def endpoint(
        self,
        label: str,
        *,
        workers: int = 1,
        nodes: int = 1,
        environment: Mapping[str, str] | None = None,
        engine: Literal["emulated", "GlobusComputeEngine"] = "emulated",
    ) -> EmulatedEndpoint:
        """Add an endpoint and wait until its workers are ready.

        Args:
            label: Label of the endpoint in fault scripts.
            workers: Number of workers per node.
            nodes: Number of nodes. ``DIASPORA_PARSL_NODE`` names the node on its workers: ``label-0``, ``label-1``, ...
            environment: Environment variables added on the workers.
            engine: ``emulated`` runs tasks in worker processes of this package. ``GlobusComputeEngine`` is the engine
                of a real endpoint; it needs the extra ``globus-engine`` and seconds to start, see `HostedEngine`.

        Raises:
            ConfigurationError: The label is in use, a number is below 1, or the engine is unknown or not installed.
        """
        if workers < 1 or nodes < 1:
            raise ConfigurationError(f"endpoint({label!r}, workers={workers}, nodes={nodes}): give at least one")
        if label in self._endpoints:
            raise ConfigurationError(f"there is an endpoint {label!r} already; give another label")
        if engine == "GlobusComputeEngine":
            require_engine(self._result_limit)
        elif engine != "emulated":
            raise ConfigurationError(f"engine={engine!r} is unknown; write 'emulated' or 'GlobusComputeEngine'")
        name = str(uuid.uuid4())

        async def add(core: Core) -> Endpoint:
            setup = Setup(
                label=label,
                name=name,
                workers=workers,
                nodes=nodes,
                result_limit=self._result_limit,
                environment=environment or {},
                ledger=core.ledger,
                report=core.settle,
            )
            made: Engine = EmulatedEngine(setup) if engine == "emulated" else HostedEngine(setup)
            await made.start()
            core.endpoints[name] = Endpoint(name, made)
            return core.endpoints[name]

        self._endpoints[label] = EmulatedEndpoint(self, self.call(add, _START_LIMIT))
        return self._endpoints[label]

    @property
    def endpoints(self) -> tuple[EmulatedEndpoint, ...]:
        """The endpoints, in the order of their creation."""
        return tuple(self._endpoints.values())

    @property
    def requests_seen(self) -> dict[str, int]:
        """Number of requests so far by method and route, such as ``POST /v3/endpoints/{endpoint}/submit``."""

        async def read(core: Core) -> dict[str, int]:
            return dict(core.seen)

        return self.call(read)

    @property
    def tasks(self) -> dict[str, int]:
        """Number of tasks by state, such as ``running`` and ``success``."""

        async def read(core: Core) -> dict[str, int]:
            return {state.value: count for state, count in core.ledger.counts.items()}

        return self.call(read)

    def results_waiting(self, group: str) -> int:
        """Return the number of sent results of a task group that no client has acknowledged."""

        async def read(core: Core) -> int:
            return core.broker.waiting(QUEUE_PREFIX + group)

        return self.call(read)


class EmulatedEndpoint:
    """One endpoint of a `LocalGlobusCompute`, created by its method `endpoint`. It is thread-safe.

    An `Injector` accepts it like a `LocalSite`. It has the faults of a site and those of Globus Compute:

    - `Kill`: the status is offline, the service keeps new tasks, the endpoint loses its own without a report. It
      restarts at ``until``, or immediately without one.
    - `LoseWorker`, `LoseNode`: it reports the lost tasks as a real endpoint does, and starts new workers.
    - `Freeze`: tasks and results stop, the status stays unchanged.
    - `Mute`: status requests are answered when the fault ends; tasks continue.
    - `Slow` affects every function. `Flaky`, `BlackHole`, `WrongEnvironment` and `OutOfMemory`, and `Slow` on a
      `HostedEngine`, affect functions decorated with `subject_to_faults`.
    - `Refuse`, `LoseResults`, `RepeatResults`, `WrongStatus` affect this endpoint.
    - `LoseConnection`, `LoseBroker`, `ForgetResults`, and `Refuse` without an endpoint affect the whole service.
    """

    def __init__(self, service: LocalGlobusCompute, inside: Endpoint) -> None:
        self._service = service
        self._inside = inside
        self.label = inside.engine.setup.label
        self.workers = inside.engine.setup.workers
        self.nodes = inside.engine.setup.nodes
        self.id = inside.name
        """UUID of the endpoint at the service."""
        self.output = inside.engine.output
        """File with the output of user code; it exists while the service runs."""

    @property
    def domain(self) -> object:
        """The service of the endpoint."""
        return self._service

    def status(self) -> dict[str, Any]:
        """Return the status document of the endpoint, also during `Mute`."""

        async def read(_: Core) -> dict[str, Any]:
            return self._inside.status()

        return self._service.call(read)

    def counts(self) -> dict[str, int]:
        """Return the true numbers of workers and tasks, with the keys of a status, and ``waiting`` at the service."""

        async def read(_: Core) -> dict[str, int]:
            return {**self._inside.engine.counts(), "waiting": self._inside.engine.waiting}

        return self._service.call(read)

    def pids(self) -> list[int]:
        """Return the process ids of its workers."""

        async def read(_: Core) -> list[int]:
            return await self._inside.engine.pids()

        return self._service.call(read)

    def troubles(self) -> tuple[f.Fault, ...]:
        """Return the active faults of the endpoint and of the whole service."""

        async def read(core: Core) -> tuple[f.Fault, ...]:
            return (*self._inside.faults, *core.faults)

        return self._service.call(read)

    def refuses(self, fault: f.Fault) -> str | None:
        """Return why the fault cannot be applied to this endpoint, or None if it can."""
        if isinstance(fault, f.LoseFabric | f.ClockJump):
            return "it affects a pool, not an endpoint"
        if getattr(fault, "endpoint", None) not in {None, self.label}:
            return f"it is not for {self.label}"
        if isinstance(fault, f.LoseNode | f.BlackHole) and fault.node >= self.nodes:
            return f"the endpoint has {self.nodes} nodes, from 0 up"
        return None

    def begin(self, fault: f.Fault) -> None:
        """Begin a fault of the endpoint or of the whole service, and wait until it is applied.

        A fault without ``until`` also ends here, any other at `end`. The times of the fault are ignored.

        Raises:
            ConfigurationError: the fault cannot be applied here.
        """
        self._service.call(lambda core: self._target(fault, core).begin(fault))

    def end(self, fault: f.Fault) -> None:
        """End a fault, unless another fault of its kind is active.

        Raises:
            ValueError: The fault is not active.
        """
        self._service.call(lambda core: self._target(fault, core).end(fault))

    def _target(self, fault: f.Fault, core: Core) -> Endpoint | Core:
        reason = self.refuses(fault)
        if reason is not None:
            raise ConfigurationError(f"{fault}: {reason}")
        return core if getattr(fault, "endpoint", None) is None else self._inside
