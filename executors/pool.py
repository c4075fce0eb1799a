"""The drop-in executor: several endpoints behind one label of a Parsl `Config`."""

from __future__ import annotations

import functools
import itertools
import logging
import os
import secrets
import shlex
import socket
import time
import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final

from msgspec import structs
from parsl.data_provider.staging import Staging
from parsl.executors import HighThroughputExecutor
from parsl.executors.base import ParslExecutor
from parsl.executors.errors import InvalidResourceSpecification
from parsl.monitoring.radios.base import RadioConfig
from parsl.monitoring.radios.filesystem import FilesystemRadio
from parsl.monitoring.radios.htex import HTEXRadio
from parsl.utils import RepresentationMixin

from diaspora_parsl import events
from diaspora_parsl.core import stimuli
from diaspora_parsl.core.failure_rules import Rule, Rulebook, as_rules
from diaspora_parsl.core.machine import PoolCore
from diaspora_parsl.core.settings import EndpointSpec, PoolSettings
from diaspora_parsl.errors import ConfigurationError, FabricUnavailableError, PlacementError, PoolShutdownError
from diaspora_parsl.events.trace import Traces
from diaspora_parsl.fabric.address import RECORD, make_key, write_record
from diaspora_parsl.fabric.base import Fabric, open_fabric, redacted
from diaspora_parsl.fabric.consumer import Consumer
from diaspora_parsl.fabric.publisher import Publisher

from . import staging
from .argument_types import checked
from .endpoint import Endpoint
from .inbox.control_requests import configured
from .inbox.listener import TOPICS, Listener
from .inbox.replay import replay
from .parsl import adapter
from .parsl.observable import ObservableExecutor
from .parsl.scale_out_backoff import ScaleOutBackoff
from .resources import POOL_KEYS, as_dict, priority_of, take_idempotent, take_tags, take_walltime
from .runtime.driver import Driver, OpenTask
from .runtime.exit_watch import ExitWatch
from .runtime.import_scan import Imports
from .runtime.instance import EndpointInstance, Scaling

logger = logging.getLogger(__name__)

#: Seconds that `start` waits for endpoints before it lets the workflow begin without the slow ones.
_START_LIMIT: Final = 15.0
#: Seconds that `shutdown` may take in all.
_SHUTDOWN_LIMIT: Final = 8.0
#: Seconds that one read of the fabric waits. Health is updated after each.
_READ_WAIT: Final = 0.25


class ResilientPoolExecutor(ParslExecutor, RepresentationMixin):
    """A Parsl executor that federates endpoints: a site that dies, hangs or misbehaves costs time, never tasks.

    The pool chooses an endpoint per attempt, by health, load and observed speed. It reroutes attempts that are lost
    with their endpoint, and does not charge them to the user's ``retries``. It delivers a user's own exception
    unchanged; if the endpoint may have caused it, after a second opinion. It publishes every decision to the fabric.

    Args:
        label: Label of the pool in the `Config`.
        endpoints: `ParslExecutor` objects that are not started, or `Endpoint` objects, which add site, tags and limits.
        fabric: Event fabric: ``"embedded"`` (a private server for this host that ends with the run), ``"redis://host:6379/0"``,
            ``"kafka://host:9092/prefix"``, ``"memory://"`` and others (see `open_fabric`), or an open `Fabric`.
        strategy: Parsl's scaling strategy for the blocks of each endpoint: "none", "simple" or "htex_auto_scale".
            An executor cannot read the strategy of its `Config`.
        max_idletime: Seconds after which the strategy ends idle blocks.
        strategy_period: Seconds between two rounds of the strategy.
        unavailable_timeout: Seconds that a task waits while every endpoint that could run it is down.
        max_attempts: Upper bound of the attempts per task.
        hedging: Whether a slow attempt of an idempotent task (see `submit`) gets a second one at an idle slot
            elsewhere. The first result wins.
        shared_filesystem: Whether all endpoints and this host see the same files. Without it the pool accepts only
            staging inside the task.
        storage_access: Staging providers; by default those of the endpoints if they are equal, else Parsl's.
        working_dir: Directory that files are staged into; by default the endpoints' own, if they agree.
        remote_monitoring_radio: Radio of Parsl's monitoring; by default one that works on all these endpoints.
        second_opinion: Whether a task runs once elsewhere before the pool delivers an exception that the endpoint may
            have caused. Python apps without files count as safe to run twice; others declare ``idempotent``.
        failure_rules: `Rule` objects that classify exceptions, matched before the built-in ones.
        tracing: Whether functions at HTEX endpoints find the trace context of their attempt in the environment variable
            ``TRACEPARENT``. Events always carry it.
        settings: Further limits and time constants. The arguments above override its fields.

    Raises:
        ConfigurationError: An argument cannot be used; the message says what to write instead.
    """

    @checked("endpoints", "fabric")
    def __init__(
        self,
        label: str = "pool",
        *,
        endpoints: Iterable[ParslExecutor | Endpoint],
        fabric: str | Fabric = "embedded",
        strategy: str = "simple",
        max_idletime: float = 120.0,
        strategy_period: float = 5.0,
        unavailable_timeout: float = 600.0,
        max_attempts: int = 20,
        hedging: bool = True,
        shared_filesystem: bool = True,
        storage_access: list[Staging] | None = None,
        working_dir: str | None = None,
        remote_monitoring_radio: RadioConfig | None = None,
        second_opinion: bool = True,
        failure_rules: Iterable[Rule] = (),
        tracing: bool = False,
        settings: PoolSettings | None = None,
    ) -> None:
        super().__init__()
        if strategy not in {"none", "simple", "htex_auto_scale"}:
            raise ConfigurationError(f'strategy={strategy!r}: write "none", "simple" or "htex_auto_scale".')
        if unavailable_timeout <= 0 or max_attempts < 1:
            raise ConfigurationError("unavailable_timeout (seconds) must be above 0, and max_attempts at least 1.")
        _check_fabric(fabric)
        self.label = label
        self.endpoints = _as_endpoints(endpoints)
        self.fabric = redacted(fabric) if isinstance(fabric, str) else fabric
        self.strategy, self.max_idletime, self.strategy_period = strategy, max_idletime, strategy_period
        self.unavailable_timeout, self.max_attempts = unavailable_timeout, max_attempts
        self.hedging, self.second_opinion = hedging, second_opinion
        self.shared_filesystem, self.tracing = shared_filesystem, tracing
        self.failure_rules = as_rules(failure_rules)
        base = settings or PoolSettings()
        self.settings = structs.replace(
            base,
            unavailable_timeout=unavailable_timeout,
            max_attempts=max_attempts,
            second_opinion=second_opinion and base.second_opinion,
            hedging=hedging and base.hedging,
        )
        self._fabric_config = fabric
        self._first = {endpoint.label: _first_executor(endpoint) for endpoint in self.endpoints}
        executors = list(self._first.values())
        self.storage_access = staging.storage_of_pool(executors, storage_access, shared_filesystem=shared_filesystem)
        self.working_dir = staging.working_dir_of_pool(executors, working_dir)
        self.remote_monitoring_radio = remote_monitoring_radio or _radio_for(executors)
        self._monitors_resources = all(executor.monitor_resources() for executor in executors)
        self._takes = {label: adapter.resources(executor) for label, executor in self._first.items()}
        self._eligible: dict[tuple[frozenset[str], frozenset[str]], frozenset[str]] = {}
        self._block_budgets = {e.label: ScaleOutBackoff(functools.partial(self._pausing, e)) for e in self.endpoints}
        self._worker_init = {label: adapter.worker_init(executor) or "" for label, executor in self._first.items()}
        self._marks: dict[str, list[str]] = {endpoint.label: [] for endpoint in self.endpoints}
        self._imports = Imports()
        self._numbers = itertools.count(1)
        self._driver: Driver | None = None
        self._fabric: Fabric | None = None
        self._publisher: Publisher | None = None
        self._reader: Consumer | None = None
        self._exit_watch: ExitWatch | None = None
        self._is_shut_down = False

    def monitor_resources(self) -> bool:
        """Return whether every endpoint allows resource monitoring; threads do not."""
        return self._monitors_resources

    # --- life -----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Open the fabric and start all endpoints in parallel.

        The pool revives an endpoint that cannot be started like one that died.

        Raises:
            ConfigurationError: The pool was started before, or an endpoint needs a login that is missing.
        """
        if self._driver is not None:
            raise ConfigurationError(f"Pool {self.label!r} was started before. Make a new one for each parsl.load().")
        for endpoint in self.endpoints:
            endpoint.log_in()
        super().start()
        try:
            self._start()
        except BaseException:
            self.shutdown()
            raise

    def _start(self) -> None:
        Path(self.run_dir).mkdir(parents=True, exist_ok=True)
        sites = {endpoint.label: endpoint.site for endpoint in self.endpoints}
        source = f"/{socket.gethostname()}/{self.label}/{self.run_id or uuid.uuid4()}"
        self._fabric = self._open_fabric()
        outbox = Path(self.run_dir) / f"{self.label}-outbox.sqlite"
        opener = self._fabric if self._fabric is not None else self._reopen_fabric
        publisher = self._publisher = Publisher(opener, source=source, outbox_path=outbox)
        specs = [self._spec(endpoint) for endpoint in self.endpoints]
        core = PoolCore(specs, self.settings)
        traces = Traces(source) if self.tracing else None
        driver = self._driver = Driver(
            self.label, core, self._build, publisher.emit, Rulebook(self.failure_rules), traces
        )
        publisher.emit(
            events.PoolStarted(pool=self.label, endpoints=tuple(sites), run_dir=self.run_dir), self.label, self.label
        )
        for stimulus in configured(self.endpoints):
            driver.post(stimulus)
        listener = Listener(
            sites,
            source,
            driver.post,
            self.label,
            key=(key := make_key(Path(self.run_dir))),
            peer_report_time=self.settings.peer_report_time,
            secrets=self._marks.__getitem__,
            lost=driver.worker_died,
            waiting=driver.waiting,
        )
        self._reader = Consumer(opener, TOPICS, listener.on_events, on_alive=listener.on_alive, wait=_READ_WAIT)
        if self._fabric is not None and self._fabric_config != "embedded":  # which has no earlier events
            replay(self._fabric, self.label, sites, driver.post, key=key)
        self._exit_watch = ExitWatch(f"pool-{self.label}-exit", self.shutdown)
        self._exit_watch.start()
        driver.start(_START_LIMIT)

    def shutdown(self) -> None:
        """Close every endpoint and end all processes they started, within a few seconds. Idempotent.

        Tasks that are not done fail with `PoolShutdownError`.
        """
        if self._is_shut_down:
            return
        self._is_shut_down = True
        if self._exit_watch is not None:
            self._exit_watch.cancel()
        if self._driver is not None:
            self._driver.close(_SHUTDOWN_LIMIT)
        if self._publisher is not None:
            self._publisher.emit(events.PoolStopped(pool=self.label, reason="shut down"), self.label, self.label)
        super().shutdown()  # ends the receiver of a radio; one on the fabric reads the fabric to its end
        if self._reader is not None:
            self._reader.close()
        if self._publisher is not None:
            self._publisher.close(2.0)
        if self._fabric is not None and isinstance(self._fabric_config, str):
            self._fabric.close()

    def _open_fabric(self) -> Fabric | None:
        """Return the fabric, or None if it cannot be opened now; the run continues without it."""
        if not isinstance(self._fabric_config, str):
            return self._fabric_config
        try:
            fabric = open_fabric(self._fabric_config, self.run_dir)
        except FabricUnavailableError as error:
            logger.warning("Pool %s starts without its fabric: %s. It is tried again.", self.label, error)
            return None
        if not self._fabric_config.startswith(("embedded", "memory:")):
            write_record(Path(self.run_dir), fabric.url)  # agents and viewers find it by the run directory
        return fabric

    def _reopen_fabric(self) -> Fabric:
        if not isinstance(self._fabric_config, str):
            return self._fabric_config
        return open_fabric(self._fabric_config, self.run_dir)

    def _spec(self, endpoint: Endpoint) -> EndpointSpec:
        executor = self._first[endpoint.label]
        if (
            endpoint.max_concurrency is None
            and not adapter.asks_for_slots(executor)
            and adapter.fixed_slots(executor) is None
        ):
            logger.warning(
                "Endpoint %s: %s does not say how many attempts it can run at a time; the pool assumes one. "
                "Write Endpoint(..., max_concurrency=N).", endpoint.label, type(executor).__name__,
            )  # fmt: skip
        return EndpointSpec(
            label=endpoint.label,
            site=endpoint.site,
            max_concurrency=endpoint.max_concurrency,
            capacity=adapter.capacity(executor, endpoint.max_concurrency),
            revivable=endpoint.build is not None,
            mem_per_worker=endpoint.mem_per_worker,
            prefetch_seconds=endpoint.prefetch_seconds,
        )

    def _build(self, label: str, generation: int) -> EndpointInstance:
        """Build the instance of an endpoint for one generation."""
        endpoint = next(endpoint for endpoint in self.endpoints if endpoint.label == label)
        driver = self._driver
        if driver is None or (generation > 0 and endpoint.build is None):
            raise ConfigurationError(f"endpoint {label} cannot be built")
        executor = self._first[label] if generation == 0 or endpoint.build is None else endpoint.build()
        # Only processes of its blocks know the mark, so it authenticates what an agent reports.
        mark = f"{self.run_id or 'run'}/{self.label}/{label}/{generation}/{os.getpid()}/{secrets.token_hex(8)}"
        self._marks[label].append(mark)
        mark_line = f"export {adapter.BLOCK_VARIABLE}={shlex.quote(mark)}"
        if isinstance(executor, ObservableExecutor) and self._publisher is not None:
            publisher = self._publisher
            executor.connect(lambda payload: publisher.emit(payload, label, label))
        run_dir = self.run_dir if generation == 0 else str(Path(self.run_dir) / "revived" / str(generation))
        return EndpointInstance(
            endpoint,
            executor,
            generation=generation,
            context=adapter.RunContext(
                run_dir=run_dir,
                run_id=self.run_id,
                log_config=getattr(self, "log_config", None),
                monitoring_messages=self.monitoring_messages,
            ),
            scaling=Scaling(
                strategy=self.strategy, max_idletime=self.max_idletime, strategy_period=self.strategy_period
            ),
            mark=mark,
            blocks=self._block_budgets[label],
            worker_init="\n".join([mark_line, self._worker_init[label], *self._agent(endpoint, executor)]),
            post=driver.post,
            outcome=driver.attempt_done,
        )

    def _pausing(self, endpoint: Endpoint, reason: str, pause: float) -> None:
        """Log and publish that no blocks are requested for a while."""
        logger.warning("Pool %s: endpoint %s: %s", self.label, endpoint.label, reason)
        if self._publisher is not None:
            event = events.EndpointRefused(endpoint=endpoint.label, site=endpoint.site, reason=reason, pause=pause)
            self._publisher.emit(event, endpoint.label, endpoint.label)

    def _agent(self, endpoint: Endpoint, executor: ParslExecutor) -> list[str]:
        """Return the lines that start a node agent in each block, if the user wants one."""
        if not endpoint.node_agent:
            return []
        return [adapter.launch_agents(executor, endpoint.label, endpoint.site, Path(self.run_dir) / RECORD)]

    # --- tasks ----------------------------------------------------------------------------------------------------

    def submit(
        self, func: Callable[..., Any], resource_specification: dict[str, Any], *args: Any, **kwargs: Any
    ) -> Future[Any]:
        """Accept a task. Never blocks and does no I/O.

        Args:
            func: Function to run.
            resource_specification: See `PoolResourceSpecification`. ``idempotent`` is by default true for python apps
                without ``stdout``, ``stderr`` and ``outputs``; ``walltime`` is by default the limit of the
                Parsl app. A key that no endpoint knows is left out with a warning.
            args: Positional arguments of the function.
            kwargs: Keyword arguments of the function.

        Returns:
            A future that settles once. Its ``parsl_executor_task_id`` is the task id in the events.

        Raises:
            PlacementError: No endpoint has the tags, or a value of the specification cannot be used.
            InvalidResourceSpecification: Endpoints know some of the keys, but no endpoint knows all.
            PoolShutdownError: The pool is not running.
        """
        driver = self._driver
        if driver is None or self._is_shut_down:
            raise PoolShutdownError(f"Pool {self.label!r} is not running.")
        resources = as_dict(resource_specification)
        tags = take_tags(resources)
        eligible = self._eligible_for(tags, frozenset(resources) - POOL_KEYS)
        priority = priority_of(resources)
        name, is_app, is_bash = adapter.describe(func)
        safe = is_app and not is_bash and not adapter.writes_files(kwargs)
        idempotent = take_idempotent(resources, safe)
        walltime = take_walltime(resources, kwargs if is_app else {})
        number = next(self._numbers)
        future = driver.new_future(number)
        stimulus = stimuli.Submitted(
            time.monotonic(), number, name, eligible, priority, tuple(sorted(tags)), idempotent=idempotent,
            walltime=walltime, imports=self._imports.of(func) if len(self.endpoints) > 1 else frozenset(),
        )  # fmt: skip
        driver.open_task(number, OpenTask(future, func, resources, args, kwargs, is_app), stimulus)
        return future

    def _eligible_for(self, tags: frozenset[str], keys: frozenset[str]) -> frozenset[str]:
        """Return the labels of the endpoints that have the tags and know the resource keys."""
        found = self._eligible.get((tags, keys))
        if found is not None:
            return found
        tagged = [endpoint for endpoint in self.endpoints if tags <= endpoint.tags]
        if not tagged:
            offered = sorted(set().union(*(endpoint.tags for endpoint in self.endpoints)))
            raise PlacementError(
                f"No endpoint of pool {self.label!r} has the tags {sorted(tags)}. "
                f"There are: {', '.join(offered) or 'none'}. Write Endpoint(..., tags={{...}})."
            )
        takes = {endpoint.label: self._takes[endpoint.label] for endpoint in tagged}
        everything = any(known is None for known in takes.values())
        known_keys = frozenset[str]().union(*(known for known in takes.values() if known is not None))
        unknown = frozenset() if everything else keys - known_keys
        if unknown:
            logger.warning(
                "Pool %s: no endpoint knows %s of a resource specification; such keys are left out. Known are: %s.",
                self.label, ", ".join(sorted(unknown)), ", ".join(sorted(known_keys | POOL_KEYS | {"tags"})),
            )  # fmt: skip
        fitting = frozenset(label for label, known in takes.items() if known is None or keys - unknown <= known)
        if not fitting:
            raise InvalidResourceSpecification(
                set(keys), f"Each of these keys is known to some endpoint of pool {self.label!r}, but none knows all."
            )
        self._eligible[tags, keys] = fitting
        return fitting


def _as_endpoints(given: Iterable[ParslExecutor | Endpoint]) -> tuple[Endpoint, ...]:
    try:
        items = list(given)
    except TypeError:
        raise ConfigurationError("endpoints must be a list: endpoints=[HighThroughputExecutor(...), ...].") from None
    endpoints = tuple(item if isinstance(item, Endpoint) else Endpoint(item) for item in items)
    if not endpoints:
        raise ConfigurationError(
            'A pool needs at least one endpoint: endpoints=[HighThroughputExecutor(label="alpha"), ...].'
        )
    labels = [endpoint.label for endpoint in endpoints]
    doubles = sorted({label for label in labels if labels.count(label) > 1})
    if doubles:
        raise ConfigurationError(
            f"Several endpoints are labelled {', '.join(map(repr, doubles))}. They would share a log directory and "
            f"could not be told apart: give each executor a label of its own."
        )
    return endpoints


def _first_executor(endpoint: Endpoint) -> ParslExecutor:
    if endpoint.executor is not None:
        return endpoint.executor
    executor = endpoint.build() if endpoint.build is not None else None
    if not isinstance(executor, ParslExecutor):
        raise ConfigurationError(f"The factory of endpoint {endpoint.label!r} made {executor!r}, not a ParslExecutor.")
    if executor.label != endpoint.label:
        raise ConfigurationError(
            f"The factory of endpoint {endpoint.label!r} makes an executor labelled {executor.label!r}. "
            f"Use one label for both."
        )
    if adapter.is_started(executor):
        raise ConfigurationError(f"The factory of endpoint {endpoint.label!r} makes an executor that is started.")
    return executor


def _check_fabric(fabric: object) -> None:
    """Refuse a fabric that can never be opened, before anything is started."""
    if isinstance(fabric, Fabric) and not isinstance(fabric, str):
        return
    if not isinstance(fabric, str):
        raise ConfigurationError(f'fabric={fabric!r}: write "embedded", a URL such as "redis://host:6379/0", or give a '
                                 f"Fabric object.")  # fmt: skip
    if fabric != "embedded":
        open_fabric(fabric).close()  # opens no connection


def _radio_for(executors: list[ParslExecutor]) -> RadioConfig:
    """Return HTEX's own radio, which loses everything on other executors, or else one that writes files."""
    if all(isinstance(executor, HighThroughputExecutor) for executor in executors):
        return HTEXRadio()
    return FilesystemRadio()
