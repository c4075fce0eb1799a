"""One place that runs attempts, as the user describes it."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from parsl.executors.base import ParslExecutor

from diaspora_parsl.errors import ConfigurationError

from .maintenance import Maintenance, as_windows
from .parsl import adapter

logger = logging.getLogger(__name__)

_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True, init=False, repr=False)
class Endpoint:
    """One Parsl executor in a pool, with what the pool should know about it.

    Args:
        executor: any `ParslExecutor` that is not started, or a callable that makes one. Parsl's own executors are
            rebuilt from their configuration if they die; others need the callable.
        label: unique in the pool. Needed with a callable; otherwise the executor's own.
        site: the facility it belongs to, the domain that fails together; its label if not given.
        slots: attempts at once at most. HTEX reports its connected workers and threads their number; for other
            executors say it here.
        tags: what apps can ask for with ``parsl_resource_specification={"tags": ["gpu"]}``.
        heartbeats: period and threshold in whole seconds that an HTEX gets if its user left Parsl's defaults (30 and
            120), which would make a lost manager known after two minutes. None leaves them.
        memory: GB that each of its slots has. A task that ran out of memory goes where there is more.
        agent: start ``diaspora-parsl agent`` in each block, so that its nodes give signs of life on the fabric. The
            package must be installed there.
        maintenance: when it is not to be used: ``[Maintenance(start=..., end=...)]``.
        ahead: seconds of known work that are sent ahead to each worker, more where a round trip takes long; the
            ``horizon`` of the pool's settings if not given.

    Raises:
        ConfigurationError: something cannot work; the message says what to write instead.
    """

    label: str
    site: str
    slots: int | None
    tags: frozenset[str]
    heartbeats: tuple[int, int] | None
    memory: float | None
    agent: bool
    maintenance: tuple[Maintenance, ...]
    ahead: float | None
    executor: ParslExecutor | None
    build: Callable[[], ParslExecutor] | None

    def __init__(
        self,
        executor: ParslExecutor | Callable[[], ParslExecutor],
        *,
        label: str | None = None,
        site: str | None = None,
        slots: int | None = None,
        tags: Iterable[str] = (),
        heartbeats: tuple[int, int] | None = (1, 4),
        memory: float | None = None,
        agent: bool = False,
        maintenance: Iterable[Maintenance] = (),
        ahead: float | None = None,
    ) -> None:
        first, build = _first_and_factory(executor, label)
        name = first.label if first is not None and label is None else label
        if not isinstance(name, str) or not _LABEL.fullmatch(name):
            raise ConfigurationError(
                f"An endpoint cannot be labelled {name!r}. Use letters, digits, '_', '-' and '.': label=\"alpha\"."
            )
        if name.startswith("_parsl_internal"):
            raise ConfigurationError(f"The label {name!r} is reserved by Parsl. Choose another.")
        if first is not None and label is not None and first.label != label:
            raise ConfigurationError(
                f"The executor is labelled {first.label!r} and the Endpoint {label!r}. Give one label only."
            )
        if isinstance(tags, str):
            raise ConfigurationError(f'tags={tags!r} is one string. Write tags={{"{tags}"}}.')
        if slots is not None and (not isinstance(slots, int) or slots < 1):
            raise ConfigurationError(f"Endpoint {name!r}: slots={slots!r}, but it must be a whole number from 1 up.")
        if heartbeats is not None and not (len(heartbeats) == 2 and 1 <= heartbeats[0] < heartbeats[1]):  # noqa: PLR2004
            raise ConfigurationError(
                f"Endpoint {name!r}: heartbeats={heartbeats!r}, but it must be (period, threshold) in whole seconds "
                f"with the threshold above the period, such as (1, 4); or None to leave Parsl's own."
            )
        if memory is not None and (isinstance(memory, str | bool) or memory <= 0):
            raise ConfigurationError(
                f"Endpoint {name!r}: memory={memory!r}, but it must be the GB of each slot, such as memory=4."
            )
        if ahead is not None and not ahead > 0:
            raise ConfigurationError(f"Endpoint {name!r}: ahead={ahead!r}, but it must be seconds, such as ahead=1.0.")
        values: dict[str, Any] = {
            "label": name, "site": site or name, "slots": slots, "tags": frozenset(tags), "heartbeats": heartbeats,
            "memory": memory, "agent": agent, "maintenance": as_windows(maintenance, name), "executor": first,
            "build": build, "ahead": ahead,
        }  # fmt: skip
        for key, value in values.items():
            object.__setattr__(self, key, value)

    def log_in(self) -> None:
        """Called before a pool starts, in the thread that starts it: what may have to ask the user is done here."""

    def __repr__(self) -> str:
        what = repr(self.executor) if self.executor is not None else "<factory>"
        return f"Endpoint({what}, label={self.label!r}, site={self.site!r}, slots={self.slots}, tags={set(self.tags)})"


def _first_and_factory(
    executor: ParslExecutor | Callable[[], ParslExecutor], label: str | None
) -> tuple[ParslExecutor | None, Callable[[], ParslExecutor] | None]:
    """The executor of the first generation, if given, and how to build further ones, if known."""
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
