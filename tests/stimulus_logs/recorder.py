"""Records what every core of this process is told, and what it answers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from diaspora_parsl.core import actions, settings, stimuli
from diaspora_parsl.core.machine import PoolCore
from tests.stimulus_logs.codec import Log, dumps, encode


@dataclass
class Recording:
    """One core: what it was made of, and each stimulus with its answer."""

    endpoints: tuple[settings.EndpointSpec, ...]
    settings: settings.PoolSettings
    steps: list[tuple[stimuli.Stimulus, tuple[actions.Action, ...]]] = field(default_factory=list)

    def log(self, name: str) -> Log:
        """The same as JSON."""
        return Log(
            name,
            [encode(spec, whole=True) for spec in self.endpoints],
            encode(self.settings, whole=True),
            [dumps([encode(stimulus), encode(actions)]) for stimulus, actions in self.steps],
        )


@contextlib.contextmanager
def recording() -> Iterator[list[Recording]]:
    """Record every core that is made inside of this context, in the order in which they are made.

    Cores are recorded as long as the context lasts. Contexts must not be nested.
    """
    recordings: list[Recording] = []
    init, handle = PoolCore.__init__, PoolCore.handle
    kept: dict[int, tuple[PoolCore, Recording]] = {}  # the core is kept, so that its id stays its own

    def recorded_init(
        core: PoolCore, endpoints: Sequence[settings.EndpointSpec], settings: settings.PoolSettings | None = None
    ) -> None:
        init(core, endpoints, settings)
        recorded = Recording(tuple(endpoints), core.settings)
        recordings.append(recorded)
        kept[id(core)] = (core, recorded)

    def recorded_handle(core: PoolCore, stimulus: stimuli.Stimulus) -> list[actions.Action]:
        actions = handle(core, stimulus)
        if id(core) in kept:
            kept[id(core)][1].steps.append((stimulus, tuple(actions)))
        return actions

    PoolCore.__init__ = recorded_init  # type: ignore[method-assign,assignment]
    PoolCore.handle = recorded_handle  # type: ignore[method-assign,assignment]
    try:
        yield recordings
    finally:
        PoolCore.__init__ = init  # type: ignore[method-assign]
        PoolCore.handle = handle  # type: ignore[method-assign]
