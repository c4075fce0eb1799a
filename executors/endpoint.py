"""One endpoint of a pool, as the user describes it."""

from __future__ import annotations

import logging
import re
import reprlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from parsl.executors.base import ParslExecutor

from diaspora_parsl.errors import ConfigurationError

from .argument_types import checked
from .maintenance import Maintenance, as_windows
from .parsl import adapter
from .resources import strings_of

logger = logging.getLogger(__name__)

_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True, init=False, repr=False)
class Endpoint:
    """One Parsl executor in a pool, with its site, tags and limits.

    Args:
        executor: A `ParslExecutor` that is not started, or a callable that makes one. The pool rebuilds Parsl's own
            executors from their configuration when they die; others need the callable.
        label: Label, unique in the pool. Required with a callable; the executor's own by default.
        site: Facility of the endpoint. Endpoints of one site are expected to fail together. The label by default.
        max_concurrency: Attempts that may run at a time. HTEX reports its connected workers and a thread pool its
            threads; other executors need this value.
        tags: Tags that apps can require with ``parsl_resource_specification={"tags": ["gpu"]}``.
        heartbeat_period: Whole seconds between heartbeats of an HTEX whose user left Parsl's defaults (30 and 120),
            with which a lost manager is noticed after two minutes. None leaves Parsl's defaults.
        detection_time: Whole seconds of silence after which the pool reroutes the tasks of an HTEX manager.
        mem_per_worker: GB of memory per worker. A task that ran out of memory goes where there is more.
        node_agent: Whether each block starts ``diaspora-parsl agent``, so that its nodes publish heartbeats. The
            package must be installed there.
        maintenance: Windows in which the pool does not use the endpoint: ``[Maintenance(start=..., end=...)]``.
        prefetch_seconds: Seconds of known work sent ahead to each worker, more where a round trip is long;
            ``PoolSettings.prefetch_seconds`` by default.

    Raises:
        ConfigurationError: An argument cannot be used; the message says what to write instead.
    """

    label: str
    site: str
    max_concurrency: int | None
    tags: frozenset[str]
    heartbeat_period: int | None
    detection_time: int
    mem_per_worker: float | None
    node_agent: bool
    maintenance: tuple[Maintenance, ...]
    prefetch_seconds: float | None
    executor: ParslExecutor | None
    build: Callable[[], ParslExecutor] | None

    @checked("executor")
    def __init__(
        self,
        executor: ParslExecutor | Callable[[], ParslExecutor],
        *,
        label: str | None = None,
        site: str | None = None,
        max_concurrency: int | None = None,
        tags: Iterable[str] = (),
        heartbeat_period: int | None = 1,
        detection_time: int = 4,
        mem_per_worker: float | None = None,
        node_agent: bool = False,
        maintenance: Iterable[Maintenance] = (),
        prefetch_seconds: float | None = None,
    ) -> None:
        first, build = _first_and_factory(executor, label)
        name = first.label if first is not None and label is None else label
        if name is None or not _LABEL.fullmatch(name):
            raise ConfigurationError(
                f"An endpoint cannot be labelled {name!r}. Use letters, digits, '_', '-' and '.': label=\"alpha\"."
            )
        if name.startswith("_parsl_internal"):
            raise ConfigurationError(f"The label {name!r} is reserved by Parsl. Choose another.")
        if first is not None and label is not None and first.label != label:
            raise ConfigurationError(
                f"The executor is labelled {first.label!r} and the Endpoint {label!r}. Give one label only."
            )
        if max_concurrency is not None and max_concurrency < 1:
            raise ConfigurationError(
                f"Endpoint {name!r}: max_concurrency={max_concurrency!r}, but it must be a whole number from 1 up."
            )
        if heartbeat_period is not None and not 1 <= heartbeat_period < detection_time:
            raise ConfigurationError(
                f"Endpoint {name!r}: heartbeat_period={heartbeat_period!r}, detection_time={detection_time!r}: "
                f"write whole seconds with detection_time above heartbeat_period, such as heartbeat_period=1, "
                f"detection_time=4; or heartbeat_period=None to leave Parsl's own."
            )
        if mem_per_worker is not None and not mem_per_worker > 0:
            raise ConfigurationError(
                f"Endpoint {name!r}: mem_per_worker={mem_per_worker!r}, but it must be the GB of memory per worker, "
                f"such as mem_per_worker=4."
            )
        if prefetch_seconds is not None and not prefetch_seconds > 0:
            raise ConfigurationError(
                f"Endpoint {name!r}: prefetch_seconds={prefetch_seconds!r}, but it must be seconds above 0, such as "
                f"prefetch_seconds=1.0."
            )
        values: dict[str, Any] = {
            "label": name, "site": site or name, "max_concurrency": max_concurrency, "tags": _as_tags(tags, name),
            "heartbeat_period": heartbeat_period, "detection_time": detection_time, "mem_per_worker": mem_per_worker,
            "node_agent": node_agent, "maintenance": as_windows(maintenance, name), "executor": first, "build": build,
            "prefetch_seconds": prefetch_seconds,
        }  # fmt: skip
        for key, value in values.items():
            object.__setattr__(self, key, value)

    def log_in(self) -> None:
        """Log in where that may ask the user; the pool calls this on the thread that starts it."""

    def __repr__(self) -> str:
        what = repr(self.executor) if self.executor is not None else "<factory>"
        return (
            f"Endpoint({what}, label={self.label!r}, site={self.site!r}, max_concurrency={self.max_concurrency}, "
            f"tags={set(self.tags)})"
        )


def _as_tags(tags: Iterable[str], label: str) -> frozenset[str]:
    if isinstance(tags, str):
        raise ConfigurationError(f'tags={tags!r} is one string. Write tags={{"{tags}"}}.')
    found = strings_of(tags)
    if found is None:
        raise ConfigurationError(
            f'Endpoint {label!r}: tags={reprlib.repr(tags)}: write strings, such as tags={{"gpu"}}.'
        )
    return found


def _first_and_factory(
    executor: ParslExecutor | Callable[[], ParslExecutor], label: str | None
) -> tuple[ParslExecutor | None, Callable[[], ParslExecutor] | None]:
    """Return the executor of the first generation, if given, and a callable that builds later ones, if known."""
    if isinstance(executor, ParslExecutor):
        if adapter.is_started(executor):
            raise ConfigurationError(
                f"Executor {executor.label!r} is already started. Give the pool a new one: it starts it itself."
            )
        build = adapter.recipe(executor)
        if build is None:
            logger.warning(
                "Endpoint %s cannot be rebuilt if it dies: only the configurations of Parsl's own executors are known. "
                'Give a factory: Endpoint(lambda: %s(...), label="%s").',
                executor.label, type(executor).__name__, executor.label,
            )  # fmt: skip
        return executor, build
    if isinstance(executor, type) or not callable(executor):
        raise ConfigurationError(
            f"An endpoint is a ParslExecutor or a callable that makes one, not {executor!r}. "
            f'Write Endpoint(HighThroughputExecutor(label="alpha")).'
        )
    if label is None:
        raise ConfigurationError('A factory needs a label: Endpoint(lambda: MyExecutor(...), label="gamma").')
    return None, executor
