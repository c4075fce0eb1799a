"""A local Globus Compute: service, broker and endpoints, for the SDK as it is."""

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

#: Seconds that the service may take for anything that it is asked to do, for a new endpoint, and for its end.
_LIMIT: Final = 40.0
_START_LIMIT: Final = 110.0
_STOP_LIMIT: Final = 20.0
#: Seconds that requests may go on when it ends.
_COURTESY: Final = 0.2
#: Seconds between two searches for results that are kept no longer: a share of their time, within bounds.
_SHORTEST_SEARCH: Final = 0.05
_LONGEST_SEARCH: Final = 60.0

T = TypeVar("T")


class LocalGlobusCompute:
    """A Globus Compute service on this host, for the SDK as it is: ``with LocalGlobusCompute() as service:``.

    It has a REST interface and an AMQP broker for the results, in one thread, and endpoints that really run functions,
    in processes of their own. What a script of faults can do to them is said by `EmulatedEndpoint`.

    Args:
        host: that it listens at.
        port: of its REST interface; 0: any that is free. At 5000 the SDK finds it by itself, see `client`.
        payload_limit: bytes that one submission may have.
        result_limit: bytes that one result may have.
        results_kept: seconds that results wait for who has not fetched them.
        requests: a number and seconds: more requests than that in this time are answered with 429; None: no limit. The
            real service allows 20 in 10 s.
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
        """Start the service; it has no endpoints yet.

        Raises:
            OSError: the port is in use.
            RuntimeError: it was started before.
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
        """End everything: requests, connections, endpoints and their processes. A second call does nothing.

        Raises:
            RuntimeError: it does not end in time, or something went wrong in it before.
        """
        if self._thread is None or not self._thread.is_alive():
            return
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(_STOP_LIMIT)
        if self._thread.is_alive():
            raise RuntimeError(f"the service did not end within {_STOP_LIMIT:.0f} s")
        if self._failure is not None:
            raise RuntimeError("the service failed while it worked") from self._failure

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
            handler_cancellation=True,  # or a client that went away would be answered for ever
            shutdown_timeout=_COURTESY,
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
            # Whatever fails, the rest ends too.
            async with contextlib.AsyncExitStack() as stack:
                for endpoint in self._core.endpoints.values():
                    stack.push_async_callback(endpoint.engine.stop)
                stack.push_async_callback(self._core.broker.stop)
                stack.push_async_callback(runner.cleanup)

    def call(self, work: Callable[[Core], Coroutine[Any, Any, T]], limit: float = _LIMIT) -> T:
        """Run something in the thread of the service, so many seconds at most; returns what it returns."""
        if self._thread is None or not self._thread.is_alive():
            raise RuntimeError("this service does not run; use it inside `with LocalGlobusCompute() as service:`")
        return asyncio.run_coroutine_threadsafe(work(self._core), self._loop).result(limit)

    # --- what a test uses -----------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """Of the REST interface."""
        return f"http://{self._host}:{self._port}"

    def client(self, **options: Any) -> Client:
        """A client of the SDK for this service; give each executor one of its own, as a client is one lock.

        Args:
            options: further arguments of `globus_compute_sdk.Client`.
        """
        from diaspora_parsl.testing.globus.sdk import client  # noqa: PLC0415 - who needs no client loads none

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
        """Add an endpoint, and wait until its workers are ready.

        Args:
            label: that fault scripts call it by.
            workers: of each node.
            nodes: how many. On the worker ``DIASPORA_PARSL_NODE`` tells which: ``label-0`` and so on.
            environment: further variables for its workers.
            engine: what runs the tasks: worker processes of this package, or the engine of a real endpoint, which needs
                the extra ``globus-engine`` and takes seconds to start, see `HostedEngine`.

        Raises:
            ConfigurationError: there is such an endpoint, the numbers make none, or the engine is not installed.
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
        """All of them, in the order in which they were added."""
        return tuple(self._endpoints.values())

    @property
    def requests_seen(self) -> dict[str, int]:
        """Requests so far by method and route, such as ``POST /v3/endpoints/{endpoint}/submit``."""

        async def read(core: Core) -> dict[str, int]:
            return dict(core.seen)

        return self.call(read)

    @property
    def tasks(self) -> dict[str, int]:
        """How many tasks the service knows in each state, such as ``running`` and ``success``."""

        async def read(core: Core) -> dict[str, int]:
            return {state.value: count for state, count in core.ledger.counts.items()}

        return self.call(read)

    def results_waiting(self, group: str) -> int:
        """Results of a group of tasks that were sent and that no client has acknowledged."""

        async def read(core: Core) -> int:
            return core.broker.waiting(QUEUE_PREFIX + group)

        return self.call(read)


class EmulatedEndpoint:
    """One endpoint of a `LocalGlobusCompute`, made by its method `endpoint`; any thread may use it.

    It can be given to an `Injector` as a `LocalSite` can, and knows the same faults and those of Globus Compute:

    - `Kill`: its status says offline, what is submitted waits at the service, what it held is lost in silence. It comes
      back at ``until``; without one at once, as nobody else could start it.
    - `LoseWorker`, `LoseNode`: it reports the tasks that ran there as a real endpoint does, and starts new workers.
    - `Freeze`: nothing moves there, while its status says what it said before.
    - `Mute`: questions about its status are answered when it is over; work goes on.
    - `Slow`: meets every function. `Flaky`, `BlackHole`, `WrongEnvironment` and `OutOfMemory` meet functions that are
      decorated with `subject_to_faults`; so does `Slow` at a `HostedEngine`.
    - `Refuse`, `LoseResults`, `RepeatResults`, `WrongStatus`: as their words say.
    - `LoseConnection`, `LoseBroker`, `ForgetResults`, and `Refuse` without an endpoint: meet the whole service.
    """

    def __init__(self, service: LocalGlobusCompute, inside: Endpoint) -> None:
        self._service = service
        self._inside = inside
        self.label = inside.engine.setup.label
        self.workers = inside.engine.setup.workers
        self.nodes = inside.engine.setup.nodes
        self.id = inside.name
        """Its UUID at the service."""
        self.output = inside.engine.output
        """File to which what user code prints is appended, as long as the service runs."""

    @property
    def domain(self) -> object:
        """The service."""
        return self._service

    def status(self) -> dict[str, Any]:
        """What the service says of it, however mute it is."""

        async def read(_: Core) -> dict[str, Any]:
            return self._inside.status()

        return self._service.call(read)

    def counts(self) -> dict[str, int]:
        """Its workers and tasks as they are, in the words of a status, and ``waiting`` at the service."""

        async def read(_: Core) -> dict[str, int]:
            return {**self._inside.engine.counts(), "waiting": self._inside.engine.waiting}

        return self._service.call(read)

    def pids(self) -> list[int]:
        """Of its workers."""

        async def read(_: Core) -> list[int]:
            return await self._inside.engine.pids()

        return self._service.call(read)

    def troubles(self) -> tuple[f.Fault, ...]:
        """What is wrong now, with the endpoint and with the whole service."""

        async def read(core: Core) -> tuple[f.Fault, ...]:
            return (*self._inside.troubles, *core.troubles)

        return self._service.call(read)

    def refuses(self, fault: f.Fault) -> str | None:
        """Why the fault cannot be applied here, None if it can."""
        if isinstance(fault, f.LoseFabric | f.ClockJump):
            return "it happens to a pool, not to an endpoint"
        if getattr(fault, "endpoint", None) not in {None, self.label}:
            return f"it is not for {self.label}"
        if isinstance(fault, f.LoseNode | f.BlackHole) and fault.node >= self.nodes:
            return f"the endpoint has {self.nodes} nodes, from 0 up"
        return None

    def begin(self, fault: f.Fault) -> None:
        """From now on this is wrong, with the endpoint or with the whole service; returns when it is.

        What has no ``until`` is over at once, the rest when `end` is called. The times of the fault do not count here.

        Raises:
            ConfigurationError: the fault cannot be applied here.
        """
        self._service.call(lambda core: self._target(fault, core).begin(fault))

    def end(self, fault: f.Fault) -> None:
        """This is wrong no longer, unless another fault of the same kind lasts.

        Raises:
            ValueError: it has not begun.
        """
        self._service.call(lambda core: self._target(fault, core).end(fault))

    def _target(self, fault: f.Fault, core: Core) -> Endpoint | Core:
        reason = self.refuses(fault)
        if reason is not None:
            raise ConfigurationError(f"{fault}: {reason}")
        return core if getattr(fault, "endpoint", None) is None else self._inside
